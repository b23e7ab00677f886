"""Building blocks: tensors in, tensors out. They need torch alone, and each works in a network of your own."""

from .align import DualBranchAlign
from .conv import ConvBnAct
from .dct import ALLOWED_NUM_FREQUENCIES, FREQUENCY_TABLES, dct_basis, dct_filter_bank, dct_frequencies
from .fusion import CrossBranchGate, FusionStage, MultiFreqMultiScaleFusion
from .mffe import MFFE
from .pooling import GlobalPool, adaptive_avg_pool, adaptive_pool_matrix, window_mean_matrix
from .pyramid import MultiScalePyramid, PyramidSplitAttention

__all__ = [
    "ALLOWED_NUM_FREQUENCIES",
    "FREQUENCY_TABLES",
    "MFFE",
    "ConvBnAct",
    "CrossBranchGate",
    "DualBranchAlign",
    "FusionStage",
    "GlobalPool",
    "MultiFreqMultiScaleFusion",
    "MultiScalePyramid",
    "PyramidSplitAttention",
    "adaptive_avg_pool",
    "adaptive_pool_matrix",
    "dct_basis",
    "dct_filter_bank",
    "dct_frequencies",
    "window_mean_matrix",
]
