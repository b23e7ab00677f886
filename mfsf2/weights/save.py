"""Save a model as a folder that :func:`mfsf2.create_model` and timm can load."""

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..models.mfsf2 import MFSF2
from .card import CARD_NAME, may_write_card, model_card
from .check import check_fit, check_modules, check_tensors, check_values
from .claims import without_stale_claims
from .config import CONFIG_NAME, METADATA_KEY, WEIGHTS_NAME, dump_config, parse_config
from .convert import strip_wrappers
from .files import move, sha256_of, staging_folder
from .metadata import NAME_KEYS, check_label_names

__all__ = ["save_pretrained", "unwrap", "write_folder"]

# Entries about the source of the weights, which do not apply to the copy.
_SOURCE_KEYS = ("url", "file", "sha256", "hf_hub_id", "hf_hub_filename", "source", "tag", "state_dict", "architecture")

_ADVICE = (
    "For another classifier use reset_classifier(num_classes); remove weight norms and pruning masks "
    "(torch.nn.utils.parametrize.remove_parametrizations, prune.remove), merge adapters (merge_and_unload), and save "
    "before folding or quantizing; or save state_dict() yourself"
)


def save_pretrained(
    model: nn.Module, directory: str | os.PathLike[str], label_names: Sequence[str] | None = None
) -> None:
    """Write ``model.safetensors``, ``config.json`` (timm's form) and ``README.md`` (the model card) into a folder.

    All files are first written next to the old ones, which stay unchanged if anything fails. The new weights then take
    their place at once, with a copy of their configuration inside, so a reader always gets weights and a configuration
    that belong together, even during or after an interrupted save. An existing ``README.md`` is only replaced if it has
    the line that marks a generated one.

    ``torch.compile`` and wrappers for parallel training and averaging are unwrapped. If weights were trained after they
    were loaded, their temperature, metrics and description are not saved; neither are the names of the classes if the
    classifier has changed, unless they are passed.

    Args:
        model: a model of this library, neither pruned nor with ``features_only``.
        directory: the folder, created if it does not exist.
        label_names: class names in the order of the classes, one per class and all different; None keeps the model's.

    Raises:
        TypeError: a model of another library, or names that are not a list of strings.
        ValueError: a model that would not be the same after loading (pruned, folded, quantized, or with a replaced
            layer), a wrong number of names, a duplicate name, or an entry of ``pretrained_cfg`` that is not valid.
            Nothing is written.

    Warns:
        UserWarning: names of classes that are not saved, because the classifier has changed; NaN or infinite weights.

    Example:
        >>> import mfsf2, tempfile
        >>> model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=2)
        >>> folder = tempfile.mkdtemp()
        >>> mfsf2.save_pretrained(model, folder, label_names=["benign", "malignant"])
        >>> mfsf2.create_model(f"local-dir:{folder}").pretrained_cfg["label_names"]
        ['benign', 'malignant']
    """
    folder = Path(directory)
    write_folder(model, folder, label_names, title=folder.absolute().name, source=f"local-dir:{folder.absolute().name}")


def write_folder(
    model: nn.Module, folder: Path, label_names: Sequence[str] | None, title: str, source: str, **cfg: Any
) -> Sequence[str]:
    """Save a model as :func:`save_pretrained` does; returns the names of the classes that were saved, if any.

    Args:
        model: the model.
        folder: the folder.
        label_names: names of the classes.
        title: heading of the model card.
        source: what the card passes to :func:`mfsf2.create_model`.
        **cfg: entries of the pretrained configuration to add.
    """
    from safetensors.torch import save_file

    model = unwrap(model)
    state = strip_wrappers(model.state_dict())
    config = _config(model, state, label_names, cfg)
    text = dump_config(config)
    _check_loadable(model, state, text)
    metadata = {"format": "pt", METADATA_KEY: text}
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with staging_folder(folder) as staging:
        weights = staging / WEIGHTS_NAME
        save_file(tensors, weights, metadata=metadata)
        texts = {CONFIG_NAME: dump_config({**config, "sha256": sha256_of(weights)}, indent=2) + "\n"}
        if may_write_card(folder / CARD_NAME):
            texts[CARD_NAME] = model_card(model, config, title, source)
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8")
        # safetensors may make the file readable for its owner only.
        shutil.copymode(staging / CONFIG_NAME, weights)
        for name in (WEIGHTS_NAME, *texts):
            move(staging / name, folder / name)
    return list(config.get("label_names", ()))


