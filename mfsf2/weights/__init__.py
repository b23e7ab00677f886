"""Weights: read, load, save, find, convert, publish."""

from .convert import convert_authors_keys
from .load import load_checkpoint
from .publish import push_to_hub
from .save import save_pretrained

__all__ = ["convert_authors_keys", "load_checkpoint", "push_to_hub", "save_pretrained"]
