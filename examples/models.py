"""Trained models, and what their outputs mean."""

from pathlib import Path
from typing import Any

import torch
from datasets import DataError, MaskFormat
from torch import Tensor

__all__ = [
    "class_names",
    "load_model",
    "is_multi_label",
    "mask_format_of",
    "mask_indices",
    "outputs_of",
    "probabilities_of",
]


def load_model(name: str) -> Any:
    """The model of a saved folder, or of a name with a pretrained tag, for evaluation.

    Raises:
        DataError: no such folder, not a saved model, or one that takes no images of three channels.
    """
    import mfsf2

    if Path(name).is_file():
        raise DataError(f"checkpoint {name}: give the folder that holds the model and its config.json")
    try:
        if name in mfsf2.list_pretrained():
            model: Any = mfsf2.create_model(name, pretrained=True).eval()
        else:
            source = name if name.startswith(("local-dir:", "hf-hub:")) else f"local-dir:{name}"
            model = mfsf2.create_model(source).eval()
    except (OSError, TypeError, ValueError) as error:
        trained = ", ".join(tagged for tagged in mfsf2.list_pretrained() if not tagged.endswith(".in1k_backbones"))
        hint = "" if Path(name).is_dir() else f"; give a saved folder, or one of {trained}"
        raise DataError(f"checkpoint {name}: {error}{hint}") from error
    channels = model.pretrained_cfg["input_size"][0]
    if channels != 3:
        raise DataError(f"checkpoint {name}: its model takes {channels} channels, images here have 3")
    return model


def class_names(model: Any) -> list[str]:
    """Names of the classes that the model's logits stand for; ``class 0`` and so on where it has none."""
    if model.head is None:
        return []
    return list(model.pretrained_cfg.get("label_names") or (f"class {index}" for index in range(model.num_classes)))


def is_multi_label(model: Any) -> bool:
    """Whether several classes may hold at once; one logit can mean nothing else than yes or no."""
    return model.num_classes == 1 or bool(model.pretrained_cfg.get("multi_label"))


def probabilities_of(model: Any, logits: Tensor) -> Tensor:
    """Probabilities of classes ``(..., classes)``, with the temperature that the model carries."""
    logits = logits / model.pretrained_cfg.get("temperature", 1.0)
    return logits.sigmoid() if is_multi_label(model) else logits.softmax(-1)


def outputs_of(model: Any, *inputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Logits of the classes and of the masks, None for those that the model has no head for."""
    outputs = model(*inputs)
    if isinstance(outputs, tuple):
        logits, masks = outputs
        return logits, masks
    return (outputs, None) if model.mask_head is None else (None, outputs)


def mask_indices(logits: Tensor) -> Tensor:
    """Class indices of mask logits ``(B, classes, H, W)``, uint8 ``(B, H, W)``; 1 for the one foreground."""
    return (logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)).to(torch.uint8)


def mask_format_of(model: Any) -> MaskFormat:
    """How masks are read that the model's are compared with."""
    if model.mask_head is None or model.mask_classes == 1:
        return MaskFormat(ignore_index=model.pretrained_cfg.get("ignore_index"))
    names = model.pretrained_cfg.get("mask_names") or ["background", *map(str, range(1, model.mask_classes))]
    return MaskFormat(tuple(names), model.pretrained_cfg.get("ignore_index"))
