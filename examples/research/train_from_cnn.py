"""Train like ``train.py``, from a CNN branch that alone starts trained, and have all paths to the head used.

    python examples/research/train_from_cnn.py --config examples/configs/ham10000_tiny.yaml --data.folder HAM10000 \
        --cnn.weights resnet18.safetensors --out runs/tiny

The options are those of ``train.py``, and ``--cnn.*``.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from cli import check_ranges, exit_on_data_error, parse_config
from cnn import load_cnn
from data import Images, make_loader, normalize
from datasets import DataError, Dataset, load_split, make_split
from model_setup import build_model, build_optimizer
from paths import PathDropout, balance_paths
from train import Config, train


@dataclass
class Cnn:
    """Start of the CNN branch.

    Attributes:
        weights: safetensors file with timm's keys; it may be partial.
        lr_scale: factor of the branch's learning rate.
        path_dropout: how often the head is trained without the CNN's map, and how often without the pyramid; 0 for
            never. At 0.5 it learns to use the transformer's map too. For the task cls.
    """

    weights: str | None = None
    lr_scale: float = 1.0
    path_dropout: float = 0.0


@dataclass
class CnnConfig(Config):
    """A training that starts from a CNN branch.

    Attributes:
        cnn: see there.
    """

    cnn: Cnn = field(default_factory=Cnn)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, {"(0, inf)": "cnn.lr_scale", "[0, 1)": "cnn.path_dropout"})
        if self.cnn.path_dropout and self.task != "cls":
            raise ValueError(f"cnn.path_dropout={self.cnn.path_dropout} must be 0 for all tasks but cls")


def make_model(config: Any, dataset: Dataset) -> Any:
    """The model, with the CNN branch's weights, and a head that is made to use all its inputs."""
    model = build_model(config, dataset)
    if config.cnn.weights is not None:
        load_cnn(model, str(Path(config.cnn.weights).expanduser()))
    if config.cnn.path_dropout:
        if config.model.checkpoint is None:
            model.to(memory_format=torch.channels_last)
            balance_paths(model, first_images(model, config, dataset))
        model.head.register_forward_pre_hook(PathDropout(model, config.cnn.path_dropout))
    return model


def first_images(model: Any, config: Any, dataset: Dataset) -> torch.Tensor:
    """The first training images, normalized."""
    data = config.data
    if data.split_file is None:
        splits = make_split(dataset, config.seed, data.folds, data.fold)
    else:
        splits, _ = load_split(data.split_file, dataset)
    first = Images(splits["train"][:64], config.input_size)
    batch = next(iter(make_loader(first, len(first))))
    images = normalize(batch["image"].float() / 255, model.pretrained_cfg)
    return images.contiguous(memory_format=torch.channels_last)


def make_optimizer(model: Any, config: Any) -> torch.optim.AdamW:
    """The optimizer of ``train.py``, with another rate for the CNN branch."""
    return scale_cnn_rate(build_optimizer(model, config), model, config.cnn.lr_scale)


def scale_cnn_rate(optimizer: torch.optim.AdamW, model: Any, factor: float) -> torch.optim.AdamW:
    """An optimizer with another rate for the CNN branch of its model."""
    of_cnn = {id(parameter) for parameter in model.encoder.cnn.parameters()}
    groups = []
    for group in optimizer.param_groups:
        for is_cnn, scale in ((False, 1.0), (True, factor)):
            params = [parameter for parameter in group["params"] if (id(parameter) in of_cnn) == is_cnn]
            if params:
                scaled = {"scale": scale * group["scale"], "weight_decay": group["weight_decay"]}
                groups.append({"params": params, **scaled})
    return torch.optim.AdamW(groups, lr=optimizer.defaults["lr"])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    config = parse_config(CnnConfig, argv, "Train a model from a CNN branch. Research only.")
    warnings.filterwarnings("ignore", category=FutureWarning)
    with exit_on_data_error():
        if config.resume and config.cnn.path_dropout:
            raise DataError("resume: runs with cnn.path_dropout cannot be resumed")
        return train(config, make_model, make_optimizer)


if __name__ == "__main__":
    main()
