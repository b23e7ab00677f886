"""Building blocks: tensors in, tensors out. They need only torch, and each works in your own model."""

from .align import DualBranchAlign
from .axial import AxialAttention
from .conv import ConcatConv2d, ConvNormAct, PointwiseConv2d, SplitConv2d
from .dct import ALLOWED_NUM_FREQUENCIES, FREQUENCY_TABLES, dct_basis, dct_filter_bank, dct_frequencies
from .fusion import CrossBranchGate, FusionStage, MultiFreqMultiScaleFusion
from .mffe import MFFE
from .modality import SliceStem, TwoModalityStem
from .pooling import GlobalPool, adaptive_avg_pool, adaptive_pool_matrix, window_mean_matrix
from .pyramid import MultiScalePyramid, PyramidSplitAttention
from .reverse_attention import ReverseAttention, foreground_probability
from .tokens import TokenMFFE

__all__ = [
    "ALLOWED_NUM_FREQUENCIES",
    "FREQUENCY_TABLES",
    "MFFE",
    "AxialAttention",
    "ConcatConv2d",
    "ConvNormAct",
    "CrossBranchGate",
    "DualBranchAlign",
    "FusionStage",
    "GlobalPool",
    "MultiFreqMultiScaleFusion",
    "MultiScalePyramid",
    "PointwiseConv2d",
    "PyramidSplitAttention",
    "ReverseAttention",
    "SliceStem",
    "SplitConv2d",
    "TokenMFFE",
    "TwoModalityStem",
    "adaptive_avg_pool",
    "adaptive_pool_matrix",
    "dct_basis",
    "dct_filter_bank",
    "dct_frequencies",
    "foreground_probability",
    "window_mean_matrix",
]
