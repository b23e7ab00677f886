"""Save a model as a folder that :func:`mfsf2.create_model` and timm can load."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["CONFIG_NAME", "WEIGHTS_NAME", "save_pretrained"]

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"

# Entries about the source of the weights, which do not apply to the copy.
_SOURCE_KEYS = ("url", "file", "sha256", "hf_hub_id", "hf_hub_filename", "source", "tag", "state_dict", "architecture")


def save_pretrained(
    model: nn.Module, directory: str | os.PathLike[str], label_names: Sequence[str] | None = None
) -> None:
    """Write ``model.safetensors`` and ``config.json`` (timm's form) into a folder.

    Both files are first written next to the old ones, which stay unchanged if anything fails.

    Args:
        model: a model of this library, neither pruned nor with ``features_only``.
        directory: the folder, created if it does not exist.
        label_names: class names in the order of the classes, one per class and all different; None keeps the model's.

    Raises:
        TypeError: a model of another library, or names that are not a list of strings.
        ValueError: a pruned model, a wrong number of names, or a duplicate name.

    Example:
        >>> import mfsf2, tempfile
        >>> model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=2)
        >>> folder = tempfile.mkdtemp()
        >>> mfsf2.save_pretrained(model, folder, label_names=["benign", "malignant"])
        >>> mfsf2.create_model(f"local-dir:{folder}").pretrained_cfg["label_names"]
        ['benign', 'malignant']
    """
    from safetensors.torch import save_file

    if label_names is not None:
        _check_names(label_names)
    config = _config(model, label_names)
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in (WEIGHTS_NAME, CONFIG_NAME)}
    try:
        save_file(tensors, temporary[WEIGHTS_NAME], metadata={"format": "pt"})
        temporary[CONFIG_NAME].write_text(json.dumps(config, indent=2, default=_plain) + "\n", encoding="utf-8")
        # safetensors may make the file readable for its owner only.
        shutil.copymode(temporary[CONFIG_NAME], temporary[WEIGHTS_NAME])
        for name, path in temporary.items():
            path.replace(folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """A NumPy scalar among the arguments, as JSON can hold it."""
    if callable(getattr(value, "item", None)):
        return value.item()
    raise TypeError(f"{value!r} cannot be saved in {CONFIG_NAME}")


def _check_names(label_names: Any) -> None:
    if isinstance(label_names, str) or not isinstance(label_names, Sequence):
        raise TypeError(
            f"label_names must be a list of strings in the order of the classes, got {type(label_names)}: "
            f"{label_names!r}"
        )
    for index, name in enumerate(label_names):
        if not isinstance(name, str):
            raise TypeError(f"label_names must be a list of strings, got {name!r} at position {index}")
        if label_names.index(name) < index:
            raise ValueError(f"label_names has {name!r} twice: every class needs its own name")


def _config(model: nn.Module, label_names: Sequence[str] | None) -> dict[str, Any]:
    """The configuration, in timm's form."""
    architecture, args = getattr(model, "architecture", None), getattr(model, "model_args", None)
    if not isinstance(args, dict):
        raise TypeError(f"{type(model).__name__} is not a model of this library: save a model from mfsf2.create_model")
    if model.is_pruned:
        raise ValueError("a pruned model cannot be rebuilt from a configuration: save its state_dict() instead")
    cfg = dict(getattr(model, "pretrained_cfg", {}))
    num_classes = model.num_classes
    if label_names is None and num_classes == cfg.get("num_classes"):
        label_names = cfg.get("label_names")
    if label_names is not None and len(label_names) != num_classes:
        raise ValueError(f"label_names has {len(label_names)} names, but the model has {num_classes} classes")
    config: dict[str, Any] = dict(architecture=cfg.get("architecture", architecture), num_classes=num_classes)
    # timm reads these two, if a model has them.
    config.update({name: getattr(model, name) for name in ("num_features", "global_pool") if hasattr(model, name)})
    if label_names is not None:
        config["label_names"] = list(label_names)
    config["model_args"] = args
    foreign = {*_SOURCE_KEYS, "label_names"}
    carried = cfg.get("label_names")
    if carried and label_names is not None and list(label_names) != list(carried):
        # They describe the former classes.
        foreign |= {"label_descriptions", "temperature"}
    source = {key: value for key, value in cfg.items() if key not in foreign}
    source["num_classes"] = num_classes
    if "input_size" in source:
        source["input_size"] = (model.in_chans, *source["input_size"][1:])
    config["pretrained_cfg"] = source
    return config
