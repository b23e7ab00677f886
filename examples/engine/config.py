"""The configuration of a training, typed: what the YAML files in ``configs/`` and the command line may hold."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

__all__ = ["Config", "config_dict", "parse_config"]

Task = Literal["cls", "seg", "clsseg", "rcm_cls"]


@dataclass
class Data:
    """Images.

    Attributes:
        name: the data set.
        folder: where it lies, as it is published.
        split: a file that an earlier run wrote; None makes a new split from ``seed``.
        memory: read images from ``disk`` for each batch, or keep all as uint8 in the memory of the ``cpu`` or of the
            training ``device`` and augment there.
        workers: processes that read images, with ``disk``.
        check: decode every file once before the training starts.
    """

    name: Literal["ham10000", "isic2018", "isic2019", "kvasir", "psinkd"]
    folder: str
    split: str | None = None
    memory: Literal["disk", "cpu", "device"] = "disk"
    workers: int = 2
    check: bool = True


@dataclass
class Model:
    """The network.

    Attributes:
        size: which size of network.
        pretrained: start from pretrained weights.
        tag: which ones; ``in1k_backbones`` are both branches' from ImageNet, from the Hub.
        checkpoint: start from this file or saved folder.
        cnn_weights: start the CNN branch from this safetensors file with timm's keys; it may be partial.
        withhold: how often the head of the task cls is trained without the CNN's map, and how often without the
            pyramid; 0 for never. With ``cnn_weights`` alone, 0.5 makes it use the transformer's map too.
        args: further arguments of the network, e.g. ``drop_path_rate``.
    """

    size: Literal["", "small", "tiny"] = "tiny"
    pretrained: bool = False
    tag: str = "in1k_backbones"
    checkpoint: str | None = None
    cnn_weights: str | None = None
    withhold: float = 0.0
    args: dict[str, Any] = field(default_factory=dict)


@dataclass
class Augment:
    """Augmentation of training images.

    Attributes:
        scale: smallest and largest part of the frame's sides that fills the input.
        rotate: rotate by any angle; else by quarter turns alone.
        stretch: largest stretch of one side against the other.
        shift: largest shift, in half frames.
        colour: largest change of contrast; half of it of the colour channels.
        mixup: parameter alpha of mixup, for the task cls; 0 for none.
    """

    scale: tuple[float, float] = (0.7, 1.1)
    rotate: bool = True
    stretch: float = 0.08
    shift: float = 0.15
    colour: float = 0.2
    mixup: float = 0.0


@dataclass
class Optim:
    """Optimiser and schedule.

    Attributes:
        lr: peak learning rate, of AdamW.
        weight_decay: for matrices; biases, norms and what the network names are spared.
        layer_decay: factor of the learning rate from each layer to the one before it; 1 for none.
        cnn_lr_scale: factor of the learning rate of the CNN branch, for where it alone starts trained.
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
    cnn_lr_scale: float = 1.0
    epochs: int = 30
    warmup_epochs: float = 1.0
    batch_size: int = 32
    accumulate: int = 1
    clip: float = 2.0
    ema_decay: float = 0.0
    patience: int = 0
    precision: Literal["no", "bf16"] = "no"


@dataclass
class Loss:
    """Losses.

    Attributes:
        balance: against unequal classes: draw them equally often (``sampling``), weigh them (``loss``), add the
            logarithm of their frequencies to the logits while training (``logits``), or nothing.
        smoothing: label smoothing.
        mask_weight: weight of the masks' loss where there are classes too.
        deep: weight of the coarser logit maps together, beside 1 of the finest.
    """

    balance: Literal["none", "sampling", "loss", "logits"] = "sampling"
    smoothing: float = 0.0
    mask_weight: float = 1.0
    deep: float = 1.0


