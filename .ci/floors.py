"""Print the requirements of a setup.cfg, each pinned to its floor."""

import configparser
import sys

config = configparser.ConfigParser()
config.read(sys.argv[1])
lines = (line.strip() for line in config["options"]["install_requires"].splitlines())
for line in lines:
    if line and not line.startswith("#"):
        print(line.replace(">=", "==").replace(" ", ""))
