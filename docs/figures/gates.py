"""What the gates and the decoder of the trained tiny model do on a generated image of a lesion, which shows no patient.

    python docs/figures/gates.py

It writes mffe_gates.png, mffe_channels.webp, cross_gates.webp and decoder_steps.webp.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from pages import FIGURES
from torch import Tensor

import mfsf2

# The examples' helpers, found once pages.py is imported.
from figures import Cell, ColorBar, draw_grid  # isort: skip
from lesion import generate_lesion  # isort: skip
from quickstart import GATES, gate_maps  # isort: skip

SEED = 3
BRANCHES = {"mffe_cnn": "CNN", "mffe_transformer": "transformer"}
STRIDES = (4, 8, 16, 32)
SHOWN = 3
"""Channels of either end in mffe_channels.webp."""

Gated = dict[str, list[tuple[Tensor, Tensor]]]
"""For each branch and stage: the map before its MFFE, ``(C, h, w)``, and the gate, ``(C,)``."""


def load() -> tuple[Any, Tensor, Tensor]:
    """The model, its input ``(1, 3, H, W)``, and the same picture as uint8 ``(3, H, W)``."""
    from timm.data import create_transform, resolve_data_config
    from torchvision.transforms.functional import pil_to_tensor

    model = mfsf2.create_model("mfsf2_tiny_clsseg", pretrained=True).eval()
    image, _ = generate_lesion(SEED)
    data = {**resolve_data_config(model=model), "crop_pct": 1.0, "crop_mode": "squash"}
    transform: Any = create_transform(**data)
    return model, transform(image).unsqueeze(0), pil_to_tensor(image)


def gated_maps(model: Any, x: Tensor) -> Gated:
    """What goes into each MFFE, and its gate."""
    kept: Gated = {name: [] for name in BRANCHES}

    def keep(name: str, mffe: Any, inputs: tuple[Tensor, ...]) -> None:
        kept[name].append((inputs[0][0], mffe.logits(inputs[0]).sigmoid()[0]))

    hooks = [
        getattr(stage, name).register_forward_pre_hook(partial(keep, name))
        for stage in model.encoder.fusion.stages
        for name in BRANCHES
    ]
    model.forward_features(x)
    for hook in hooks:
        hook.remove()
    return kept


def draw_gates(gated: Gated) -> None:
    """The gates of each stage's channels, sorted: how far they differ from 0.5, where an untrained block starts."""
    figure = Figure(figsize=(8, 2.2), layout="constrained")
    axes = figure.subplots(1, len(STRIDES), sharey=True)
    for stage, (axis, stride) in enumerate(zip(axes, STRIDES)):
        for (name, label), color in zip(BRANCHES.items(), ("#b40426", "#3b4cc0")):
            gate = gated[name][stage][1].sort(descending=True).values
            axis.plot(range(1, len(gate) + 1), gate, label=label, color=color)
        axis.axhline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        axis.set_title(f"stride {stride}", fontsize=9)
        axis.set_xlabel("channels, sorted", fontsize=8)
        axis.set_ylim(0, 1)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("MFFE gate", fontsize=8)
    axes[0].legend(fontsize=7, frameon=False)
    figure.savefig(FIGURES / "mffe_gates.png", dpi=160)


def draw_channels(picture: Tensor, maps: Tensor, gate: Tensor) -> None:
    """The channels that one MFFE opens and closes most, each scaled to its own range."""
    order = gate.argsort(descending=True).tolist()
    cells = []
    for channel in [*order[:SHOWN], *order[-SHOWN:]]:
        heat = maps[channel] - maps[channel].min()
        cells.append(Cell(picture, heat=heat / heat.max().clamp(min=1e-6), note=f"gate {gate[channel]:.2f}"))
    titles = [*[f"open {i}" for i in range(1, SHOWN + 1)], *[f"closed {i}" for i in range(SHOWN, 0, -1)]]
    write_grid("mffe_channels.webp", cells, titles, ColorBar("value of the channel", "viridis"))


def draw_cross_gates(picture: Tensor, model: Any, x: Tensor) -> None:
    """How each stage weighs the CNN against the transformer at every position."""
    gates = gate_maps(model, x)
    cells = [Cell(picture), *(Cell(picture, heat=gate, note=f"mean {gate.mean():.2f}") for gate in gates)]
    write_grid("cross_gates.webp", cells, ["image", *(f"stride {stride}" for stride in STRIDES)], GATES)


def draw_steps(picture: Tensor, model: Any, x: Tensor) -> None:
    """The foreground's probability after the bottleneck and after each step of reverse attention."""
    heats = [logits.sigmoid()[0, 0] for logits in model.forward_deep(x).masks]
    cells = [Cell(picture, heat=heat, note=f"{heat.shape[0]} x {heat.shape[1]}") for heat in heats]
    titles = ["bottleneck", *(f"with F{stage}" for stage in (4, 3, 2, 1))]
    write_grid("decoder_steps.webp", cells, titles, ColorBar("probability of the foreground", "viridis"))


def write_grid(name: str, cells: Sequence[Cell], titles: Sequence[str], bar: ColorBar) -> None:
    """A row of pictures. The helper replaces no file that is there already, so it draws in an empty folder."""
    with TemporaryDirectory() as folder:
        drawn = Path(folder) / name
        draw_grid([cells], titles, "", drawn, bar)
        (FIGURES / name).write_bytes(drawn.read_bytes())


@torch.no_grad()
def main() -> None:
    """Draw all, and print the range of the gates."""
    model, x, picture = load()
    gated = gated_maps(model, x)
    for name, label in BRANCHES.items():
        for stride, (_, gate) in zip(STRIDES, gated[name]):
            print(f"{label}, stride {stride}: gates from {gate.min():.2f} to {gate.max():.2f}")
    draw_gates(gated)
    draw_channels(picture, *gated["mffe_transformer"][1])
    draw_cross_gates(picture, model, x)
    draw_steps(picture, model, x)


if __name__ == "__main__":
    main()
