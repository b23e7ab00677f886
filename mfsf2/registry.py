"""Create models by name, load their weights, and list them."""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from torch import nn

from .factory import build_model, build_saved, load_file, pretrained_cfg, read_saved, with_channels, without_labels
from .models.variants import VARIANTS, find_variant
from .weights.claims import remember_origin
from .weights.details import PretrainedDetails, details_of
from .weights.hub import HubOptions
from .weights.load import Strict, check_model, check_strict, load_weights
from .weights.source import SCHEMES, open_saved

__all__ = ["create_model", "list_models", "list_pretrained", "load_pretrained"]

# What a model that was trained from other weights inherits from them.
_ANCESTRY = ("trained_on", "chosen_on")


def list_models(filter: str | Sequence[str] = "*") -> list[str]:
    """Names of all models, or of those that match a wildcard pattern, or one of several.

    Example:
        >>> list_models("*tiny_rcm*")
        ['mfsf2_tiny_rcm_cls', 'mfsf2_tiny_rcm_clsseg', 'mfsf2_tiny_rcm_seg']
    """
    patterns = [filter] if isinstance(filter, str) else filter
    return sorted(name for name in VARIANTS if any(fnmatch.fnmatch(name, pattern) for pattern in patterns))


@overload
def list_pretrained(filter: str | Sequence[str] = "*", details: Literal[False] = False) -> list[str]: ...


@overload
def list_pretrained(filter: str | Sequence[str] = "*", *, details: Literal[True]) -> dict[str, PretrainedDetails]: ...


def list_pretrained(
    filter: str | Sequence[str] = "*", details: bool = False
) -> list[str] | dict[str, PretrainedDetails]:
    """Names with pretrained tags, ``"NAME.TAG"``, of all models or of those that match.

    Args:
        filter: wildcard pattern of the names, or several.
        details: return a mapping from each name to what is known of its weights: size, license, data, metrics, source.

    Example:
        >>> list_pretrained("mfsf2_cls")
        ['mfsf2_cls.in1k_backbones']
        >>> list_pretrained("mfsf2_tiny_seg", details=True)["mfsf2_tiny_seg.ham10000"].license
        'cc-by-nc-4.0'
    """
    names = [(name, tag) for name in list_models(filter) for tag in VARIANTS[name].tags]
    if details:
        return {f"{name}.{tag}": details_of(name, tag, pretrained_cfg(name, tag)) for name, tag in names}
    return [f"{name}.{tag}" for name, tag in names]


