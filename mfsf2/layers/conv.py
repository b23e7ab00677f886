"""Convolutions: with batch norm and ReLU, of a concatenation, and of one split of pyramid split attention."""

import math

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .tracing import is_compiling, is_transformed, may_overwrite

__all__ = ["ConcatConv2d", "ConcatConvNormAct", "ConvNormAct", "PointwiseConv2d", "SplitConv2d"]


def pointwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias)`` for a 1x1 kernel.

    Contiguous maps on the CPU go through a matrix product, which reads them as they are. The convolution reorders such
    maps before and after, which takes up to as long as the convolution itself. On CUDA, only convolutions use TF32.
    """
    # A map with one channel is contiguous in every layout, and the convolution keeps the one of its kernel.
    if is_compiling() or x.device.type != "cpu" or x.dim() != 4 or x.shape[1] == 1 or not x.is_contiguous():
        return F.conv2d(x, weight, bias)
    (batch, _, height, width), out_chans = x.shape, weight.shape[0]
    y = torch.bmm(weight.flatten(1).expand(batch, -1, -1), x.flatten(2)).view(batch, out_chans, height, width)
    if bias is None:
        return y
    # Autograd needs no product for its own backward pass, but vmap may have more biases than products.
    return y + bias.view(-1, 1, 1) if is_transformed() else y.add_(bias.view(-1, 1, 1))


def add(a: Tensor, b: Tensor) -> Tensor:
    """``a + b``, in the memory of ``a`` if nothing else needs it."""
    return a.add_(b) if may_overwrite() and a.shape == b.shape else a + b


def interpolate(a: Tensor, b: Tensor, s: Tensor) -> Tensor:
    """``a + s * (b - a)`` in one pass over the maps, in the memory of ``a`` if nothing else needs it."""
    if is_compiling() or s.dtype != a.dtype:
        return a + s * (b - a)
    fits = a.shape == b.shape and s.shape[0] == a.shape[0]
    return a.lerp_(b, s) if may_overwrite() and fits else torch.lerp(a, b, s)


# Symbolic tracing does not know device, layout and mode: each of these is one node.
for _name in ("pointwise_conv", "add", "interpolate"):
    torch.fx.wrap(_name)


class PointwiseConv2d(nn.Conv2d):
    """An ``nn.Conv2d`` for 1x1 kernels, with the same arguments: contiguous maps go through a matrix product.

    Convolutions with other kernels, strides, paddings or groups, as tools may create of this class, run as in
    ``nn.Conv2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == self.stride == (1, 1) and self.padding == (0, 0) and self.groups == 1:
            return pointwise_conv(x, self.weight, self.bias)
        return super().forward(x)


class ConvNormAct(nn.Module):
    """``ReLU(BN(Conv(x)))`` with stride 1 and "same" padding.

    Args:
        in_chans: input channels.
        out_chans: output channels.
        kernel_size: odd kernel size.
        bias: add a bias before the norm, as the published fusion stages do.

    Shape: ``(B, in_chans, H, W)`` to ``(B, out_chans, H, W)``.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int = 1,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} must be odd, so that maps keep their size")
        conv = PointwiseConv2d if kernel_size == 1 else nn.Conv2d
        self.conv = conv(
            in_chans, out_chans, kernel_size, padding=kernel_size // 2, bias=bias, device=device, dtype=dtype
        )
        self.bn = nn.BatchNorm2d(out_chans, device=device, dtype=dtype)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class ConcatConv2d(nn.Module):
    """1x1 convolution of the concatenation ``[a; b]`` of two maps, as the sum of two smaller convolutions.

    The concatenation is not materialized. With a weight ``s`` of one channel, the input is ``[s a; (1 - s) b]``; s
    commutes with a 1x1 convolution, so the maps are not multiplied either.

    Args:
        in_chans: channels of each of the two maps.
        out_chans: output channels.

    Attributes:
        weight: ``(out_chans, 2 * in_chans, 1, 1)``, initialized like that of an ``nn.Conv2d`` on the concatenation.
        bias: ``(out_chans,)``.

    Shape: two maps ``(B, in_chans, H, W)``, optionally ``s`` ``(B, 1, H, W)``, to ``(B, out_chans, H, W)``.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.out_chans = out_chans
        self.weight = nn.Parameter(torch.empty(out_chans, 2 * in_chans, 1, 1, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_chans, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the weights as ``nn.Conv2d`` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        bound = 1 / math.sqrt(2 * self.in_chans)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, a: Tensor, b: Tensor, s: Tensor | None = None) -> Tensor:
        # Read each once: a parametrization computes it at every access, and spectral norm changes each time.
        weight, bias = self.weight, self.bias
        of_a, of_b = weight[:, : self.in_chans], weight[:, self.in_chans :]
        if s is None:
            return add(pointwise_conv(a, of_a, bias), pointwise_conv(b, of_b))
        # The bias is in both terms, and s + (1 - s) = 1.
        return interpolate(pointwise_conv(b, of_b, bias), pointwise_conv(a, of_a, bias), s)

    def extra_repr(self) -> str:
        return f"2 * {self.in_chans}, {self.out_chans}"


class SplitConv2d(nn.Module):
    """One split of pyramid split attention: a convolution without bias, with its padding given at each call.

    Args:
        in_chans: input channels.
        out_chans: output channels.
        kernel_size: odd kernel size.
        groups: number of groups.

    Attributes:
        weight: ``(out_chans, in_chans // groups, kernel_size, kernel_size)``, initialized like that of ``nn.Conv2d``.

    Shape: ``(B, in_chans, H, W)`` to ``(B, out_chans, H, W)`` with "same" padding, the default; with ``padding=0`` to
    ``(B, out_chans, H - kernel_size + 1, W - kernel_size + 1)``.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel_size: int,
        groups: int = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_chans = in_chans
        self.out_chans = out_chans
        self.kernel_size = kernel_size
        self.groups = groups
        size = (out_chans, in_chans // groups, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.empty(size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the weight as ``nn.Conv2d`` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, padding: int | None = None) -> Tensor:
        padding = self.kernel_size // 2 if padding is None else padding
        return F.conv2d(x, self.weight, padding=padding, groups=self.groups)

    def extra_repr(self) -> str:
        return f"{self.in_chans}, {self.out_chans}, kernel_size={self.kernel_size}, groups={self.groups}"


class ConcatConvNormAct(nn.Module):
    """``ReLU(BN(Conv([a; b])))`` of two maps, or of ``[s a; (1 - s) b]``, see :class:`ConcatConv2d`."""

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv = ConcatConv2d(in_chans, out_chans, device=device, dtype=dtype)
        self.bn = nn.BatchNorm2d(out_chans, device=device, dtype=dtype)
        self.act = nn.ReLU(inplace=True)

    def forward(self, a: Tensor, b: Tensor, s: Tensor | None = None) -> Tensor:
        return self.act(self.bn(self.conv(a, b, s)))