@dataclass
class Config:
    """A training.

    Attributes:
        task: what is learned.
        out: folder of the run.
        data, model, augment, optim, loss: see there.
        input_size: height and width of the network's input.
        seed: of the split, the weights and the order.
        device: ``auto`` takes an accelerator where there is one.
        resume: go on with the run in ``out``.
        tensorboard: write event files too.
    """

    task: Task
    out: str
    data: Data
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    loss: Loss = field(default_factory=Loss)
    input_size: int = 224
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    resume: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        optim, loss, augment = self.optim, self.loss, self.augment
        for name, value, least in [
            ("input_size", self.input_size, 29),
            ("seed", self.seed, 0),
            ("optim.epochs", optim.epochs, 1),
            ("optim.batch_size", optim.batch_size, 2),
            ("optim.accumulate", optim.accumulate, 1),
            ("optim.patience", optim.patience, 0),
            ("optim.warmup_epochs", optim.warmup_epochs, 0),
            ("optim.weight_decay", optim.weight_decay, 0),
            ("data.workers", self.data.workers, 0),
            ("loss.mask_weight", loss.mask_weight, 0),
            ("loss.deep", loss.deep, 0),
            ("augment.mixup", augment.mixup, 0),
        ]:
            if not least <= value < math.inf:
                raise ValueError(f"{name}={value} must be at least {least}")
        for name, value in [("lr", optim.lr), ("clip", optim.clip), ("cnn_lr_scale", optim.cnn_lr_scale)]:
            if not 0 < value < math.inf:
                raise ValueError(f"optim.{name}={value} must be above 0")
        for name, value in [
            ("loss.smoothing", loss.smoothing),
            ("model.withhold", self.model.withhold),
            ("optim.ema_decay", optim.ema_decay),
            ("augment.stretch", augment.stretch),
            ("augment.shift", augment.shift),
            ("augment.colour", augment.colour),
        ]:
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value} must be from 0 to below 1")
        if not 0 < optim.layer_decay <= 1:
            raise ValueError(f"optim.layer_decay={optim.layer_decay} must be above 0 to 1")
        low, high = augment.scale
        if not 0 < low <= high < math.inf:
            raise ValueError(f"augment.scale={[low, high]} must be two numbers above 0, the smaller one first")
        for name, value in [("augment.mixup", augment.mixup), ("model.withhold", self.model.withhold)]:
            if value and self.task != "cls":
                raise ValueError(f"{name}={value} must be 0 for all tasks but cls")
        _check_task(self.task, self.data.name)
        paths: list[tuple[Any, list[str]]] = [
            (self, ["out"]),
            (self.data, ["folder", "split"]),
            (self.model, ["checkpoint", "cnn_weights"]),
        ]
        for part, names in paths:
            for name in names:
                if getattr(part, name) is not None:
                    setattr(part, name, str(Path(getattr(part, name)).expanduser()))

    @property
    def network(self) -> str:
        """Name of the network for ``mfsf2.create_model``."""
        return "_".join(part for part in ("mfsf2", self.model.size, self.task) if part)

    @property
    def has_classes(self) -> bool:
        return self.task != "seg"

    @property
    def has_masks(self) -> bool:
        return self.task in ("seg", "clsseg")

    @property
    def has_stack(self) -> bool:
        return self.task == "rcm_cls"


_TASKS: dict[str, tuple[str, ...]] = {
    "ham10000": ("cls", "seg", "clsseg"),
    "isic2019": ("cls",),
    "isic2018": ("seg",),
    "kvasir": ("seg",),
    "psinkd": ("cls", "rcm_cls"),
}


def _check_task(task: str, dataset: str) -> None:
    if task not in _TASKS[dataset]:
        raise ValueError(f"task={task} cannot be learned from {dataset}: it has what {', '.join(_TASKS[dataset])} need")


def parse_config(argv: Sequence[str] | None, description: str) -> Config:
    """Configuration of the command line and of the YAML file that ``--config`` names.

    Ends the script with a message where a field is unknown or a value is not of its type.
    """
    parser = ArgumentParser(description=description)
    parser.add_argument("--config", action="config", help="YAML file; later arguments override it")
    parser.add_class_arguments(Config, as_group=False)
    namespace: Namespace = parser.parse_args(argv)
    try:
        config = parser.instantiate(namespace)
        fields = {key: config[key] for key in Config.__dataclass_fields__}
        return Config(**fields)
    except ValueError as error:
        parser.error(str(error))


def config_dict(config: Config) -> dict[str, Any]:
    """The configuration as plain values, for YAML and JSON."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
