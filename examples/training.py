"""What the training scripts share: arguments, the start of the CNN branch, the optimiser, the loop, the curve."""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

LOG_EVERY = 25
WARM_UP = 0.05

History = dict[str, list[dict[str, float]]]


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that every training takes."""
    parser.add_argument("--out", required=True, help="folder for the network and the results")
    parser.add_argument("--weights", help="safetensors file with timm's resnet18 keys, to start the CNN branch from")
    parser.add_argument("--minutes", type=float, default=30.0, help="time for training and validation together")
    parser.add_argument("--steps", type=int, help="train this many steps in place of --minutes")
    parser.add_argument("--size", type=int, default=112, help="height and width of the network's input")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of all that starts at random")
    parser.add_argument("--cnn-lr", type=float, default=2e-4, help="peak learning rate of the CNN branch")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--evaluations", type=int, default=5, help="how often to validate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)


def check_training_arguments(args: argparse.Namespace) -> None:
    """End the script where a number makes no sense."""
    steps = 1 if args.steps is None else args.steps
    if min(steps, args.evaluations) < 1 or args.minutes <= 0 or args.batch_size < 2:
        raise SystemExit("--steps and --evaluations must be at least 1, --minutes above 0, --batch-size at least 2")


def load_cnn(model: nn.Module, path: str) -> None:
    """Start the CNN branch from a file of timm's ResNet keys; it may be partial, what it lacks is printed.

    timm starts the last norm of a block at 0, so that a fresh block is its shortcut. For fresh blocks on top of trained
    ones that would leave r4 ten times smaller than p4, and the head would hardly see it: these norms start at 1.
    """
    if not Path(path).is_file():
        raise SystemExit(f"--weights {path}: no such file; give a safetensors file with timm's resnet18 keys")
    try:
        state = load_file(path)
        result = model.encoder.cnn.load_state_dict(state, strict=False)  # type: ignore[union-attr, operator]
    except (SafetensorError, RuntimeError) as error:
        raise SystemExit(f"--weights {path}: not weights of timm's resnet18: {error}") from error
    if len(result.unexpected_keys) == len(state):
        raise SystemExit(f"--weights {path}: none of its {len(state)} keys is one of timm's resnet18")
    random = [key for key in result.missing_keys if not key.endswith("num_batches_tracked")]
    for name, parameter in model.encoder.cnn.named_parameters():  # type: ignore[union-attr]
        if name in random and parameter.ndim == 1 and name.endswith("bn2.weight"):
            nn.init.ones_(parameter)
    print(f"CNN branch: {len(state) - len(result.unexpected_keys)} tensors loaded, unused: {result.unexpected_keys}")
    print(f"CNN branch: {len(random)} tensors start at random: {', '.join(random) or 'none'}", flush=True)


def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """AdamW: a lower rate for the CNN branch, which starts trained; no decay for biases, norms and the like."""
    spared = model.no_weight_decay()  # type: ignore[operator]
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        key = (name.startswith("encoder.cnn."), parameter.ndim > 1 and name not in spared)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        {"params": params, "peak": args.cnn_lr if cnn else args.lr, "weight_decay": args.weight_decay * decay}
        for (cnn, decay), params in groups.items()
    )


def lr_factor(progress: float) -> float:
    """Linear warm-up, then half a cosine to 0; ``progress`` runs from 0 to 1."""
    if progress < WARM_UP:
        return max(progress, 1e-3) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP)))


def fit(
    model: nn.Module,
    args: argparse.Namespace,
    batch_loss: Callable[[], Tensor],
    validate: Callable[[], dict[str, float]],
) -> History:
    """Train in place; returns the logged steps and the validations.

    With ``--minutes`` the schedule follows the clock and not a count of steps, so that the learning rate reaches 0 in
    time whatever else the machine has to do.

    Args:
        model: the network.
        args: the script's arguments.
        batch_loss: draws a batch and returns the network's loss on it.
        validate: measures, by name, on the validation part.
    """
    optimizer = make_optimizer(model, args)
    history: History = {"train": [], "val": []}
    losses: list[float] = []
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * lr_factor(progress)
        model.train()
        loss = batch_loss()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        losses.append(loss.item())
        step += 1
        minutes = (time.monotonic() - start) / 60
        progress = step / args.steps if args.steps else minutes / args.minutes
        if step % LOG_EVERY == 0 or progress >= 1:
            entry = dict(
                step=step, minutes=minutes, loss=sum(losses) / len(losses), lr=optimizer.param_groups[-1]["lr"]
            )
            print("step {step:5d}  {minutes:6.2f} min  loss {loss:.4f}  lr {lr:.2e}".format(**entry), flush=True)
            history["train"].append(entry)
            losses = []
        if progress >= (len(history["val"]) + 1) / args.evaluations or progress >= 1:
            measures = validate()
            history["val"].append(dict(step=step, minutes=minutes, **measures))
            print(f"step {step:5d}  validation " + ", ".join(f"{k} {v:.4f}" for k, v in measures.items()), flush=True)
    return history


def draw_curve(history: History, baselines: dict[str, float], path: Path) -> None:
    """Training loss, and the validation measures named in ``baselines``, over the steps; baselines are dotted."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    left.plot([e["step"] for e in history["train"]], [e["loss"] for e in history["train"]], color="C0")
    for index, (name, baseline) in enumerate(baselines.items(), start=1):
        label = f"{name.replace('_', ' ')} (baseline {baseline:.2f})"
        right.plot(
            [e["step"] for e in history["val"]], [e[name] for e in history["val"]], "o-", color=f"C{index}", label=label
        )
        right.axhline(baseline, color=f"C{index}", linestyle=":", linewidth=1)
    left.set(xlabel=f"step ({history['train'][-1]['minutes']:.1f} minutes in all)", ylim=(0, None))
    left.set_ylabel("training loss", color="C0")
    right.set(ylabel="validation (dotted: baseline)", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=120)
