"""What the parts of a trained network do: its gates, its gradients, and its results without one of its parts.

    python examples/research/inside.py --checkpoint mfsf2_tiny_cls.ham10000 --data.name ham10000 \
        --data.folder HAM10000 --split_file examples/splits/ham10000.json --out runs/inside
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from ablate import load_classifier
from cli import run_function
from data import Images, make_loader, normalize, targets_of
from datasets import Data, check_files, read_dataset
from evaluate import find_splits, for_model
from files import OutputFolder, to_json
from metrics import summary
from paths import logits_of, without_each_path
from torch import Tensor, nn

import mfsf2
from mfsf2.layers import CrossBranchGate

__all__ = ["BRANCHES", "gradient_shares", "inside", "look_inside", "mean_maps", "only_means"]

BRANCHES = ("cnn", "transformer")
FILE = "inside.json"
PARTS = {"cnn": "encoder.cnn.", "transformer": "encoder.transformer.", "fusion": "encoder.fusion.", "head": "head."}


def inside(checkpoint: str, data: Data, split_file: str, out: str) -> dict[str, Any]:
    """Look at a trained model of exclusive classes, on the validation images. Research only.

    Args:
        checkpoint: folder of the model, ``best`` of a run; or a name of a model with its pretrained tag.
        data: the data set.
        split_file: the split of its training, ``split.json``.
        out: folder that receives inside.json.

    Returns:
        What :func:`look_inside` does.
    """
    folder = OutputFolder(Path(out).expanduser())
    folder.check([FILE])
    model = load_classifier(checkpoint)
    dataset = for_model(read_dataset(data), model)
    splits, notes = find_splits(dataset, split_file, "val")
    check_files(splits["val"])
    for note in notes:
        print(note)
    images = Images(splits["val"], model.pretrained_cfg["input_size"][1])
    batches = [normalize(batch["image"].float() / 255, model.pretrained_cfg) for batch in make_loader(images, 32)]
    found = look_inside(model, batches, targets_of(splits["val"]))
    print(f"wrote {folder.write(FILE, to_json(found))}")
    return found


@torch.inference_mode()
def look_inside(model: Any, batches: Sequence[Tensor], labels: Tensor) -> dict[str, Any]:
    """Statistics of all gates, and metrics without each branch and without each input of the head.

    What is left out is replaced by its mean over the images, which keeps its scale and says nothing about an image.

    Args:
        model: a network of two branches, in evaluation mode.
        batches: normalized images.
        labels: their classes.

    Returns:
        ``gates``, a row for each stage that has any; ``without``, metrics by what is left out.
    """
    features: list[Tensor] = []
    gates: dict[str, list[Tensor]] = {}
    handles = [model.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].mean((2, 3))))]
    handles += [module.register_forward_pre_hook(_recorder(gates, name)) for name, module in _gates_of(model)]
    try:
        means = mean_maps(model, batches)
    finally:
        for handle in handles:
            handle.remove()
    pooled = torch.cat(features)
    without = {"nothing": _measure(logits_of(model, pooled), labels)}
    for branch in BRANCHES:
        with only_means(getattr(model.encoder, branch), means[branch]):
            without[branch] = _measure(torch.cat([model(x) for x in batches]), labels)
    if isinstance(model, mfsf2.MFSF2):
        for name, values in without_each_path(model, pooled, pooled.mean(0)).items():
            without[name] = _measure(logits_of(model, values), labels)
    return {"gates": {name: _statistics(torch.cat(values)) for name, values in gates.items()}, "without": without}


def _gates_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [
        (name, module) for name, module in model.named_modules() if isinstance(module, (mfsf2.MFFE, CrossBranchGate))
    ]


def _recorder(gates: dict[str, list[Tensor]], name: str) -> Callable[[Any, tuple[Tensor, ...]], None]:
    """A hook that computes what the module is about to: gates ``(B, C)``, or the CNN's weight ``(B, positions)``."""

    def record(module: Any, inputs: tuple[Tensor, ...]) -> None:
        values = module.gate(*inputs) if isinstance(module, mfsf2.MFFE) else module.weight(*inputs).flatten(1)
        gates.setdefault(name.removeprefix("encoder.fusion.stages."), []).append(values)

    return record


def _statistics(values: Tensor) -> dict[str, float]:
    """Mean of gates ``(N, C)``; standard deviations between channels, of means over images, and between images."""
    return {
        "mean": values.mean().item(),
        "between_channels": values.mean(0).std().item(),
        "between_images": values.std(0).mean().item(),
    }


def _measure(logits: Tensor, labels: Tensor) -> dict[str, float | None]:
    found = summary(logits.softmax(1).cpu(), labels)
    return {name: found[name] for name in ("balanced_accuracy", "auc")}


def mean_maps(model: Any, batches: Sequence[Tensor]) -> dict[str, list[Tensor]]:
    """Means over all images of the maps that each branch gives the network, ``(1, C, H, W)``."""
    sums: dict[str, list[Tensor]] = {}

    def recorded(branch: str, original: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def forward(x: Tensor, **options: Any) -> list[Tensor]:
            maps = original(x, **options)
            parts = [one.sum(0, keepdim=True) for one in maps]
            sums[branch] = [a + b for a, b in zip(sums[branch], parts)] if branch in sums else parts
            return maps

        return forward

    backbones = {branch: getattr(model.encoder, branch) for branch in BRANCHES}
    for branch, backbone in backbones.items():
        backbone.forward_intermediates = recorded(branch, backbone.forward_intermediates)
    try:
        for x in batches:
            model(x)
    finally:
        for backbone in backbones.values():
            del backbone.forward_intermediates
    number = sum(len(x) for x in batches)
    return {branch: [one / number for one in parts] for branch, parts in sums.items()}


@contextmanager
def only_means(backbone: Any, means: Sequence[Tensor]) -> Iterator[None]:
    """Have a branch give these maps, whatever image it is shown."""
    backbone.forward_intermediates = lambda x, **_: [one.expand(len(x), -1, -1, -1) for one in means]
    try:
        yield
    finally:
        del backbone.forward_intermediates


def gradient_shares(learner: Any, batches: Sequence[tuple[Any, Any]]) -> dict[str, float]:
    """Norm of each part's gradient over the norm of its weights, mean over batches.

    Args:
        learner: the network with its loss; it is left in training mode, without gradients.
        batches: what it is called with.
    """
    learner.train()
    parameters = {
        part: [p for name, p in learner.model.named_parameters() if name.startswith(prefix)]
        for part, prefix in PARTS.items()
    }
    shares = dict.fromkeys((part for part, found in parameters.items() if found), 0.0)
    for batch in batches:
        learner.zero_grad()
        learner(*batch).backward()
        for part in shares:
            gradient = _norm([p.grad for p in parameters[part] if p.grad is not None])
            shares[part] += gradient / _norm(parameters[part]) / len(batches)
    learner.zero_grad()
    return shares


def _norm(tensors: Sequence[Tensor]) -> float:
    return sum(tensor.detach().float().square().sum().item() for tensor in tensors) ** 0.5


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    return run_function(inside, argv)


if __name__ == "__main__":
    main()
