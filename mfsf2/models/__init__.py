"""Whole models: timm backbones, this library's blocks and heads."""

from .encoder import MFSF2Encoder
from .mfsf2 import MFSF2
from .outputs import Outputs
from .two_modality import MFSF2TwoModality

__all__ = ["MFSF2", "MFSF2Encoder", "MFSF2TwoModality", "Outputs"]
