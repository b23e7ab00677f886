"""Build models: the common part of this library's and timm's ``create_model``."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from .models.encoder import resolve_indices
from .models.mfsf2 import LABEL_KEYS, MFSF2
from .models.variants import BACKBONES_TAG, Variant, find_variant
from .weights.backbones import fetch_backbones
from .weights.bundled import bundled_cfg, is_bundled, read_bundled
from .weights.claims import remember_origin
from .weights.config import Config
from .weights.files import check_sha256
from .weights.hub import HubOptions
from .weights.load import Strict, check_shapes, load_weights
from .weights.read import read_state_dict
from .weights.source import SavedModel, SavedWeights

__all__ = ["build_model", "build_saved", "load_file", "pretrained_cfg", "read_saved", "with_channels", "without_labels"]

Indices = Sequence[int] | int | None

_DEFAULT_OPTIONS = HubOptions()

# The entries of a pretrained configuration for preprocessing.
_PREPROCESSING_KEYS = ("input_size", "pool_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def pretrained_cfg(architecture: str, tag: str = "", pretrained: bool = True) -> dict[str, Any]:
    """The configuration of a model's tag, by default the first one, in timm's form.

    Without ``pretrained``, it has no metadata of the weights and no class names, but the same preprocessing, so that
    fine-tuned weights get matching preprocessing.

    Raises:
        ValueError: an unknown model or tag.
    """
    variant = find_variant(architecture)
    tag = tag or next(iter(variant.tags), "")
    if tag and tag not in variant.tags:
        raise ValueError(f"{architecture} has no pretrained tag {tag!r}: it has {', '.join(variant.tags) or 'none'}")
    of_weights = bundled_cfg(tag) or {"license": "apache-2.0"}
    if not pretrained:
        of_weights = {key: value for key, value in of_weights.items() if key in _PREPROCESSING_KEYS}
    elif "metrics" in of_weights:
        heads = {"classification": variant.has_classes, "segmentation": variant.has_masks}
        of_weights["metrics"] = {task: value for task, value in of_weights["metrics"].items() if heads[task]}
    if not variant.has_classes:
        of_weights = without_labels(of_weights)
    return {**variant.cfg, "architecture": architecture, "tag": tag, **of_weights}


def without_labels(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without its entries on the classes."""
    return {key: value for key, value in cfg.items() if key not in LABEL_KEYS}


def build_model(
    architecture: str,
    cfg: dict[str, Any],
    weights: Path | None = None,
    weights_classes: int | None = None,
    pretrained: bool = False,
    out_indices: Indices = None,
    options: HubOptions = _DEFAULT_OPTIONS,
    **kwargs: Any,
) -> nn.Module:
    """Build a model, load weights, wrap it for features.

    Args:
        architecture: name of the model.
        cfg: its pretrained configuration; becomes ``model.pretrained_cfg``.
        weights: file to load.
        weights_classes: the number of classes that the file must have; None if unknown.
        pretrained: load ImageNet weights into both branches, with a warning that names the untrained parts; the model's
            argument ``pretrained_backbones`` does the same.
        out_indices: positions of the fused maps to return; None for the model itself.
        options: how to reach the Hub.
        **kwargs: arguments of the model.
    """
    variant = find_variant(architecture)
    given = variant.class_args(kwargs)
    if weights is not None and given.get("pretrained_backbones"):
        raise ValueError(f"pretrained_backbones=True and the weights of {str(weights)!r} exclude each other")
    pretrained = pretrained or bool(given.get("pretrained_backbones"))
    if pretrained:
        # Mistyped arguments are reported before anything is downloaded.
        variant.build_on_meta({**kwargs, "pretrained_backbones": False})
        if isinstance(given.get("pretrained_backbones", True), bool):
            kwargs["pretrained_backbones"] = fetch_backbones({**variant.args, **given}, options)
        kwargs["cache_dir"] = options.cache_dir
    model = variant.build(kwargs)
    if pretrained:
        _warn_untrained(variant, model)
    _attach_cfg(model, cfg)
    if weights is not None:
        load_file(model, weights, weights_classes, cfg.get("sha256"))
        remember_origin(model, weights)
    return _wrap_features(model, out_indices)


def build_saved(saved: SavedModel, out_indices: Indices = None, load: bool = True, **kwargs: Any) -> nn.Module:
    """Build a saved model, with its weights.

    Mistakes in the configuration and in the arguments are reported before the weights are fetched, and weights that are
    not those of the configuration before any memory is allocated.

    Args:
        saved: the saved model.
        out_indices: as for :func:`build_model`.
        load: whether to load the weights.
        **kwargs: arguments that differ from the saved ones.
    """
    config = saved.config
    if kwargs:
        config.variant.build_on_meta({**config.args, **kwargs})
    weights = read_saved(saved) if load else None
    if weights is not None:
        config = weights.config
    model = config.variant.build({**config.args, **kwargs})
    _attach_cfg(model, config.cfg)
    if weights is not None:
        load_weights(model, weights.tensors, str(weights.path))
        remember_origin(model, weights.path)
    return _wrap_features(model, out_indices)