def create_model(
    name: str,
    pretrained: bool = False,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
    out_indices: Sequence[int] | int | None = None,
    checkpoint_path: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    timeout: float = 10.0,
    **kwargs: Any,
) -> nn.Module:
    """Create a model by name.

    Args:
        name: a name of :func:`list_models`, or of :func:`list_pretrained` to choose a tag; ``"local-dir:FOLDER"`` for a
            folder written by :func:`save_pretrained`; ``"hf-hub:OWNER/NAME"`` for such a folder on the Hub. The last
            two always load their weights.
        pretrained: load the weights of the tag; without a tag in ``name``, of the first one. The weights of
            ``ham10000`` come with the package; ``in1k_backbones`` loads both branches from the Hub. Without weights,
            ``model.pretrained_cfg`` has the tag's preprocessing too.
        num_classes: number of classes, or of mask channels for ``*_seg``; 0 for no classifier. None for the default of
            the model or the folder.
        in_chans: channels of the image.
        features_only: return the fused maps F_1..F_4 instead of a prediction, through timm's feature wrapper.
        out_indices: which of them, by position from 0, or the last n; all by default. Only with ``features_only``.
        checkpoint_path: load this file, see :func:`load_checkpoint`; not together with pretrained weights.
        cache_dir: where to keep files from the Hub.
        revision: branch, tag or commit of a repository on the Hub; the same as ``hf-hub:OWNER/NAME@REVISION``.
        token: access token of the Hub; None for that of ``hf auth login``, False for none.
        local_files_only: take files from the cache only, without a request.
        force_download: download files from the Hub again.
        timeout: seconds to wait for the Hub; 3 at most where the cache can answer instead.
        **kwargs: arguments of the model, see :class:`MFSF2` and, for ``*_rcm_*``, :class:`MFSF2TwoModality`. Models
            named ``*_seg`` have no classification head, and their ``drop_rate`` belongs to the segmentation head. None
            means the default.

    Raises:
        ValueError: an unknown name, tag or backbone, arguments that exclude each other, or weights that do not fit.
        TypeError: an argument that the model does not have.
        FileNotFoundError: no such folder, file or repository, or a file that is not in the cache offline.
        OSError: the Hub cannot be reached; says what the server said.

    Example:
        >>> import torch
        >>> model = create_model("mfsf2_tiny_cls", num_classes=3).eval()
        >>> model(torch.randn(1, 3, 64, 64)).shape
        torch.Size([1, 3])
        >>> [f.shape[1:] for f in create_model("mfsf2_tiny_cls", features_only=True).eval()(torch.randn(1, 3, 64, 64))]
        [torch.Size([64, 16, 16]), torch.Size([64, 8, 8]), torch.Size([64, 4, 4]), torch.Size([64, 2, 2])]
    """
    if not isinstance(pretrained, bool):
        raise TypeError(f"pretrained={pretrained!r} must be True or False: a tag is part of the name, 'NAME.TAG'")
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices={out_indices} needs features_only=True")
    kwargs.update(num_classes=num_classes, in_chans=in_chans)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    options = _hub_options(revision, token, cache_dir, local_files_only, force_download, timeout)
    indices = (4 if out_indices is None else out_indices) if features_only else None
    scheme, location = _parse_name(name)
    if checkpoint_path is not None and (pretrained or scheme):
        raise ValueError(f"checkpoint_path={str(checkpoint_path)!r} and pretrained weights exclude each other")
    if scheme:
        if kwargs.get("pretrained_backbones"):
            raise ValueError(f"pretrained_backbones=True and the weights of {name!r} exclude each other")
        return build_saved(open_saved(scheme, location, options), indices, **kwargs)
    if revision is not None:
        raise ValueError(f"revision={revision!r} is for hf-hub:OWNER/NAME, not for {name!r}")
    architecture, tag = _split_tag(name)
    cfg = pretrained_cfg(architecture, tag, pretrained)
    of_tag = Path(cfg["file"]) if pretrained and cfg.get("file") else None
    return build_model(
        architecture,
        cfg,
        weights=of_tag or (Path(checkpoint_path) if checkpoint_path is not None else None),
        weights_classes=cfg["num_classes"] if of_tag else None,
        pretrained=pretrained and of_tag is None,
        out_indices=indices,
        options=options,
        **kwargs,
    )


