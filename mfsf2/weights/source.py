"""Folders with the weights and the configuration of a model, local or on the Hugging Face Hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .save import CONFIG_NAME, WEIGHTS_NAME

__all__ = ["SavedModel", "hub_file", "read_saved_model", "weights_file"]


@dataclass(frozen=True)
class SavedModel:
    """The contents of a folder written by :func:`mfsf2.save_pretrained`."""

    architecture: str
    args: dict[str, Any]
    cfg: dict[str, Any]
    weights: Path


def hub_file(repo: str, filename: str, cache_dir: str | None = None) -> Path:
    """Fetch one file of ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` from the Hub."""
    from huggingface_hub import hf_hub_download

    repo_id, _, revision = repo.partition("@")
    return Path(hf_hub_download(repo_id, filename, revision=revision or None, cache_dir=cache_dir))


def weights_file(cfg: dict[str, Any], cache_dir: str | None = None) -> Path:
    """The weights that a configuration in timm's form refers to (``file`` or ``hf_hub_id``)."""
    if cfg.get("file"):
        path = Path(cfg["file"])
        return path / WEIGHTS_NAME if path.is_dir() else path
    if cfg.get("hf_hub_id"):
        return hub_file(cfg["hf_hub_id"], cfg.get("hf_hub_filename") or WEIGHTS_NAME, cache_dir)
    raise ValueError("the pretrained configuration has no weights: neither 'file' nor 'hf_hub_id'")


def read_saved_model(scheme: str, location: str, cache_dir: str | None = None) -> SavedModel:
    """Read the configuration at ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``, and find the weights.

    Raises:
        FileNotFoundError: no such folder, or a file is missing in it.
        ValueError: a configuration that is not JSON in timm's form.
    """
    if scheme == "local-dir":
        paths = [Path(location) / name for name in (CONFIG_NAME, WEIGHTS_NAME)]
        missing = [path.name for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"{location} is not a saved model: {', '.join(missing)} missing")
    else:
        paths = [hub_file(location, name, cache_dir) for name in (CONFIG_NAME, WEIGHTS_NAME)]
    config_path, weights = paths
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
        architecture, args, cfg = config["architecture"], config.get("model_args", {}), dict(config["pretrained_cfg"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{config_path} is not a configuration in timm's form ({type(error).__name__}: {error}): expected JSON "
            "with 'architecture' and 'pretrained_cfg'"
        ) from error
    for key in ("num_classes", "label_names"):
        if key in config:
            cfg[key] = config[key]
    return SavedModel(architecture, dict(args), cfg, weights)
