"""Input checks with messages a user can act on. Each is one node under symbolic tracing, that of dtypes none."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

__all__ = [
    "check_batch",
    "check_dtypes",
    "check_form",
    "check_image",
    "check_integer",
    "check_map",
    "check_pixels",
    "check_pyramid",
    "check_rate",
    "check_reduction",
    "check_same",
    "check_sides",
    "takes_statistics",
]


def check_integer(value: Any, name: str, minimum: int = 1, meaning: str = "") -> None:
    """Check an argument that is a number of things; ``meaning`` is what more there is to say of a smaller one."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r} must be an integer")
    if value < minimum:
        raise ValueError(f"{name}={value} must be at least {minimum}{meaning}")


def check_rate(value: Any, name: str, below_one: bool = False) -> None:
    """Check an argument that is a probability."""
    allowed = "from 0 to below 1" if below_one else "from 0 to 1"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}={value!r} must be a number {allowed}")
    if not 0 <= value <= 1 or (below_one and value == 1):
        raise ValueError(f"{name}={value} must be {allowed}")


def check_reduction(channels: int, reduction: int, names: tuple[str, str], left: str) -> None:
    """Check that ``channels // reduction`` is at least one; ``left`` is what it is a number of."""
    check_integer(channels, names[0])
    check_integer(reduction, names[1])
    if channels < reduction:
        raise ValueError(
            f"{names[0]}={channels} with {names[1]}={reduction} leaves no {left}: use a reduction from 1 to the number "
            "of channels"
        )


def check_form(x: Tensor, shape: str, name: str) -> None:
    """Check that ``x`` is a floating-point tensor of as many dimensions as ``shape``, such as ``(B, C, H, W)``, names.

    Raises:
        TypeError: not a tensor, not floating point.
        ValueError: another rank.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor of shape {shape}, got {type(x)}")
    if x.dim() != shape.count(",") + 1:
        raise ValueError(f"{name} must have shape {shape}, got {x.dim()} dimensions: {list(x.shape)}")
    if not x.is_floating_point():
        scale = " / 255 for pixels" if name in ["image", "stack"] else ""
        raise TypeError(f"{name} must be floating point, got {x.dtype}: convert it, e.g. x.float(){scale}")


def check_dtypes(module: nn.Module, **inputs: Tensor | Sequence[Tensor] | None) -> None:
    """Check that tensors, by name, have the dtype of a module's weights, or that autocast sees to it.

    The weights' values are not read. Symbolic tracing, which knows no dtypes, passes.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():
            for name, x in inputs.items():
                _check_dtype(x, parameter.dtype, name)
            return


def _check_dtype(x: Tensor | Sequence[Tensor] | None, dtype: torch.dtype, name: str) -> None:
    if x is None or isinstance(x, torch.fx.Proxy):
        return
    if not isinstance(x, Tensor):
        for i, entry in enumerate(x):
            _check_dtype(entry, dtype, f"{name}[{i}]")
    elif x.dtype != dtype and not _autocasts(x, dtype):
        autocast = "" if x.dtype == torch.float64 else ", or run both under torch.autocast"
        raise TypeError(
            f"{name} is {x.dtype} and the weights are {dtype}: convert one of them, e.g. x.to({dtype}){autocast}"
        )


def _autocasts(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether autocast brings both to one dtype; it leaves float64 alone."""
    if torch.float64 in (x.dtype, dtype) or not torch.amp.is_autocast_available(x.device.type):
        return False
    return torch.is_autocast_enabled(x.device.type)


def check_map(x: Tensor, channels: int, name: str) -> None:
    """Check a feature map: rank 4, ``channels`` channels, floating point, not empty.

    Raises:
        TypeError: not a tensor, not floating point.
        ValueError: anything else.
    """
    check_form(x, f"(B, {channels}, H, W)", name)
    if x.shape[1] != channels:
        hint = "; for (B, H, W, C) give x.permute(0, 3, 1, 2)" if x.shape[3] == channels else ""
        raise ValueError(f"{name} has {x.shape[1]} channels, expected {channels}: {list(x.shape)}{hint}")
    if x.shape[0] == 0 or x.shape[2] == 0 or x.shape[3] == 0:
        raise ValueError(f"{name} is empty, shape {list(x.shape)}: batch, height and width must be at least 1")


def check_pyramid(maps: list[Tensor], channels: list[int], name: str) -> None:
    """Check a list of feature maps, one for each entry of ``channels``."""
    if not isinstance(maps, (list, tuple)):
        raise TypeError(f"{name} must be a list of {len(channels)} feature maps, got {type(maps)}")
    if len(maps) != len(channels):
        raise ValueError(f"{name} holds {len(maps)} feature maps, expected {len(channels)}, one for each stage")
    for i, x in enumerate(maps):
        check_map(x, channels[i], f"{name}[{i}]")
        if x.shape[0] != maps[0].shape[0]:
            raise ValueError(f"{name} holds batches of {maps[0].shape[0]} and {x.shape[0]} samples: they must be equal")


def check_same(a: Tensor, b: Tensor, names: str, same_grid: bool = True) -> None:
    """Check that two maps are of one batch and, with ``same_grid``, of one height and width."""
    if a.shape[0] != b.shape[0]:
        raise ValueError(f"{names} hold batches of {a.shape[0]} and {b.shape[0]} samples: they must be equal")
    if same_grid and (a.shape[2] != b.shape[2] or a.shape[3] != b.shape[3]):
        raise ValueError(
            f"{names} have grids of {a.shape[2]}x{a.shape[3]} and {b.shape[2]}x{b.shape[3]}: they must be equal; "
            "DualBranchAlign brings maps to one grid"
        )


def takes_statistics(module: nn.Module) -> bool:
    """Whether a batch norm somewhere in a module takes the statistics of the batch, which need two values at least."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and (norm.training or norm.running_mean is None):
            return True
    return False


def check_batch(x: Tensor) -> None:
    """Check that a batch holds more than one sample, as batch norm over a vector needs where it takes statistics."""
    if x.shape[0] == 1:
        raise ValueError(
            "a batch of one sample has no batch statistics: use at least two samples in training mode "
            "(DataLoader(drop_last=True)), or model.eval()"
        )


def check_pixels(maps: list[Tensor]) -> None:
    """As :func:`check_batch` where a map is a single pixel, so that batch norm has one value per sample."""
    for x in maps:
        if x.shape[2] == 1 and x.shape[3] == 1:
            check_batch(x)


def check_sides(x: Tensor, min_size: int, name: str) -> None:
    """Check that the last two dimensions are at least ``min_size`` pixels."""
    if x.shape[-2] < min_size or x.shape[-1] < min_size:
        raise ValueError(
            f"{name} is {x.shape[-2]}x{x.shape[-1]} pixels: this network takes {min_size}x{min_size} and more"
        )


def check_image(x: Tensor, in_chans: int, min_size: int, statistics: bool) -> None:
    """Check a batch of images: as :func:`check_map`, at least ``min_size`` pixels a side, enough for statistics."""
    check_map(x, in_chans, "image")
    check_sides(x, min_size, "image")
    if statistics and x.shape[2] <= 32 and x.shape[3] <= 32:
        # The stride-32 map is a single pixel, so that batch norm has one value per sample.
        check_batch(x)
