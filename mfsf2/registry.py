"""Networks by name."""

import difflib
import fnmatch
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .heads.segmentation import check_mask_classes
from .layers.checks import check_rate
from .models.encoder import check_indices
from .models.mfsf2 import LABEL_KEYS, MFSF2
from .models.variants import BACKBONES_TAG, VARIANTS, Variant
from .weights.bundled import bundled_cfg, is_bundled, read_bundled
from .weights.load import load_weights
from .weights.read import read_state_dict
from .weights.source import read_saved_network

__all__ = ["build_network", "create_model", "list_models", "list_pretrained", "pretrained_cfg", "saved_cfg"]

_SCHEMES = ("local-dir", "hf-hub")

# What a pretrained configuration says of the images that a network wants.
_PREPARATION_KEYS = ("input_size", "pool_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def list_models(filter: str | Sequence[str] = "*") -> list[str]:
    """Names of the networks, those that match a wildcard pattern, or one of several.

    Example:
        >>> list_models("*tiny_rcm*")
        ['mfsf2_tiny_rcm_cls', 'mfsf2_tiny_rcm_clsseg', 'mfsf2_tiny_rcm_seg']
    """
    patterns = [filter] if isinstance(filter, str) or not isinstance(filter, Iterable) else list(filter)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"filter={filter!r} must be a pattern such as '*tiny*', or a list of patterns")
    return sorted(name for name in VARIANTS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))


