"""MFSF2-NET: a CNN and a transformer branch, fused across frequencies and scales, for medical images.

- ``layers``: building blocks, tensors in, tensors out.
- ``heads``: task heads.
- ``models``: backbones, encoder, whole models, and the table of the named ones (``variants``).
- ``factory``: builds models and loads their weights.
- ``registry``: ``create_model``, ``load_pretrained`` and the lists of names.
- ``insert``: MFFE in other models (``probe``: what their modules return).
- ``weights``: read, load, save, convert and publish weights; the Hub; the weights in the package.
- ``deploy``: batch-norm folding, export, ONNX.
- ``timm_models``: registers models with timm.

Notation: r_1..r_4 are the maps of the CNN and p_1..p_4 those of the transformer, at strides 4, 8, 16 and 32. F_1..F_4
are the fused maps, and P is the output of the pyramid. C, A and O are the channels of F_i, of the pyramid's adapters
and of P. G is the height and width of the grid of the DCT filters, and K their number.
"""

from .heads import ClassificationHead, SegmentationHead
from .insert import add_mffe, load_host_state_dict, remove_mffe
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
    TokenMFFE,
    TwoModalityStem,
    adaptive_avg_pool,
    dct_basis,
    dct_filter_bank,
    dct_frequencies,
)
from .models import MFSF2, MFSF2Encoder, MFSF2TwoModality, Outputs
from .registry import create_model, list_models, list_pretrained, load_pretrained
from .version import __version__
from .weights import load_checkpoint, push_to_hub, save_pretrained

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
    "TokenMFFE",
    "TwoModalityStem",
    "__version__",
    "adaptive_avg_pool",
    "add_mffe",
    "create_model",
    "dct_basis",
    "dct_filter_bank",
    "dct_frequencies",
    "list_models",
    "list_pretrained",
    "load_checkpoint",
    "load_host_state_dict",
    "load_pretrained",
    "push_to_hub",
    "remove_mffe",
    "save_pretrained",
]