def load_pretrained(
    model: nn.Module,
    name: str,
    strict: Strict = True,
    cache_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    timeout: float = 10.0,
) -> None:
    """Load pretrained weights into a model, also into one for another task.

    ``model.pretrained_cfg`` becomes that of the weights. With ``strict="encoder"`` it only inherits their license and
    the images that they have seen (``trained_on``, ``chosen_on``).

    Args:
        model: a model created by :func:`create_model`.
        name: ``"NAME.TAG"`` of :func:`list_pretrained`, or ``"NAME"`` for its first tag; ``"local-dir:FOLDER"``;
            ``"hf-hub:OWNER/NAME"``.
        strict: as for :func:`load_checkpoint`: with ``"encoder"``, a model with masks or with two modalities starts
            from one that classifies images.
        cache_dir, revision, token, local_files_only, force_download, timeout: as for :func:`create_model`.

    Raises:
        TypeError: a model of another library, or one with ``features_only``.
        ValueError: an unknown name or tag, or weights that do not fit. The model keeps its weights.
        OSError: no such folder or repository, or the Hub cannot be reached.

    Example:
        >>> model = create_model("mfsf2_tiny_rcm_clsseg", num_classes=7)
        >>> load_pretrained(model, "mfsf2_tiny_cls.ham10000", strict="encoder")
        >>> model.pretrained_cfg["license"]
        'cc-by-nc-4.0'
    """
    if isinstance(name, nn.Module):
        raise TypeError("the model comes first, then the name: load_pretrained(model, name)")
    check_model(model)
    check_strict(strict)
    options = _hub_options(revision, token, cache_dir, local_files_only, force_download, timeout)
    scheme, location = _parse_name(name)
    if scheme:
        weights = read_saved(open_saved(scheme, location, options))
        cfg, path = weights.config.cfg, weights.path
        load_weights(model, weights.tensors, str(path), strict=strict)
    else:
        architecture, tag = _split_tag(name)
        cfg = pretrained_cfg(architecture, tag)
        if not cfg.get("file"):
            raise ValueError(f"{name} has weights of the branches only: use create_model({name!r}, pretrained=True)")
        path = Path(cfg["file"])
        variant = find_variant(architecture)
        lacking = [head for head, has in (("head", variant.has_classes), ("mask_head", variant.has_masks)) if not has]
        load_file(model, path, strict=strict, omit=lacking)
    _adopt_cfg(model, cfg, strict)
    if strict is True:
        remember_origin(model, path)


def _adopt_cfg(model: Any, cfg: dict[str, Any], strict: Strict) -> None:
    """What a model's configuration says after weights with the configuration ``cfg`` have been loaded."""
    if not hasattr(model, "pretrained_cfg"):
        # Of a model that was not built by create_model.
        model.pretrained_cfg = model.default_cfg = {"architecture": model.architecture}
    own: dict[str, Any] = model.pretrained_cfg
    if strict is True:
        keep: dict[str, Any] = {key: own[key] for key in ("architecture", "classifier") if key in own}
        same = model.num_classes == cfg["num_classes"]
        adopted = {**(cfg if same else without_labels(cfg)), **keep, "num_classes": model.num_classes}
        own.clear()
        own.update(with_channels(adopted, model.in_chans))
        return
    if cfg.get("tag"):
        own["base_model"] = f"{cfg['architecture']}.{cfg['tag']}"
    for key in _ANCESTRY:
        if cfg.get(key):
            own[key] = sorted({*own.get(key, ()), *cfg[key]})
    # This one demands no more than the others.
    licenses = {str(entry["license"]) for entry in (own, cfg) if entry.get("license")}
    if licenses:
        own["license"] = " and ".join(sorted(licenses - {"apache-2.0"})) or "apache-2.0"


def _parse_name(name: Any) -> tuple[str, str]:
    """Scheme and location of a saved model; no scheme for the name of a model."""
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} must be a string: one of list_models(), local-dir:FOLDER or hf-hub:OWNER/NAME")
    scheme, colon, location = name.partition(":")
    if not colon:
        return "", name
    if scheme not in SCHEMES or not location:
        raise ValueError(f"unknown source {name!r}: use local-dir:FOLDER, hf-hub:OWNER/NAME, or a plain name")
    return scheme, location


def _split_tag(name: str) -> tuple[str, str]:
    # A dot in a path does not start a tag: the error shows the whole path.
    architecture, _, tag = (name, "", "") if "/" in name else name.partition(".")
    return architecture, tag


def _hub_options(
    revision: str | None,
    token: str | bool | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    force_download: bool,
    timeout: float,
) -> HubOptions:
    for name, value, kinds in (("revision", revision, (str,)), ("token", token, (str, bool))):
        if value is not None and not isinstance(value, kinds):
            raise TypeError(f"{name}={value!r} must be a string")
    for name, flag in (("local_files_only", local_files_only), ("force_download", force_download)):
        if not isinstance(flag, bool):
            raise TypeError(f"{name}={flag!r} must be True or False")
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout={timeout!r} must be a positive number of seconds")
    folder = None if cache_dir is None else os.fspath(cache_dir)
    return HubOptions(revision, token, folder, local_files_only, force_download, timeout)
