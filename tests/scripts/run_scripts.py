"""Runs example scripts one after the other in this process, for tests of several processes under one launcher."""

import importlib
import json
import sys
from pathlib import Path

if __name__ == "__main__":
    for name, arguments in json.loads(Path(sys.argv[1]).read_text()).items():
        importlib.import_module(name).main(arguments)