def unwrap(model: nn.Module) -> Any:
    """The model inside ``torch.compile`` and wrappers for parallel training and averaging (``module``).

    Raises:
        TypeError: not a model of this library.
    """
    found: Any = model
    while not isinstance(found, MFSF2):
        # Of torch.compile; of DataParallel, DistributedDataParallel, AveragedModel, timm's ModelEmaV3.
        inner = getattr(found, "_orig_mod", None) or getattr(found, "module", None)
        if not isinstance(inner, nn.Module):
            hint = " without features_only" if isinstance(getattr(found, "model", None), MFSF2) else ""
            raise TypeError(
                f"{type(found).__name__} is not a model of this library: save a model from mfsf2.create_model{hint}"
            )
        found = inner
    return found


def _config(
    model: Any, state: dict[str, Tensor], label_names: Sequence[str] | None, more: dict[str, Any]
) -> dict[str, Any]:
    """The configuration, in timm's form."""
    if model.is_pruned:
        raise ValueError("a pruned model cannot be rebuilt from a configuration: save its state_dict() instead")
    num_classes, args = _arguments(model)
    if label_names is not None:
        check_label_names(label_names, num_classes)
    cfg = {**_current_cfg(model, state, label_names), **more}
    carried = cfg.get("label_names")
    names = carried if label_names is None else label_names
    config: dict[str, Any] = dict(
        architecture=cfg.get("architecture", model.architecture), save_id=uuid.uuid4().hex, num_classes=num_classes
    )
    # timm reads these two, if a model has them.
    config.update({name: getattr(model, name) for name in ("num_features", "global_pool") if hasattr(model, name)})
    if names is not None:
        config["label_names"] = list(names)
    config["model_args"] = args
    foreign = {*_SOURCE_KEYS, "label_names"}
    if carried and names is not None and list(names) != list(carried):
        # They describe the former classes.
        foreign |= {"label_descriptions", "temperature"}
    source = {key: value for key, value in cfg.items() if key not in foreign}
    source["num_classes"] = num_classes
    if "input_size" in source:
        source["input_size"] = (model.in_chans, *source["input_size"][1:])
    config["pretrained_cfg"] = source
    return config


def _arguments(model: Any) -> tuple[int, dict[str, Any]]:
    """The number of classes and the other arguments that rebuild a model."""
    try:
        return model.num_classes, model.model_args
    except AttributeError as error:
        raise ValueError(
            f"{_headline(model)}: a part was replaced by one without its arguments: {error}\n{_ADVICE}"
        ) from error


def _current_cfg(model: Any, state: dict[str, Tensor], label_names: Sequence[str] | None) -> dict[str, Any]:
    """The model's configuration without what was only true of the weights that were loaded."""
    cfg = without_stale_claims(model, state, has_names=label_names is not None)
    carried = getattr(model, "pretrained_cfg", {})
    if label_names is not None and list(label_names) == list(carried.get("label_names") or ()):
        # The same classes again: their descriptions are still true.
        cfg.update({key: carried[key] for key in NAME_KEYS if key in carried})
    return cfg


def _check_loadable(model: Any, state: dict[str, Any], text: str) -> None:
    """Compare a state dict with the model that its configuration rebuilds.

    Raises:
        ValueError: a configuration that would be refused; or lists what differs.
    """
    config = parse_config(text, CONFIG_NAME)
    twin = config.variant.build_on_meta(config.args)
    target, headline = twin.state_dict(), _headline(model)
    try:
        check_tensors(state, target, headline)
        check_fit(state, target, headline, ("model", "configuration"))
        check_modules(model, twin, headline)
    except ValueError as error:
        raise ValueError(f"{error}\n{_ADVICE}") from error
    check_values(state, f"the {type(model).__name__} that is saved")


def _headline(model: nn.Module) -> str:
    return f"{type(model).__name__} could not be loaded again, so nothing is saved"
