"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from mfsf2.version import __version__

project = "mfsf2"
author = "The mfsf2 authors"
copyright = "2026, The mfsf2 authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# With "all", arguments without a description would be listed once more for each list of fields in a docstring.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_use_ivar = True

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"mfsf2 {version}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
