"""What is known of pretrained weights without loading them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..models.variants import BACKBONES_TAG, find_variant

__all__ = ["PretrainedDetails", "details_of"]


@dataclass(frozen=True)
class PretrainedDetails:
    """What is known of pretrained weights.

    Attributes:
        size: bytes of the file; None for files on the Hub.
        license: license of the weights.
        data: what they were trained on.
        metrics: test metrics by task; empty if there are none.
        source: where they come from: ``"package"``, or the repositories on the Hub.
    """

    size: int | None
    license: str
    data: str
    metrics: Mapping[str, Mapping[str, float]]
    source: str


def details_of(name: str, tag: str, cfg: Mapping[str, Any]) -> PretrainedDetails:
    """The details of a model's tag, from its configuration and, for the branches, from timm's."""
    if tag != BACKBONES_TAG:
        return PretrainedDetails(
            Path(cfg["file"]).stat().st_size, cfg["license"], cfg["training"]["data"], cfg["metrics"], "package"
        )
    from .backbones import backbone_cfgs

    backbones = backbone_cfgs(find_variant(name).args)
    licenses = sorted({backbone.license for backbone in backbones if backbone.license})
    return PretrainedDetails(
        None,
        " and ".join(licenses) or "unknown",
        "ImageNet-1k (both branches; fusion and heads are untrained)",
        {},
        " and ".join(backbone.hf_hub_id for backbone in backbones),
    )
