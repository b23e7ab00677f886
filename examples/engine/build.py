"""The network of a configuration, its start, its optimiser and schedule."""

import math
from pathlib import Path
from typing import Any

from readers import DataError, Dataset
from safetensors.torch import load_file
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn, optim

import mfsf2

from .config import Config

__all__ = ["build_network", "build_optimizer", "load_cnn", "lr_factor", "normalize"]


def build_network(config: Config, dataset: Dataset) -> Any:
    """The network, started from what the configuration names.

    Raises:
        DataError: weights that are not there or do not fit.
    """
    kwargs: dict[str, Any] = dict(config.model.args)
    before: dict[str, Any] = {}
    if config.has_classes:
        kwargs["num_classes"] = len(dataset.classes)
    checkpoint = config.model.checkpoint
    try:
        name = f"{config.network}.{config.model.tag}" if config.model.pretrained else config.network
        is_folder = checkpoint is not None and Path(checkpoint).is_dir()
        network: Any = mfsf2.create_model(
            name, pretrained=config.model.pretrained, checkpoint_path=None if is_folder else checkpoint, **kwargs
        )
        if is_folder:
            mfsf2.load_pretrained(network, f"local-dir:{checkpoint}")
        if "trained_on" in network.pretrained_cfg:
            before = dict(network.pretrained_cfg)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(f"model: {error}") from error
    if config.model.cnn_weights is not None:
        load_cnn(network, config.model.cnn_weights)
    network.pretrained_cfg.update(
        input_size=(3, config.input_size, config.input_size),
        pool_size=(math.ceil(config.input_size / 32),) * 2,
        crop_pct=1.0,
        crop_mode="squash",
        interpolation="bilinear",
        license=dataset.terms.lower().replace(" ", "-"),
    )
    inherit(network.pretrained_cfg, before)
    for key in ("label_names", "label_descriptions", "temperature", "description", "metrics", "training"):
        network.pretrained_cfg.pop(key, None)
    return network


def inherit(cfg: dict[str, Any], before: dict[str, Any]) -> None:
    """Keep what is known of the images behind a checkpoint that a training starts from: their names and terms."""
    for key in ("trained_on", "chosen_on"):
        if key in before:
            cfg[key] = list(before[key])
    terms = before.get("license")
    if terms and terms != cfg["license"]:
        cfg["license"] = " and ".join(sorted({terms, cfg["license"]}))


def load_cnn(network: Any, path: str) -> None:
    """Start the CNN branch from a safetensors file of timm's keys; it may be partial.

    timm starts the last norm of a block at 0, so that a fresh block is its shortcut; fresh blocks on trained ones would
    then hardly be seen by the heads, so that these norms start at 1.

    Raises:
        DataError: no such file, or none of its keys fits.
    """
    try:
        state = load_file(path)
        result = network.encoder.cnn.load_state_dict(state, strict=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"model.cnn_weights={path}: {error}") from error
    if len(result.unexpected_keys) == len(state):
        raise DataError(f"model.cnn_weights={path}: none of its {len(state)} keys is one of the CNN branch")
    for name, parameter in network.encoder.cnn.named_parameters():
        if name in result.missing_keys and parameter.ndim == 1 and name.endswith((".bn2.weight", ".bn3.weight")):
            nn.init.ones_(parameter)
    print(f"CNN branch: {len(state)} tensors from {path}, {len(result.missing_keys)} start afresh", flush=True)


def build_optimizer(network: Any, config: Config) -> optim.AdamW:
    """AdamW with timm's groups: layer-wise rates, no decay for biases, norms and what the network spares."""
    groups: Any = param_groups_layer_decay(
        network,
        weight_decay=config.optim.weight_decay,
        no_weight_decay_list=network.no_weight_decay(),
        layer_decay=config.optim.layer_decay,
    )
    of_cnn = {id(parameter) for parameter in network.encoder.cnn.parameters()}
    parts: list[dict[str, Any]] = []
    for group in groups:
        for is_cnn, scale in ((False, 1.0), (True, config.optim.cnn_lr_scale)):
            params = [parameter for parameter in group["params"] if (id(parameter) in of_cnn) == is_cnn]
            if params:
                parts.append(dict(params=params, weight_decay=group["weight_decay"], scale=scale * group["lr_scale"]))
    return optim.AdamW(parts, lr=config.optim.lr)


def lr_factor(epoch: float, config: Config) -> float:
    """Factor of the learning rate after so many epochs: linear warm-up, then half a cosine to 0."""
    warmup = min(config.optim.warmup_epochs, config.optim.epochs / 2)
    if epoch < warmup:
        return max(epoch, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.optim.epochs - warmup)))


def normalize(images: Tensor, cfg: dict[str, Any]) -> Tensor:
    """Images in [0, 1], ``(..., 3, H, W)``, to the network's input."""
    mean, std = (images.new_tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std