def read_saved(saved: SavedModel) -> SavedWeights:
    """The weights of a saved model, which are those that its configuration describes.

    Raises:
        ValueError: a configuration that does not describe a model, or another one than that of the weights.
    """
    twin = _twin(saved.config)
    weights = saved.read()
    if weights.config is not saved.config:
        twin = _twin(weights.config)
    check_shapes(twin, weights.tensors, str(weights.path), weights.config.args["num_classes"])
    return weights


def load_file(
    model: Any,
    path: Path,
    num_classes: int | None = None,
    sha256: str | None = None,
    strict: Strict = True,
    omit: Sequence[str] = (),
) -> None:
    """Load a file into a model.

    Args:
        model: the model.
        path: the file.
        num_classes: the number of classes that it must have; None if unknown.
        sha256: its digest; None if unknown.
        strict: as for :func:`load_checkpoint`.
        omit: heads that are in a file of the package, but not wanted, besides those that the model lacks.
    """
    if is_bundled(path):
        state = read_bundled(path, [*omit, *(name for name, head in model.heads.items() if head is None)])
    else:
        if sha256:
            check_sha256(path, sha256, "the pretrained configuration")
        state = read_state_dict(path)
    load_weights(model, state, str(path), num_classes, strict, is_bundled(path))


def _twin(config: Config) -> MFSF2:
    """The model that a configuration describes, without memory."""
    variant = config.variant
    try:
        twin = variant.build_on_meta(config.args)
    except Exception as error:
        # The arguments may be of any type that JSON has.
        raise ValueError(f"{config.source}: model_args do not describe a model: {error}") from error
    if (twin.head is not None, twin.mask_head is not None) != (variant.has_classes, variant.has_masks):
        raise ValueError(f"{config.source}: model_args do not describe {variant.name}: they have other heads")
    return twin


def _attach_cfg(model: MFSF2, cfg: dict[str, Any]) -> None:
    """Attach a configuration, as far as it is true of a model with these classes and channels."""
    cfg = cfg if model.num_classes == cfg["num_classes"] else without_labels(cfg)
    _set_cfg(model, with_channels({**cfg, "num_classes": model.num_classes}, model.in_chans))


def with_channels(cfg: dict[str, Any], in_chans: int) -> dict[str, Any]:
    """A configuration for images of other channels: mean and std are the means over the former channels."""
    changed = dict(cfg)
    for key in ("input_size", "test_input_size", "min_input_size"):
        if changed.get(key) and changed[key][0] != in_chans:
            changed[key] = (in_chans, *changed[key][1:])
    for key in ("mean", "std"):
        if changed.get(key) and len(changed[key]) != in_chans:
            changed[key] = (round(sum(changed[key]) / len(changed[key]), 6),) * in_chans
    return changed


def _warn_untrained(variant: Variant, model: MFSF2) -> None:
    heads = [name for name, head in model.heads.items() if head is not None]
    trained = ", ".join(f"{variant.name}.{tag}" for tag in variant.trained_tags) or "none yet"
    warnings.warn(
        f"{variant.name}.{BACKBONES_TAG}: only the two branches (encoder.cnn, encoder.transformer) are pretrained, on "
        f"ImageNet; {' and '.join(['encoder.fusion', *heads])} are untrained, so predictions are meaningless until you "
        f"train the model. Fully trained tags: {trained}",
        UserWarning,
        stacklevel=4,
    )


def _set_cfg(model: nn.Module, cfg: dict[str, Any]) -> None:
    """Attach the configuration under both names that timm reads."""
    model.pretrained_cfg = cfg  # type: ignore[assignment]
    model.default_cfg = cfg  # type: ignore[assignment]


def _wrap_features(model: MFSF2, out_indices: Indices) -> nn.Module:
    """timm's wrapper around ``forward_intermediates``, which prunes everything that the maps do not need.

    Without ``out_indices``, the model itself.
    """
    if out_indices is None:
        return model
    from .models.features import FeatureModel

    cfg = model.pretrained_cfg
    take = resolve_indices(out_indices, model.encoder.num_stages, "out_indices")
    wrapped = FeatureModel(model, out_indices=tuple(take))
    _set_cfg(wrapped, {key: value for key, value in cfg.items() if key not in ("num_classes", "classifier")})
    return wrapped
