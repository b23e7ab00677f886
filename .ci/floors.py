"""Print the requirements of a setup.cfg, of the package and of its training, that have a floor, pinned to it."""

import configparser
import sys

config = configparser.ConfigParser()
config.read(sys.argv[1])
requirements = config["options"]["install_requires"] + config["options.extras_require"]["train"]
for line in (line.strip() for line in requirements.splitlines()):
    if ">=" in line and not line.startswith("#"):
        print(line.replace(">=", "==").replace(" ", ""))
