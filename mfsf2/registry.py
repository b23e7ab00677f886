"""Create models by name, and list them."""

import difflib
import fnmatch
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .layers.checks import check_integer
from .models.encoder import resolve_indices
from .models.mfsf2 import LABEL_KEYS, MFSF2
from .models.variants import BACKBONES_TAG, VARIANTS, Variant
from .weights.bundled import bundled_cfg, is_bundled, read_bundled
from .weights.load import load_weights
from .weights.read import read_state_dict
from .weights.source import read_saved_model

__all__ = ["build_model", "create_model", "list_models", "list_pretrained", "pretrained_cfg", "saved_cfg"]

_SCHEMES = ("local-dir", "hf-hub")

# The entries of a pretrained configuration for preprocessing.
_PREPROCESSING_KEYS = ("input_size", "pool_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def list_models(filter: str | Sequence[str] = "*") -> list[str]:
    """Names of all models, or of those that match a wildcard pattern, or one of several.

    Example:
        >>> list_models("*tiny_rcm*")
        ['mfsf2_tiny_rcm_cls', 'mfsf2_tiny_rcm_clsseg', 'mfsf2_tiny_rcm_seg']
    """
    patterns = [filter] if isinstance(filter, str) else filter
    return sorted(name for name in VARIANTS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))


def list_pretrained(filter: str | Sequence[str] = "*") -> list[str]:
    """Names with pretrained tags, ``"NAME.TAG"``, of all models or of those that match.

    Example:
        >>> list_pretrained("mfsf2_cls")
        ['mfsf2_cls.in1k_backbones']
    """
    return [f"{name}.{tag}" for name in list_models(filter) for tag in VARIANTS[name].tags]


def create_model(
    name: str,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | int | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Create a model by name.

    Args:
        name: a name of :func:`list_models`, or of :func:`list_pretrained` to choose a tag; ``"local-dir:FOLDER"`` for a
            folder written by :func:`save_pretrained`; ``"hf-hub:OWNER/NAME"`` for such a folder on the Hub. The last
            two always load their weights.
        pretrained: load the weights of the tag; without a tag in ``name``, of the first one. The weights of
            ``ham10000`` come with the package; ``in1k_backbones`` loads both branches from the Hub.
        num_classes: number of classes, or of mask channels for ``*_seg``; 0 for no classifier. None for the default of
            the model or the folder.
        in_chans: channels of the image.
        features_only: return the fused maps F_1..F_4 instead of a prediction, through timm's feature wrapper.
        out_indices: which of them, by position from 0, or the last n; all by default. Only with ``features_only``.
        checkpoint_path: load this file, see :func:`load_checkpoint`; not together with pretrained weights.
        cache_dir: where to keep files from the Hub.
        **kwargs: arguments of the model, see :class:`MFSF2` and, for ``*_rcm_*``, :class:`MFSF2TwoModality`. Models
            named ``*_seg`` have no classification head, and their ``drop_rate`` belongs to the segmentation head. None
            means the default.

    Raises:
        ValueError: an unknown name, tag or backbone, arguments that exclude each other, or weights that do not fit.
        TypeError: an argument that the model does not have.
        FileNotFoundError: no such folder or file.

    Example:
        >>> import torch
        >>> model = create_model("mfsf2_tiny_cls", num_classes=3).eval()
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 3])
        >>> [f.shape[1:] for f in create_model("mfsf2_tiny_cls", features_only=True).eval()(torch.randn(1, 3, 64, 64))]
        [torch.Size([64, 16, 16]), torch.Size([64, 8, 8]), torch.Size([64, 4, 4]), torch.Size([64, 2, 2])]
    """
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} must be a string: one of list_models(), local-dir:FOLDER or hf-hub:OWNER/NAME")
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices={out_indices} needs features_only=True")
    kwargs.update(num_classes=num_classes, in_chans=in_chans)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    scheme, colon, location = name.partition(":")
    weights: Path | None = None
    if colon:
        if scheme not in _SCHEMES or not location:
            raise ValueError(f"unknown source {name!r}: use local-dir:FOLDER, hf-hub:OWNER/NAME, or a plain name")
        saved = read_saved_model(scheme, location, cache_dir)
        architecture, weights = saved.architecture, saved.weights
        cfg = saved_cfg(architecture, saved.cfg)
        kwargs = {"num_classes": cfg["num_classes"], **saved.args, **kwargs}
    else:
        # A dot in a path does not start a tag: the error shows the whole path.
        architecture, _, tag = (name, "", "") if "/" in name else name.partition(".")
        cfg = pretrained_cfg(architecture, tag, pretrained)
    if checkpoint_path is not None and (pretrained or weights):
        raise ValueError(f"checkpoint_path={str(checkpoint_path)!r} and pretrained weights exclude each other")
    if pretrained and weights is None and cfg.get("file"):
        weights = Path(cfg["file"])
    return build_model(
        architecture,
        cfg,
        weights=weights or (Path(checkpoint_path) if checkpoint_path is not None else None),
        weights_classes=cfg["num_classes"] if weights else None,
        pretrained=pretrained and weights is None,
        out_indices=(4 if out_indices is None else out_indices) if features_only else None,
        cache_dir=cache_dir,
        **kwargs,
    )


def saved_cfg(architecture: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a saved model, with the architecture's entries for those that are missing."""
    return {**_find_variant(architecture).cfg, **cfg, "architecture": architecture}


