"""timm's pretrained weights of the two branches, from the Hub."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .config import WEIGHTS_NAME
from .hub import HubFile, HubOptions, MissingFileError, find_file

__all__ = ["backbone_cfgs", "fetch_backbones"]

BRANCHES = ("cnn", "transformer")


def backbone_cfgs(args: Mapping[str, Any]) -> list[Any]:
    """timm's pretrained configurations of both branches; None for names that timm does not know."""
    import timm

    return [timm.models.get_pretrained_cfg(args[branch]) for branch in BRANCHES]


def fetch_backbones(args: Mapping[str, Any], options: HubOptions) -> tuple[Path | bool, Path | bool]:
    """The weights of both branches; True for those that timm has to find itself.

    Both are looked for before the first is downloaded.

    Args:
        args: arguments of a model, with ``cnn`` and ``transformer``.
        options: how to reach the Hub.

    Raises:
        OSError: as for :func:`~mfsf2.weights.hub.find_file`.
    """
    with ThreadPoolExecutor(2) as pool:
        # At the same time, so that a server that does not answer costs the time-out once.
        cnn, transformer = pool.map(lambda cfg: _find(cfg, options), backbone_cfgs(args))
    return cnn.fetch() if cnn else True, transformer.fetch() if transformer else True


def _find(cfg: Any, options: HubOptions) -> HubFile | None:
    if cfg is None or not cfg.hf_hub_id or cfg.file or cfg.custom_load:
        return None
    try:
        return find_file(cfg.hf_hub_id, cfg.hf_hub_filename or WEIGHTS_NAME, options)
    except MissingFileError:
        # Some repositories have a file of another name, which timm looks for.
        return None
