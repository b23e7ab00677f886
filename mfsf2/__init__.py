"""MFSF2-NET: a CNN and a transformer branch, fused across frequencies and scales, for medical images."""

from .heads import ClassificationHead, SegmentationHead
from .layers import (
    FREQUENCY_TABLES,
    MFFE,
    AxialAttention,
    CrossBranchGate,
    DualBranchAlign,
    FusionStage,
    GlobalPool,
    MultiFreqMultiScaleFusion,
    MultiScalePyramid,
    PyramidSplitAttention,
    ReverseAttention,
    SliceStem,
    TwoModalityStem,
    adaptive_avg_pool,
    dct_basis,
    dct_filter_bank,
    dct_frequencies,
)
from .models import MFSF2, MFSF2Encoder, MFSF2TwoModality, Outputs
from .registry import create_model, list_models, list_pretrained
from .version import __version__
from .weights import load_checkpoint, save_pretrained

__all__ = [
    "FREQUENCY_TABLES",
    "MFFE",
    "MFSF2",
    "AxialAttention",
    "ClassificationHead",
    "CrossBranchGate",
    "DualBranchAlign",
    "FusionStage",
    "GlobalPool",
    "MFSF2Encoder",
    "MFSF2TwoModality",
    "MultiFreqMultiScaleFusion",
    "MultiScalePyramid",
    "Outputs",
    "PyramidSplitAttention",
    "ReverseAttention",
    "SegmentationHead",
    "SliceStem",
    "TwoModalityStem",
    "__version__",
    "adaptive_avg_pool",
    "create_model",
    "dct_basis",
    "dct_filter_bank",
    "dct_frequencies",
    "list_models",
    "list_pretrained",
    "load_checkpoint",
    "save_pretrained",
]
