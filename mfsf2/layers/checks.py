"""Input checks: what torch would report too late, or not at all. Symbolic tracing passes through them."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch.fx
from torch import Tensor, nn

__all__ = [
    "check_batch",
    "check_image",
    "check_integer",
    "check_map",
    "check_maps",
    "check_number",
    "check_pixels",
    "check_rate",
    "check_reduction",
    "check_same",
]


def check_integer(value: Any, name: str, minimum: int = 1, note: str = "") -> int:
    """Return ``value`` as an ``int``. NumPy integers pass, ``bool`` does not; ``note`` extends the too-small error."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}={value!r} must be an integer")
    if value < minimum:
        raise ValueError(f"{name}={value} must be at least {minimum}{note}")
    return int(value)


def check_rate(value: float, name: str) -> None:
    """Check a probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}={value} must be between 0 and 1")


def check_reduction(channels: int, reduction: int) -> None:
    """Check two integers, of which ``channels // reduction`` must be at least one."""
    check_integer(channels, "channels")
    check_integer(reduction, "reduction")
    if reduction > channels:
        raise ValueError(f"channels={channels} with reduction={reduction}: use a reduction of at most {channels}")


def check_map(x: Tensor, channels: int, name: str = "x", channels_last: bool = False) -> None:
    """Check the rank and the channels of a feature map ``(B, channels, H, W)`` or ``(B, H, W, channels)``."""
    if isinstance(x, torch.fx.Proxy):
        return
    dim, other = (3, 1) if channels_last else (1, 3)
    if x.dim() != 4:
        shape = f"(B, H, W, {channels})" if channels_last else f"(B, {channels}, H, W)"
        raise ValueError(f"{name} must have shape {shape}, got {list(x.shape)}")
    if x.shape[dim] != channels:
        given, order = ("(B, C, H, W)", "0, 2, 3, 1") if channels_last else ("(B, H, W, C)", "0, 3, 1, 2")
        hint = f"; if it is {given}, pass x.permute({order})" if x.shape[other] == channels else ""
        raise ValueError(f"{name} has {x.shape[dim]} channels, expected {channels}: {list(x.shape)}{hint}")


def check_number(maps: Sequence[Tensor], expected: int, name: str) -> None:
    """Check how many feature maps there are: surplus ones would be ignored without an error."""
    if len(maps) != expected:
        raise ValueError(f"{name} holds {len(maps)} feature maps, expected {expected}")


def check_maps(maps: Sequence[Tensor], channels: Sequence[int], name: str = "maps") -> None:
    """Check a list of feature maps, one for each entry of ``channels``."""
    check_number(maps, len(channels), name)
    for i, x in enumerate(maps):
        check_map(x, channels[i], f"{name}[{i}]")


def check_same(a: Tensor, b: Tensor, names: str, dims: Sequence[int] = (0,)) -> None:
    """Check that two tensors agree in ``dims``, where a size of one would broadcast without an error."""
    if isinstance(a, torch.fx.Proxy):
        return
    for dim in dims:
        if a.shape[dim] != b.shape[dim]:
            raise ValueError(f"{names} have shapes {list(a.shape)} and {list(b.shape)}: dimension {dim} must be equal")


def check_image(x: Tensor, in_chans: int, min_size: int) -> None:
    """Check a batch of images ``(B, in_chans, H, W)``."""
    check_map(x, in_chans, "image")
    check_pixels(x, min_size, "image")


def check_pixels(x: Tensor, min_size: int, name: str) -> None:
    """Check a batch of images or stacks: floating point, not empty, at least ``min_size`` pixels in each direction."""
    if isinstance(x, torch.fx.Proxy):
        return
    if not x.is_floating_point():
        raise TypeError(f"{name} is {x.dtype}, expected floating point: for pixels use {name}.float() / 255")
    if x.shape[0] == 0:
        raise ValueError(f"{name} is an empty batch: {list(x.shape)}")
    if x.shape[-2] < min_size or x.shape[-1] < min_size:
        raise ValueError(f"{name} is {x.shape[-2]}x{x.shape[-1]} pixels: the minimum is {min_size}x{min_size}")


def check_batch(x: Tensor, module: nn.Module, max_size: int | None = None) -> None:
    """Refuse a batch of one if a batch norm inside ``module`` is about to compute statistics, which needs two values.

    With ``max_size``, only if ``x`` is at most that high and wide.
    """
    if isinstance(x, torch.fx.Proxy) or (max_size and (x.shape[-2] > max_size or x.shape[-1] > max_size)):
        return
    for norm in module.modules():
        # The norm comes first, because asking for the batch would fix an exported program to the example's.
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and (norm.training or norm.running_mean is None):
            if x.shape[0] == 1:
                raise ValueError(
                    "a batch of one sample has no batch statistics: use at least two samples in training mode "
                    "(DataLoader(drop_last=True)), or model.eval()"
                )
            return
