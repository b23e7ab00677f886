"""The named networks: one entry each, with the arguments that make it and the pretrained tags it has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import MFSF2Network
from .classification import MFSF2Classifier
from .rcm import MFSF2RCMClassifier
from .segmentation import MFSF2ClassifierSegmenter, MFSF2Segmenter

__all__ = ["BACKBONES_TAG", "VARIANTS", "Variant"]

BACKBONES_TAG = "in1k_backbones"
"""Tag of the start from ImageNet: both branches' weights come from timm's Hub repositories, all else is fresh."""

_TRAINED_TAGS: dict[str, tuple[str, ...]] = {
    "mfsf2_tiny_cls": ("ham10000",),
    "mfsf2_tiny_seg": ("ham10000",),
    "mfsf2_tiny_clsseg": ("ham10000",),
}


@dataclass(frozen=True)
class Variant:
    """A named network.

    Attributes:
        network: its class.
        args: the class's arguments.
        cfg: input and head in the form of timm's pretrained configuration.
        tags: pretrained tags, the default first.
    """

    network: type[MFSF2Network]
    args: Mapping[str, Any]
    cfg: Mapping[str, Any]
    tags: tuple[str, ...]

    @property
    def trained_tags(self) -> list[str]:
        """The tags whose weights are trained throughout."""
        return [tag for tag in self.tags if tag != BACKBONES_TAG]


_SIZES: dict[str, dict[str, Any]] = {
    "mfsf2": dict(cnn="resnet50", transformer="pvt_v2_b2", channels=256, pyramid_chans=256, out_chans=512),
    "mfsf2_small": dict(cnn="resnet34", transformer="pvt_v2_b1", channels=128, pyramid_chans=128, out_chans=256),
    "mfsf2_tiny": dict(cnn="resnet18", transformer="pvt_v2_b0", channels=64, pyramid_chans=64, out_chans=128),
}

_INPUT_CFG: dict[str, Any] = dict(
    input_size=(3, 224, 224),
    min_input_size=(3, 29, 29),
    fixed_input_size=False,
    pool_size=(7, 7),
    crop_pct=0.9,
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    first_conv=("encoder.cnn.conv1", "encoder.transformer.patch_embed.proj"),
    license="apache-2.0",
)

_CLASSIFIER = "head.fc"
_MASK_LAYERS = ("mask_head.coarse", *(f"mask_head.steps.{i}.out" for i in range(4)))

_TASKS: dict[str, tuple[type[MFSF2Network], dict[str, Any], dict[str, Any]]] = {
    "cls": (MFSF2Classifier, dict(num_classes=7), dict(classifier=_CLASSIFIER)),
    "seg": (MFSF2Segmenter, dict(num_classes=1), dict(classifier=_MASK_LAYERS)),
    "clsseg": (MFSF2ClassifierSegmenter, dict(num_classes=7), dict(classifier=_CLASSIFIER)),
    "rcm_cls": (MFSF2RCMClassifier, dict(num_classes=8), dict(classifier=_CLASSIFIER)),
}

VARIANTS: dict[str, Variant] = {
    f"{size}_{task}": Variant(
        network,
        args={**args, **task_args},
        cfg={**_INPUT_CFG, **task_args, **cfg},
        tags=(*_TRAINED_TAGS.get(f"{size}_{task}", ()), BACKBONES_TAG),
    )
    for task, (network, task_args, cfg) in _TASKS.items()
    for size, args in _SIZES.items()
}
"""All named networks."""
