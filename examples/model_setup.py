"""The model of a training, what it starts from, its optimizer and schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from datasets import DataError, Dataset
from torch import optim

if TYPE_CHECKING:
    from train import Config

__all__ = ["Model", "Optim", "build_model", "build_optimizer", "lr_factor"]


@dataclass
class Model:
    """The model, and what it starts from.

    Attributes:
        size: which size of model.
        pretrained: start from pretrained weights, unless there is a checkpoint.
        tag: which ones; None for the size's first: the weights in the package (ham10000), or in1k_backbones, both
            branches' ImageNet weights from the Hub.
        checkpoint: start from this: a saved folder, a file, or a name with its tag, also of a model for another task.
        args: further arguments of the model, e.g. ``drop_path_rate``.
    """

    size: Literal["", "small", "tiny"] = "tiny"
    pretrained: bool = True
    tag: str | None = None
    checkpoint: str | None = None
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Optim:
    """Optimizer and schedule.

    Attributes:
        lr: peak learning rate, of AdamW.
        weight_decay: for matrices; biases, norms and what the model names are spared.
        layer_decay: factor of the learning rate from each layer to the one before it; 1 for none.
        epochs: how often all images are drawn.
        warmup_epochs: epochs of linear warm-up; a cosine to 0 follows.
        batch_size: of one process and step.
        accumulate: batches whose gradients are summed to one step.
        clip: largest norm of the gradient.
        ema_decay: decay of the averaged weights that are validated and saved; 0 for none.
        patience: stop after so many epochs without a better validation; 0 for never.
        precision: of the forward and backward pass.
    """

    lr: float = 5e-4
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    epochs: int = 30
    warmup_epochs: float = 1.0
    batch_size: int = 32
    accumulate: int = 1
    clip: float = 2.0
    ema_decay: float = 0.0
    patience: int = 0
    precision: Literal["no", "bf16"] = "no"


def build_model(config: "Config", dataset: Dataset) -> Any:
    """The model, started from what the configuration names.

    Raises:
        DataError: weights that are not there or do not fit.
    """
    import mfsf2

    kwargs: dict[str, Any] = dict(config.model.args)
    masks = dataset.mask_format.num_classes
    if config.has_classes:
        kwargs |= {"num_classes": len(dataset.classes), **({"mask_classes": masks} if config.has_masks else {})}
    else:
        kwargs["num_classes"] = masks
    if config.has_stacks:
        kwargs["num_slices"] = dataset.num_slices
    name = "_".join(part for part in ("mfsf2", config.model.size, config.task) if part)
    checkpoint, tag = config.model.checkpoint, config.model.tag
    try:
        if checkpoint is not None:
            model: Any = mfsf2.create_model(name, **kwargs)
            load_start(model, checkpoint)
        else:
            with_tag = f"{name}.{tag}" if tag and config.model.pretrained else name
            model = mfsf2.create_model(with_tag, pretrained=config.model.pretrained, **kwargs)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(f"model: {error}") from error
    describe_model(model.pretrained_cfg, config, dataset)
    return model


def load_start(model: Any, checkpoint: str) -> None:
    """Load a file, a folder or a tag; where its model is for another task, what fits, the encoder at least."""
    import mfsf2

    path = Path(checkpoint)
    load: Callable[..., None] = mfsf2.load_checkpoint if path.is_file() else mfsf2.load_pretrained
    source = f"local-dir:{checkpoint}" if path.is_dir() else checkpoint
    try:
        load(model, source)
    except ValueError as error:
        try:
            load(model, source, strict="encoder")
        except ValueError:
            raise error from None


def describe_model(cfg: dict[str, Any], config: "Config", dataset: Dataset) -> None:
    """Write the preparation of images, what masks mean and the license into a model's configuration.

    What is known of the images behind the weights that it starts from stays: their hashes and their license.
    """
    cfg.update(
        input_size=(3, config.input_size, config.input_size),
        pool_size=(math.ceil(config.input_size / 32),) * 2,
        crop_pct=1.0,
        crop_mode="squash",
        interpolation="bilinear",
    )
    own = dataset.license and dataset.license.lower().replace(" ", "-")
    licenses = {name for name in (cfg.get("license"), own) if name}
    for key in ("label_names", "label_descriptions", "temperature", "description", "metrics", "training", "license"):
        cfg.pop(key, None)
    if licenses:
        # Apache 2.0 demands no more than the others.
        cfg["license"] = " and ".join(sorted(licenses - {"apache-2.0"})) or "apache-2.0"
    masks = dataset.mask_format
    for key, value in (
        ("multi_label", (dataset.multi_label and config.has_classes) or None),
        ("mask_names", list(masks.names) or None if config.has_masks else None),
        ("ignore_index", masks.ignore_index if config.has_masks else None),
    ):
        cfg.pop(key, None)
        if value is not None:
            cfg[key] = value


def build_optimizer(model: Any, config: "Config") -> optim.AdamW:
    """AdamW with timm's groups: layer-wise rates, no decay for biases, norms and what the model spares."""
    from timm.optim import param_groups_layer_decay

    groups: Any = param_groups_layer_decay(
        model,
        weight_decay=config.optim.weight_decay,
        no_weight_decay_list=model.no_weight_decay(),
        layer_decay=config.optim.layer_decay,
    )
    parts = [dict(params=g["params"], weight_decay=g["weight_decay"], scale=g["lr_scale"]) for g in groups]
    return optim.AdamW(parts, lr=config.optim.lr)


def lr_factor(epoch: float, config: "Config") -> float:
    """Factor of the learning rate after so many epochs: linear warm-up, then half a cosine to 0."""
    warmup = min(config.optim.warmup_epochs, config.optim.epochs / 2)
    if epoch < warmup:
        return max(epoch, 1e-3) / warmup
    return 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (config.optim.epochs - warmup)))
