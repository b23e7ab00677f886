"""Print a command of the README: the fenced block that follows ``<!-- NAME -->``."""

import re
import sys
from pathlib import Path

path, name = sys.argv[1:]
found = re.search(rf"<!-- {name} -->\n+```\w*\n(.*?)```", Path(path).read_text(encoding="utf-8"), re.DOTALL)
if found is None:
    sys.exit(f"{path} has no block marked <!-- {name} -->")
print(found[1].strip())
