"""Train ``mfsf2_tiny_rcm_cls`` on generated pairs whose class is decided by both modalities together.

    python examples/research/two_modalities.py --out runs/pairs

Each pair is an image with a brown or a blue-gray spot, and a stack of four gray slices with few or many bright discs,
like cells under a confocal microscope. The class is whether these two agree, blue with many or brown with few; color
and number are drawn independently, so either modality alone says nothing about it. The trained model is measured with
both modalities, with either one alone, and with a mixture; ``history.json``, ``results.json`` and ``curves.png`` go to
``--out``, with the model.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from cli import check_ranges, exit_on_data_error, parse_config
from cnn import load_cnn
from files import OutputFolder, to_json
from torch import Tensor
from torch.nn import functional as F

CLASSES = 2
NUM_SLICES = 4
TEST_PAIRS = 600
LOG_EVERY = 100
MODEL_FILES = ("model.safetensors", "config.json")
FILES = (*MODEL_FILES, "history.json", "results.json", "curves.png")
RANGES = {
    "[1, inf)": "steps threads",
    "[2, inf)": "batch_size",
    # The slices' height and width, three quarters of it, must be at least 29.
    "[39, 4096]": "size",
    "(0, inf)": "lr",
    "[0, inf)": "seed",
}


@dataclass
class Config:
    """Training on generated pairs.

    Attributes:
        out: folder for the model and the results.
        weights: safetensors file with timm's resnet18 keys, to start the CNN branch from.
        steps: steps of the optimizer.
        size: height and width of the images.
        batch_size: pairs in a step.
        lr: peak learning rate.
        threads: threads of torch.
        seed: of the weights and the pairs.
    """

    out: str
    weights: str | None = None
    steps: int = 400
    size: int = 64
    batch_size: int = 32
    lr: float = 1e-3
    threads: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)


def generate_pairs(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Images ``(n, 3, size, size)``, stacks ``(n, 4, 1, 3/4 size, 3/4 size)`` and classes ``(n,)``."""
    blue = torch.randint(2, (n,), generator=generator)
    many = torch.randint(2, (n,), generator=generator)
    return _spots(blue, size, generator), _slices(many, size * 3 // 4, generator), (blue == many).long()


def _uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _distance(center: Tensor, size: int) -> Tensor:
    """Distance of each pixel from centers ``(2, ..., 1, 1)``, in units of half the side."""
    line = torch.linspace(-1, 1, size)
    return ((line.view(-1, 1) - center[0]).square() + (line - center[1]).square()).sqrt()


def _spots(blue: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Skin-colored images with a spot, brown or blue-gray."""
    n = len(blue)
    radius = _uniform(0.4, 0.7, generator, n, 1, 1)
    inside = torch.sigmoid(12 * (radius - _distance(_uniform(-0.3, 0.3, generator, 2, n, 1, 1), size))).unsqueeze(1)
    colors = torch.tensor([[0.45, 0.28, 0.18], [0.35, 0.38, 0.50]])
    spot = colors[blue].view(n, 3, 1, 1) * _uniform(0.8, 1.2, generator, n, 1, 1, 1)
    skin = torch.tensor([0.85, 0.65, 0.55]).view(1, 3, 1, 1) * _uniform(0.9, 1.1, generator, n, 3, 1, 1)
    noise = 0.05 * torch.randn(n, 3, size, size, generator=generator)
    return (inside * spot + (1 - inside) * skin + noise).clamp(0, 1)


def _slices(many: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Dark slices with bright discs, 3 to 6 or 12 to 18 in each stack's slices."""
    n = len(many)
    counts = torch.where(
        many == 1, torch.randint(12, 19, (n,), generator=generator), torch.randint(3, 7, (n,), generator=generator)
    )
    stack = torch.full((n, NUM_SLICES, size, size), 0.25)
    for disc in range(int(counts.max())):
        center = _uniform(-1, 1, generator, 2, n, NUM_SLICES, 1, 1)
        bright = torch.sigmoid(40 * (0.14 - _distance(center, size)))
        stack = torch.maximum(stack, 0.8 * bright * (disc < counts).view(-1, 1, 1, 1))
    return (stack + 0.05 * torch.randn(stack.shape, generator=generator)).clamp(0, 1).unsqueeze(2)


def normalize(images: Tensor) -> Tensor:
    """From [0, 1] to about zero mean and unit deviation."""
    return (images - 0.5) / 0.25


@torch.inference_mode()
def measure(model: Any, images: Tensor, stacks: Tensor, labels: Tensor) -> dict[str, float]:
    """Accuracy with both modalities, with either one, and where every third image and every third stack is missing."""
    model.eval()
    position = torch.arange(len(labels))
    has_image, has_stack = position % 3 != 0, position % 3 != 1
    right: dict[str, list[Tensor]] = {"both": [], "image_alone": [], "stack_alone": [], "a_third_missing_each": []}
    for part in position.split(60):
        x, s = normalize(images[part]), normalize(stacks[part])
        outputs = (model(x, s), model(x), model(None, s), model(x, s, has_image[part], has_stack[part]))
        for values, logits in zip(right.values(), outputs):
            values.append(logits.argmax(1) == labels[part])
    return {name: torch.cat(values).float().mean().item() for name, values in right.items()}


def train(model: Any, config: Config) -> list[dict[str, float]]:
    """Train in place on ever new pairs; returns the logged steps."""
    generator = torch.Generator().manual_seed(config.seed)
    held_out = generate_pairs(TEST_PAIRS, config.size, torch.Generator().manual_seed(config.seed + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=0.05)
    history: list[dict[str, float]] = []
    losses: list[float] = []
    for step in range(1, config.steps + 1):
        model.train()
        images, stacks, labels = generate_pairs(config.batch_size, config.size, generator)
        loss = F.cross_entropy(model(normalize(images), normalize(stacks)), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % LOG_EVERY == 0 or step == config.steps:
            history.append(dict(step=step, loss=sum(losses) / len(losses), **measure(model, *held_out)))
            print("  ".join(f"{name} {value:.4g}" for name, value in history[-1].items()), flush=True)
            losses = []
    return history


def train_and_measure(config: Config) -> dict[str, Any]:
    """Everything; returns the results.

    Raises:
        DataError: weights or a folder that cannot be used.
    """
    import mfsf2

    folder = OutputFolder(Path(config.out).expanduser())
    folder.check(FILES)
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    model: Any = mfsf2.create_model(
        "mfsf2_tiny_rcm_cls", num_classes=CLASSES, num_slices=NUM_SLICES, drop_path_rate=0.0
    )
    if config.weights is not None:
        load_cnn(model, str(Path(config.weights).expanduser()))
    history = train(model, config)
    test = generate_pairs(TEST_PAIRS, config.size, torch.Generator().manual_seed(config.seed + 2))
    settings = {"chance": 1 / CLASSES, "steps": config.steps, "size": config.size, "seed": config.seed}
    results = {"test": measure(model, *test), **settings}
    write(folder, model, history, results)
    return results


def write(folder: OutputFolder, model: Any, history: list[dict[str, float]], results: dict[str, Any]) -> None:
    """The files, and the results on the screen."""
    from curves import draw_curves

    import mfsf2

    folder.claim(MODEL_FILES)
    mfsf2.save_pretrained(model, folder.folder)
    folder.write("history.json", to_json(history))
    folder.write("results.json", to_json(results))
    folder.write("curves.png", lambda path: draw_curves(history, list(results["test"]), path, over="step"))
    print(to_json(results), end="")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    config = parse_config(Config, argv, "Train the model of two modalities on generated pairs.")
    with exit_on_data_error():
        return train_and_measure(config)


if __name__ == "__main__":
    main()