def pretrained_cfg(architecture: str, tag: str = "", pretrained: bool = True) -> dict[str, Any]:
    """The configuration of a model's tag, by default the first one, in timm's form.

    Without ``pretrained``, it has no metadata of the weights and no class names. An explicit tag still sets the
    preprocessing, so that fine-tuned weights get matching preprocessing.

    Raises:
        ValueError: an unknown model or tag.
    """
    variant = _find_variant(architecture)
    named = bool(tag)
    tag = tag or next(iter(variant.tags), "")
    if tag and tag not in variant.tags:
        raise ValueError(f"{architecture} has no pretrained tag {tag!r}: it has {', '.join(variant.tags) or 'none'}")
    cfg = {**variant.cfg, "architecture": architecture, "tag": tag}
    if pretrained:
        of_weights = bundled_cfg(tag)
        cfg |= of_weights if variant.has_classes else _without_labels(of_weights)
    elif named:
        cfg |= {key: value for key, value in bundled_cfg(tag).items() if key in _PREPROCESSING_KEYS}
    return cfg


def _without_labels(cfg: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cfg.items() if key not in LABEL_KEYS}


def build_model(
    architecture: str,
    cfg: dict[str, Any],
    weights: Path | None = None,
    weights_classes: int | None = None,
    pretrained: bool = False,
    out_indices: Sequence[int] | int | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model, load weights, wrap it for features: the common part of this library's and timm's ``create_model``.

    Args:
        architecture: name of the model.
        cfg: its pretrained configuration; becomes ``model.pretrained_cfg``.
        weights: file to load.
        weights_classes: the number of classes that the file must have; None if unknown.
        pretrained: load ImageNet weights into both branches, with a warning that names the untrained parts; the model's
            argument ``pretrained_backbones`` does the same.
        out_indices: positions of the fused maps to return; None for the model itself.
        cache_dir: where to keep files from the Hub.
        **kwargs: arguments of the model.
    """
    variant = _find_variant(architecture)
    kwargs = _model_args(architecture, variant, kwargs)
    if weights is not None and kwargs.get("pretrained_backbones"):
        raise ValueError(f"pretrained_backbones=True and the weights of {str(weights)!r} exclude each other")
    if pretrained or kwargs.get("pretrained_backbones"):
        pretrained = True
        kwargs.update(pretrained_backbones=True, cache_dir=cache_dir)
    model = variant.model_cls(**{**variant.args, **kwargs})
    if pretrained:
        _warn_untrained(architecture, variant, model)
    if model.num_classes != cfg["num_classes"]:
        cfg = _without_labels(cfg)
    _set_cfg(model, cfg)
    if weights is not None:
        load_weights(model, _read_weights(model, weights), str(weights), weights_classes)
    return model if out_indices is None else _wrap_features(model, out_indices)


def _read_weights(model: MFSF2, path: Path) -> dict[str, Tensor]:
    """The tensors of a file; of a file in the package, without those of heads that the model lacks."""
    if not is_bundled(path):
        return read_state_dict(path)
    return read_bundled(path, [name for name, head in model.heads.items() if head is None])


def _find_variant(architecture: str) -> Variant:
    if architecture not in VARIANTS:
        near = difflib.get_close_matches(architecture, VARIANTS, n=3, cutoff=0.0)
        hint = "; for a folder use local-dir:FOLDER, for the Hub hf-hub:OWNER/NAME" if "/" in architecture else ""
        raise ValueError(f"unknown model {architecture!r}; nearest: {', '.join(near)}. list_models() lists all{hint}")
    return VARIANTS[architecture]


def _model_args(architecture: str, variant: Variant, given: dict[str, Any]) -> dict[str, Any]:
    """Rename arguments of :func:`create_model` to those of the model's class, and reject unknown ones."""
    names = variant.argument_names
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(name, sorted(names), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        if name == "mask_classes":
            hint = (
                ": num_classes is the number of its mask channels"
                if variant.has_masks
                else ": it has no masks; use a model named *_clsseg"
            )
        raise TypeError(f"{architecture} has no argument {name!r}{hint}")
    if not variant.has_classes:
        # Here, and not in the class, an error has the name that the user gave.
        check_integer(given.get("num_classes", 1), "num_classes", note=" (mask channels)")
    return {names[name]: value for name, value in given.items()}


def _warn_untrained(architecture: str, variant: Variant, model: MFSF2) -> None:
    heads = [name for name, head in model.heads.items() if head is not None]
    trained = ", ".join(f"{architecture}.{tag}" for tag in variant.trained_tags) or "none yet"
    warnings.warn(
        f"{architecture}.{BACKBONES_TAG}: only the two branches (encoder.cnn, encoder.transformer) are pretrained, on "
        f"ImageNet; {' and '.join(['encoder.fusion', *heads])} are untrained, so predictions are meaningless until you "
        f"train the model. Fully trained tags: {trained}",
        UserWarning,
        stacklevel=4,
    )


def _set_cfg(model: nn.Module, cfg: dict[str, Any]) -> None:
    """Attach the configuration under both names that timm reads."""
    model.pretrained_cfg = cfg  # type: ignore[assignment]
    model.default_cfg = cfg  # type: ignore[assignment]


def _wrap_features(model: MFSF2, out_indices: Sequence[int] | int) -> nn.Module:
    """timm's wrapper around ``forward_intermediates``, which prunes everything that the maps do not need."""
    from .models.features import FeatureModel

    cfg = model.pretrained_cfg
    take = resolve_indices(out_indices, model.encoder.num_stages, "out_indices")
    wrapped = FeatureModel(model, out_indices=tuple(take))
    _set_cfg(wrapped, {key: value for key, value in cfg.items() if key not in ("num_classes", "classifier")})
    return wrapped
