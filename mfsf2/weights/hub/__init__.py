"""The Hugging Face Hub: find and fetch files, publish models."""

from .errors import MissingFileError
from .files import HubFile, HubOptions, commit_of, find_file

__all__ = ["HubFile", "HubOptions", "MissingFileError", "commit_of", "find_file"]
