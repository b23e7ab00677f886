"""Saved models: folders with weights and a configuration, local or on the Hugging Face Hub."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import CONFIG_NAME, METADATA_KEY, WEIGHTS_NAME, Config, parse_config
from .files import check_sha256
from .hub import HubOptions, commit_of, find_file
from .read import read_safetensors

__all__ = ["SCHEMES", "SavedModel", "SavedWeights", "open_saved", "weights_file"]

_logger = logging.getLogger(__name__)

SCHEMES = ("local-dir", "hf-hub")


@dataclass(frozen=True)
class SavedWeights:
    """The weights of a saved model, with the configuration that belongs to them."""

    config: Config
    tensors: dict[str, Tensor]
    path: Path


@dataclass(frozen=True)
class SavedModel:
    """A saved model whose configuration has been read, but not yet its weights.

    Attributes:
        config: the contents of ``config.json``.
        fetch: downloads the weights if necessary, and returns their path.
    """

    config: Config
    fetch: Callable[[], Path]

    def read(self) -> SavedWeights:
        """The weights, with their own configuration if ``config.json`` is of another save.

        Raises:
            ValueError: a damaged file, or not the one that its configuration names.
        """
        path = self.fetch()
        while True:
            before = _identity(path)
            file = read_safetensors(path)
            config = _config_of(file.metadata, path, self.config)
            # Another process may put a new file in the place of this one at any time.
            try:
                if config.sha256:
                    check_sha256(path, config.sha256, config.source)
            except ValueError:
                if _identity(path) == before:
                    raise
                continue
            if _identity(path) == before:
                return SavedWeights(config, file.tensors, path)


def open_saved(scheme: str, location: str, options: HubOptions) -> SavedModel:
    """Read the configuration at ``local-dir:FOLDER`` or ``hf-hub:OWNER/NAME``.

    Raises:
        FileNotFoundError: no such folder or repository, or a file is missing in it.
        ValueError: not the configuration of a model of this library.
        OSError: the Hub cannot be reached.
    """
    if scheme == "local-dir":
        return _open_folder(Path(location).expanduser())
    file = find_file(location, CONFIG_NAME, options)
    path = file.fetch()
    commit = commit_of(path)
    config = parse_config(path.read_bytes(), f"{file.repo_id}@{commit[:8]}: {CONFIG_NAME}")
    return SavedModel(config, lambda: file.sibling(WEIGHTS_NAME, commit).fetch())


def weights_file(cfg: dict[str, Any], options: HubOptions) -> Path:
    """The weights that a configuration in timm's form refers to (``file`` or ``hf_hub_id``)."""
    if cfg.get("file"):
        path = Path(cfg["file"])
        return path / WEIGHTS_NAME if path.is_dir() else path
    if cfg.get("hf_hub_id"):
        return find_file(cfg["hf_hub_id"], cfg.get("hf_hub_filename") or WEIGHTS_NAME, options).fetch()
    raise ValueError("the pretrained configuration has no weights: neither 'file' nor 'hf_hub_id'")


def _open_folder(folder: Path) -> SavedModel:
    weights, config = folder / WEIGHTS_NAME, folder / CONFIG_NAME
    missing = [path.name for path in (config, weights) if not path.is_file()]
    if missing == [CONFIG_NAME]:
        # The first save into this folder was killed after its weights had taken their place.
        own = read_safetensors(weights).metadata.get(METADATA_KEY)
        if own is not None:
            _logger.warning("%s has no %s: its weights' own configuration is used", folder, CONFIG_NAME)
            return SavedModel(parse_config(own, str(weights)), lambda: weights)
    if folder.is_file():
        raise FileNotFoundError(f"{folder} is a file: pass its folder, or use checkpoint_path or load_checkpoint")
    if not folder.exists():
        raise FileNotFoundError(f"no such folder: {folder} is not a saved model: {', '.join(missing)} missing")
    if missing:
        raise FileNotFoundError(f"{folder} is not a saved model: {', '.join(missing)} missing")
    return SavedModel(parse_config(config.read_bytes(), str(config)), lambda: weights)


def _config_of(metadata: dict[str, str], path: Path, config: Config) -> Config:
    """The configuration of the weights in a file: ``config.json``, unless the file is of another save."""
    text = metadata.get(METADATA_KEY)
    if text is None:
        return config
    own = parse_config(text, str(path))
    if own.save_id is None or own.save_id == config.save_id:
        return config
    _logger.warning(
        "%s is of another save than %s (one was interrupted, or a file was copied): the weights' own configuration is "
        "used; saving again repairs the folder",
        config.source,
        path,
    )
    return own


def _identity(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
