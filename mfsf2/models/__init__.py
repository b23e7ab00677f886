"""Whole networks, built of timm backbones, this library's blocks and its heads."""

from .encoder import MFSF2Encoder
from .network import MFSF2Classifier

__all__ = ["MFSF2Classifier", "MFSF2Encoder"]
