"""Weights: read, load, save, find, convert."""

from .convert import convert_authors_keys
from .load import load_checkpoint
from .save import save_pretrained

__all__ = ["convert_authors_keys", "load_checkpoint", "save_pretrained"]
