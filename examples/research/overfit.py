"""Check that the transformer, the fusion and the pyramid learn by themselves.

    python examples/research/overfit.py --folder HAM10000 --weights resnet18.safetensors --out overfit.json

The CNN branch is frozen and its last map r4 is zeroed before the head, so that only p4 and P can bring the loss down.
The training images are as many of each class as there are, so that guessing the commonest class does not help. Their
loss must at least halve; the exit status says whether it did.

The images are CC BY-NC 4.0, research only.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from cli import check_ranges, exit_on_data_error, parse_config
from cnn import load_cnn
from data import Images, make_loader, normalize
from datasets import Sample, check_classes, check_files, make_split
from datasets.ham10000 import CLASSES, read
from files import OutputFolder, to_json
from paths import path_slices
from torch import Tensor, nn
from torch.nn import functional as F

RANGES = {
    "[1, inf)": "steps threads",
    "[2, inf)": "images batch_size",
    "[29, 4096]": "size",
    "(0, inf)": "lr",
    "[0, inf)": "seed",
}


@dataclass
class Config:
    """Overfitting of a few images.

    Attributes:
        folder: folder of HAM10000 as it is published.
        weights: safetensors file with timm's resnet18 keys, to start the CNN branch from.
        out: JSON file for the figures.
        steps: steps of the optimizer.
        images: number of training images.
        size: height and width of the model's input.
        batch_size: images in a step.
        lr: peak learning rate.
        threads: threads of torch.
        seed: of the split, the images, the weights and the order.
    """

    folder: str
    weights: str | None = None
    out: str | None = None
    steps: int = 200
    images: int = 256
    size: int = 112
    batch_size: int = 32
    lr: float = 1e-3
    threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)


def overfit(config: Config) -> dict[str, float]:
    """Train; returns the loss before and after.

    Raises:
        DataError: images or weights that cannot be used.
    """
    import mfsf2

    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    samples = find_samples(config)
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=len(CLASSES), drop_rate=0.0, drop_path_rate=0.0)
    if config.weights is not None:
        load_cnn(model, str(Path(config.weights).expanduser()))
    isolate(model)
    images = Images(samples, config.size)
    batch = next(iter(make_loader(images, len(images))))
    x, labels = normalize(batch["image"].float() / 255, model.pretrained_cfg), batch["label"]
    before = mean_loss(model, x, labels)
    train(model, x, labels, config)
    after = mean_loss(model, x, labels)
    results = dict(images=len(labels), steps=config.steps, loss_before=before, loss_after=after, ratio=after / before)
    print(f"loss on the {len(labels)} images: {before:.4f} before, {after:.4f} after {config.steps} steps")
    return results


def find_samples(config: Config) -> list[Sample]:
    """Training images, by turns from each class while it lasts.

    Raises:
        DataError: images that cannot be used, or a class without any.
    """
    dataset = read(Path(config.folder).expanduser())
    train = make_split(dataset, config.seed)["train"]
    check_classes(dataset, train)
    shuffled = random.Random(config.seed).sample(train, len(train))
    by_class = [[sample for sample in shuffled if sample.label == label] for label in range(len(CLASSES))]
    chosen = [sample for sample in chain.from_iterable(zip_longest(*by_class)) if sample is not None][: config.images]
    check_files(chosen)
    return chosen


def isolate(model: Any) -> None:
    """Freeze the CNN branch and zero its last map in the head's input."""
    r4 = path_slices(model)["r4"]

    def zero_r4(_head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        kept = torch.ones(inputs[0].shape[1], 1, 1)
        kept[r4] = 0
        return (inputs[0] * kept,)

    model.to(memory_format=torch.channels_last)
    model.encoder.cnn.requires_grad_(False)
    model.head.register_forward_pre_hook(zero_r4)


@torch.inference_mode()
def mean_loss(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Cross-entropy over all images, in evaluation mode."""
    model.eval()
    return F.cross_entropy(torch.cat([model(batch) for batch in x.split(64)]), labels).item()


def train(model: Any, x: Tensor, labels: Tensor, config: Config) -> None:
    """Train what is not frozen."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=config.lr)
    for step in range(config.steps):
        model.train()
        model.encoder.cnn.eval()  # its batch norm keeps the statistics that it has
        optimizer.param_groups[0]["lr"] = config.lr * min(1, (step + 1) / 10) * (1 - step / config.steps)
        drawn = torch.randperm(len(labels))[: config.batch_size]
        loss = F.cross_entropy(model(x[drawn]), labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1:4d}  loss {loss.item():.4f}", flush=True)


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    """The command line."""
    config = parse_config(Config, argv, "Overfit a few images without r4 and with the CNN branch frozen.")
    with exit_on_data_error():
        if config.out is None:
            return overfit(config)
        out = Path(config.out).expanduser()
        folder = OutputFolder(out.parent)
        folder.check([out.name])
        results = overfit(config)
        folder.write(out.name, to_json(results))
        return results


if __name__ == "__main__":
    # NaN is no success.
    raise SystemExit(not main()["ratio"] <= 0.5)
