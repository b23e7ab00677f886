"""The named models, each with its class, its arguments and its pretrained tags."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from torch.overrides import TorchFunctionMode

from ..layers.checks import check_integer
from .encoder import MFSF2Encoder
from .mfsf2 import MFSF2
from .two_modality import MFSF2TwoModality

__all__ = ["BACKBONES_TAG", "VARIANTS", "Variant", "find_variant"]

BACKBONES_TAG = "in1k_backbones"
"""Tag for ImageNet weights in both branches, from timm's Hub repositories; everything else is untrained."""

_TRAINED_TAGS: dict[str, tuple[str, ...]] = {
    "mfsf2_tiny_cls": ("ham10000",),
    "mfsf2_tiny_seg": ("ham10000",),
    "mfsf2_tiny_clsseg": ("ham10000",),
}


@dataclass(frozen=True)
class Variant:
    """A named model.

    Attributes:
        name: the name.
        model_cls: the class.
        args: arguments of the class.
        cfg: input and head, in the form of timm's pretrained configuration.
        tags: pretrained tags, the default one first.
    """

    name: str
    model_cls: type[MFSF2]
    args: Mapping[str, Any]
    cfg: Mapping[str, Any]
    tags: tuple[str, ...]

    @property
    def has_classes(self) -> bool:
        """Whether the model has a classification head."""
        return self.args["num_classes"] is not None

    @property
    def has_masks(self) -> bool:
        """Whether the model has a segmentation head."""
        return self.args["mask_classes"] is not None

    @property
    def argument_names(self) -> dict[str, str]:
        """The arguments that :func:`create_model` accepts, each with its name in the class.

        Arguments of a missing head are omitted. ``num_classes`` and ``drop_rate`` belong to the first head.
        """
        classes = (MFSF2Encoder, MFSF2, self.model_cls)
        names = {name: name for cls in classes for name in signature(cls).parameters if not name.endswith("_args")}
        if not self.has_masks:
            return {name: own for name, own in names.items() if name not in _MASK_ARGS}
        if self.has_classes:
            return names
        names = {name: own for name, own in names.items() if name not in (*_MASK_ARGS, *_CLASS_ARGS)}
        return {**names, "num_classes": "mask_classes", "drop_rate": "mask_drop_rate"}

    @property
    def trained_tags(self) -> list[str]:
        """The tags with weights for the whole model."""
        return [tag for tag in self.tags if tag != BACKBONES_TAG]

    def class_args(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Rename arguments of :func:`create_model` to those of the class, and reject unknown ones.

        Raises:
            TypeError: an argument that the model does not have.
        """
        names = self.argument_names
        for name in given:
            if name in names:
                continue
            near = difflib.get_close_matches(name, sorted(names), n=3)
            hint = f"; nearest: {', '.join(near)}" if near else ""
            if name == "mask_classes":
                hint = (
                    ": num_classes is the number of its mask channels"
                    if self.has_masks
                    else ": it has no masks; use a model named *_clsseg"
                )
            raise TypeError(f"{self.name} has no argument {name!r}{hint}")
        if not self.has_classes:
            # Here, and not in the class, an error has the name that the user gave.
            check_integer(given.get("num_classes", 1), "num_classes", note=" (mask channels)")
        return {names[name]: value for name, value in given.items()}

    def build(self, given: Mapping[str, Any]) -> MFSF2:
        """The model, from arguments of :func:`create_model`."""
        return self.model_cls(**{**self.args, **self.class_args(given)})

    def build_on_meta(self, given: Mapping[str, Any]) -> MFSF2:
        """The same without memory, to check arguments and to compare names, shapes and layers."""
        with _NoInit():
            return self.build({**given, "device": "meta"})


class _NoInit(TorchFunctionMode):
    """Skips initialization on the meta device, which does nothing there but takes most of the time."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _INIT:
            # torch.nn.init passes keywords, methods of tensors do not.
            tensor = args[0] if args else kwargs.get("tensor")
            if tensor is not None and tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


_INIT = {"normal_", "uniform_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_"}


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
)

_CLASS_ARGS = ("num_classes", "drop_rate", "global_pool", "head_hidden_size")
_MASK_ARGS = ("mask_classes", "mask_drop_rate")

_CLASSIFIER = "head.fc"
_MASK_LAYERS = ("mask_head.coarse", *(f"mask_head.steps.{i}.out" for i in range(4)))

# Class, number of classes, channels of the masks.
_TASKS: dict[str, tuple[type[MFSF2], int | None, int | None]] = {
    "cls": (MFSF2, 7, None),
    "seg": (MFSF2, None, 1),
    "clsseg": (MFSF2, 7, 1),
    "rcm_cls": (MFSF2TwoModality, 8, None),
    "rcm_seg": (MFSF2TwoModality, None, 1),
    "rcm_clsseg": (MFSF2TwoModality, 8, 1),
}

VARIANTS: dict[str, Variant] = {
    f"{size}_{task}": Variant(
        f"{size}_{task}",
        model_cls,
        args={**args, "num_classes": classes, "mask_classes": masks},
        # Of the first head.
        cfg=dict(
            _INPUT_CFG,
            num_classes=masks if classes is None else classes,
            classifier=_MASK_LAYERS if classes is None else _CLASSIFIER,
        ),
        tags=(*_TRAINED_TAGS.get(f"{size}_{task}", ()), BACKBONES_TAG),
    )
    for task, (model_cls, classes, masks) in _TASKS.items()
    for size, args in _SIZES.items()
}
"""All named models."""


def find_variant(architecture: str) -> Variant:
    """The model of a name.

    Raises:
        ValueError: an unknown name.
    """
    if architecture not in VARIANTS:
        near = difflib.get_close_matches(architecture, VARIANTS, n=3, cutoff=0.0)
        hint = "; for a folder use local-dir:FOLDER, for the Hub hf-hub:OWNER/NAME" if "/" in architecture else ""
        raise ValueError(f"unknown model {architecture!r}; nearest: {', '.join(near)}. list_models() lists all{hint}")
    return VARIANTS[architecture]