def list_pretrained(filter: str | Sequence[str] = "*") -> list[str]:
    """Names with pretrained tags, ``"NAME.TAG"``, of the networks that match.

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
    """Build a network by its name.

    Args:
        name: a name of :func:`list_models`; one of :func:`list_pretrained` to choose a tag; ``"local-dir:FOLDER"`` for
            what :func:`save_pretrained` wrote; ``"hf-hub:OWNER/NAME"`` for such a folder on the Hub. The last two
            always load their weights.
        pretrained: load the weights of the tag, the first one where ``name`` has none. Those of ``ham10000`` come with
            the package; ``in1k_backbones`` takes both branches from the Hub.
        num_classes: number of classes, of ``*_seg`` the masks' channels; 0 for no classifier. None takes the network's
            or the folder's.
        in_chans: channels of the image.
        features_only: return the fused maps F_1..F_4 in place of a prediction, through timm's feature wrapper.
        out_indices: which of them, positions from 0, or the last n; all by default. Only with ``features_only``.
        checkpoint_path: load this file, see :func:`load_checkpoint`; not together with pretrained weights.
        cache_dir: where files from the Hub are kept.
        **kwargs: arguments of the network, see :class:`MFSF2` and, of ``*_rcm_*``, :class:`MFSF2TwoModality`; those of
            ``*_seg`` are without the head of classes, and ``drop_rate`` is the head of masks'. None leaves an argument
            at its default.

    Raises:
        ValueError: unknown name, tag or backbone, arguments that exclude each other, weights that do not fit.
        TypeError: an argument that the network does not have.
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
        raise ValueError(f"out_indices={out_indices} chooses feature maps: it needs features_only=True")
    kwargs.update(num_classes=num_classes, in_chans=in_chans)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    scheme, colon, location = name.partition(":")
    weights: Path | None = None
    if colon:
        if scheme not in _SCHEMES or not location:
            raise ValueError(f"{name!r} names no source: use local-dir:FOLDER, hf-hub:OWNER/NAME, or a plain name")
        saved = read_saved_network(scheme, location, cache_dir)
        architecture, weights = saved.architecture, saved.weights
        cfg = saved_cfg(architecture, saved.cfg)
        kwargs = {"num_classes": cfg["num_classes"], **saved.args, **kwargs}
    else:
        # The dots of a path are no tag: the error names it whole.
        architecture, _, tag = (name, "", "") if "/" in name else name.partition(".")
        cfg = pretrained_cfg(architecture, tag, pretrained)
    if checkpoint_path is not None and (pretrained or weights):
        raise ValueError(f"checkpoint_path={str(checkpoint_path)!r} and pretrained weights exclude each other")
    if pretrained and weights is None and cfg.get("file"):
        weights = Path(cfg["file"])
    return build_network(
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
    """The configuration of a saved network, completed where it is silent."""
    return {**_find_variant(architecture).cfg, **cfg, "architecture": architecture}


def pretrained_cfg(architecture: str, tag: str = "", pretrained: bool = True) -> dict[str, Any]:
    """The configuration of a network's tag, the first one for ``""``, in timm's form.

    Without ``pretrained``, what is true of the tag's weights alone is left out, as are names of classes; a tag that is
    named still says how images are to be prepared, as weights that were trained from it want them.

    Raises:
        ValueError: unknown network or tag.
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
        cfg |= {key: value for key, value in bundled_cfg(tag).items() if key in _PREPARATION_KEYS}
    return cfg


def _without_labels(cfg: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in cfg.items() if key not in LABEL_KEYS}


def build_network(
    architecture: str,
    cfg: dict[str, Any],
    weights: Path | None = None,
    weights_classes: int | None = None,
    pretrained: bool = False,
    out_indices: Sequence[int] | int | None = None,
    cache_dir: str | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a network, load weights, wrap it for features: what this library's and timm's ``create_model`` share.

    Args:
        architecture: name of the network.
        cfg: its pretrained configuration; becomes ``model.pretrained_cfg``.
        weights: file to load.
        weights_classes: how many classes it must have; None where nothing says.
        pretrained: start both branches from ImageNet, with a warning that names what is untrained; so does the
            network's argument ``pretrained_backbones``.
        out_indices: wrap for these feature maps; None for the network itself.
        cache_dir: where files from the Hub are kept.
        **kwargs: arguments of the network.
    """
    variant = _find_variant(architecture)
    kwargs = _network_args(architecture, variant, kwargs)
    if weights is not None and kwargs.get("pretrained_backbones"):
        raise ValueError(f"pretrained_backbones=True and the weights of {str(weights)!r} exclude each other")
    if pretrained or kwargs.get("pretrained_backbones"):
        pretrained = True
        kwargs.update(pretrained_backbones=True, cache_dir=cache_dir)
    model = variant.network(**{**variant.args, **kwargs})
    if pretrained:
        _warn_untrained(architecture, variant, model)
    if model.num_classes != cfg["num_classes"]:
        cfg = _without_labels(cfg)
    _set_cfg(model, cfg)
    if weights is not None:
        load_weights(model, _read_weights(model, weights), str(weights), weights_classes)
    return model if out_indices is None else _wrap_features(model, out_indices)


def _read_weights(model: MFSF2, path: Path) -> dict[str, Tensor]:
    """The tensors of a file: of one that comes with the package, those that the network has a place for."""
    if not is_bundled(path):
        return read_state_dict(path)
    return read_bundled(path, [name for name, head in model.heads.items() if head is None])


def _find_variant(architecture: str) -> Variant:
    if architecture not in VARIANTS:
        near = difflib.get_close_matches(architecture, VARIANTS, n=3, cutoff=0.0)
        hint = "; for a folder write local-dir:FOLDER, for the Hub hf-hub:OWNER/NAME" if "/" in architecture else ""
        raise ValueError(f"unknown network {architecture!r}; nearest: {', '.join(near)}. list_models() names all{hint}")
    return VARIANTS[architecture]


def _network_args(architecture: str, variant: Variant, given: dict[str, Any]) -> dict[str, Any]:
    """Rename arguments of :func:`create_model` to those of the network's class; unknown ones are refused."""
    names = variant.argument_names
    for name in given:
        if name in names:
            continue
        near = difflib.get_close_matches(name, sorted(names), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        if name == "mask_classes":
            hint = (
                ": num_classes are the channels of its masks"
                if variant.has_masks
                else ": no masks, which *_clsseg have"
            )
        raise TypeError(f"{architecture} has no argument {name!r}{hint}")
    if not variant.has_classes:
        # Under the names that the user gave them.
        check_mask_classes(given.get("num_classes", 1))
        check_rate(given.get("drop_rate", 0.0), "drop_rate")
    return {names[name]: value for name, value in given.items()}


def _warn_untrained(architecture: str, variant: Variant, model: MFSF2) -> None:
    heads = [name for name, head in model.heads.items() if head is not None]
    trained = ", ".join(f"{architecture}.{tag}" for tag in variant.trained_tags) or "none yet"
    warnings.warn(
        f"{architecture}.{BACKBONES_TAG}: only the two branches (encoder.cnn, encoder.transformer) are trained, on "
        f"ImageNet; {' and '.join(['encoder.fusion', *heads])} are untrained, so predictions mean nothing before you "
        "train them. "
        f"Tags trained throughout: {trained}",
        UserWarning,
        stacklevel=4,
    )


def _set_cfg(model: nn.Module, cfg: dict[str, Any]) -> None:
    """Attach the configuration under both names that timm's tools read."""
    model.pretrained_cfg = cfg  # type: ignore[assignment]
    model.default_cfg = cfg  # type: ignore[assignment]


def _wrap_features(model: MFSF2, out_indices: Sequence[int] | int) -> nn.Module:
    """timm's wrapper around ``forward_intermediates``; what the maps do not need is pruned."""
    from .models.features import FeatureNetwork

    check_indices(out_indices, model.encoder.num_stages, "out_indices")
    cfg = model.pretrained_cfg
    wrapped = FeatureNetwork(model, out_indices=out_indices if isinstance(out_indices, int) else tuple(out_indices))
    _set_cfg(wrapped, {key: value for key, value in cfg.items() if key not in ("num_classes", "classifier")})
    return wrapped
