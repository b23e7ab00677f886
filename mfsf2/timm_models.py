"""Registers the one-modality classification models (``*_cls``) with timm.

After ``import mfsf2.timm_models``, ``timm.create_model("mfsf2_cls")`` creates the same model as
:func:`mfsf2.create_model`.
"""

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from timm.models import PretrainedCfg, generate_default_cfgs, register_model
from timm.models._features import FeatureGetterNet
from torch import nn

from .factory import build_model, build_saved, pretrained_cfg
from .models.two_modality import MFSF2TwoModality
from .models.variants import VARIANTS, find_variant
from .weights.hub import HubOptions
from .weights.source import open_saved, weights_file

__all__: list[str] = []

_CFG_FIELDS = {field.name for field in fields(PretrainedCfg)}
_NAMES = [
    name
    for name, variant in VARIANTS.items()
    if not variant.has_masks and not issubclass(variant.model_cls, MFSF2TwoModality)
]

default_cfgs = generate_default_cfgs(
    {
        f"{name}.{tag}": {key: value for key, value in pretrained_cfg(name, tag).items() if key in _CFG_FIELDS}
        for name in _NAMES
        for tag in VARIANTS[name].tags
    }
)


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    """timm's entry point for one model."""

    def build(
        pretrained: bool = False,
        pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        options = HubOptions(cache_dir=cache_dir)
        kwargs.pop("pretrained_model_args", None)
        out_indices = _out_indices(kwargs)
        location = _saved_location(pretrained_cfg)
        if location and not pretrained_cfg_overlay:
            saved = open_saved(*location, options)
            # timm adds the saved arguments to those of the caller.
            known = saved.config.args
            changed = {key: value for key, value in kwargs.items() if key not in known or known[key] != value}
            return build_saved(saved, out_indices, pretrained, **changed)
        cfg = _resolve_cfg(name, pretrained_cfg, pretrained_cfg_overlay or {}, pretrained)
        kwargs.setdefault("num_classes", cfg["num_classes"])
        has_file = bool(cfg.get("file") or cfg.get("hf_hub_id"))
        if pretrained and cfg.get("hf_hub_id"):
            # Mistyped arguments are reported before anything is downloaded.
            find_variant(name).build_on_meta(kwargs)
        weights = weights_file(cfg, options) if pretrained and has_file else None
        return build_model(
            name,
            cfg,
            weights=weights,
            weights_classes=cfg["num_classes"] if weights else None,
            pretrained=pretrained and not has_file,
            out_indices=out_indices,
            options=options,
            **kwargs,
        )

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"{name}, see :class:`mfsf2.MFSF2`."
    return build


def _saved_location(cfg: str | dict[str, Any] | PretrainedCfg | None) -> tuple[str, str] | None:
    """Scheme and location of a saved model, from the configuration that timm has read there."""
    content = asdict(cfg) if isinstance(cfg, PretrainedCfg) else cfg
    if not isinstance(content, dict):
        return None
    keys = {"local-dir": "file", "hf-hub": "hf_hub_id"}
    source = str(content.get("source"))
    return (source, content[keys[source]]) if source in keys and content.get(keys[source]) else None


def _resolve_cfg(
    name: str, cfg: str | dict[str, Any] | PretrainedCfg | None, overlay: dict[str, Any], pretrained: bool
) -> dict[str, Any]:
    """The configuration for what timm passes on: nothing, a tag, or a configuration of the caller's."""
    if cfg is None or isinstance(cfg, str):
        # External weights do not inherit the tag's metadata.
        elsewhere = overlay.keys() & {"file", "hf_hub_id"}
        resolved = pretrained_cfg(name, cfg or "", pretrained and not elsewhere)
    else:
        own = asdict(cfg) if isinstance(cfg, PretrainedCfg) else cfg
        resolved = {**find_variant(name).cfg, **own, "architecture": name}
    return {**resolved, **overlay}


def _out_indices(kwargs: dict[str, Any]) -> Any:
    """Remove timm's arguments for feature extraction from ``kwargs``; None for the model itself."""
    features_only = kwargs.pop("features_only", False)
    feature_cls = kwargs.pop("feature_cls", "getter")
    out_indices = kwargs.pop("out_indices", 4)
    if feature_cls not in ("getter", FeatureGetterNet):
        raise ValueError(f"feature_cls={feature_cls!r} is not supported: the fused maps come through 'getter'")
    return out_indices if features_only else None


for _name in _NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
