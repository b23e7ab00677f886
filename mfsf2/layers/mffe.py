"""Multi-frequency feature extraction: channel attention on statistics of DCT-filtered features."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_map, check_reduction
from .dct import FrequencyPairs, dct_filter_bank, dct_frequencies
from .pooling import adaptive_avg_pool, is_channels_last
from .tracing import is_compiling

__all__ = ["MFFE"]


def statistics(pooled: Tensor, bank: Tensor) -> Tensor:
    """Mean, maximum and minimum over the grid of the filtered maps, each averaged over the filters.

    Args:
        pooled: ``(B, C, G, G)``.
        bank: K filters, ``(K, G * G)``.

    Returns:
        Tensor of shape ``(B, 3, C)``.
    """
    # The mean is linear, so it needs one filter only: the mean of all.
    mean_filter = bank.mean(0, keepdim=True) / bank.shape[1]
    # As a view of what the pool has written: then its backward pass, over the full map, gets the layout that it wants.
    is_last = is_channels_last(pooled)
    grid = pooled.permute(0, 2, 3, 1).flatten(1, 2) if is_last else pooled.flatten(2)
    average = torch.matmul(mean_filter, grid) if is_last else torch.matmul(grid, mean_filter.t()).transpose(1, 2)
    if grid.requires_grad and torch.is_grad_enabled() and not is_compiling():
        extremes = _selected_extremes(grid, bank, is_last)
    else:
        filtered = _filtered(grid, bank, is_last)
        extremes = torch.stack([filtered.amax(2).mean(1), filtered.amin(2).mean(1)], dim=1)
    return torch.cat([average, extremes], dim=1)


def _filtered(grid: Tensor, bank: Tensor, is_last: bool) -> Tensor:
    """The filtered grid, ``(B, K, P, C)``: with channels innermost, reductions over P run several times faster."""
    grid = grid if is_last else grid.transpose(1, 2).contiguous()
    return grid.unsqueeze(1) * bank.unsqueeze(2)


def _selected_extremes(grid: Tensor, bank: Tensor, is_last: bool) -> Tensor:
    """Maximum and minimum, each averaged over the filters, ``(B, 2, C)``, for the backward pass.

    The filtered grid only serves to find the positions of the extremes. The values are products at these positions, so
    the backward pass is as small as they are and stores no filtered grid.
    """
    num_filters, positions = bank.shape
    batch, channels = grid.shape[0], grid.shape[2 if is_last else 1]
    with torch.no_grad():
        filtered = _filtered(grid, bank, is_last)
        at = torch.cat([_argmax(filtered), _argmax(filtered.neg_())], dim=1)
    # Flat indices: their backward pass is several times faster than that of gather.
    sample = torch.arange(batch, device=grid.device).view(-1, 1, 1) * (positions * channels)
    channel = torch.arange(channels, device=grid.device)
    index = sample + (at * channels + channel if is_last else at + channel * positions)
    value = grid.flatten().index_select(0, index.flatten()).view_as(at)
    weight = bank.repeat(2, 1).expand(batch, -1, -1).gather(2, at)
    return (value * weight).view(batch, 2, num_filters, channels).mean(2)


def _argmax(filtered: Tensor) -> Tensor:
    """Position of the maximum, ``(B, K, C)``, of each channel of ``(B, K, P, C)``."""
    batch, num_filters, positions, channels = filtered.shape
    # A pool over the whole grid in channels_last, because argmax is many times slower.
    maps = filtered.view(batch * num_filters, positions, 1, channels).permute(0, 3, 1, 2)
    _, index = F.max_pool2d_with_indices(maps, (positions, 1))
    return index.view(batch, num_filters, channels)


for _name in ("adaptive_avg_pool", "statistics"):
    torch.fx.wrap(_name)


class MFFE(nn.Module):
    r"""Multi-frequency feature extraction, a channel gate: returns ``x * sigmoid(logits(x))``.

    The map is average-pooled to a G x G grid and multiplied by K DCT filters :math:`D_k`. The mean, maximum and minimum
    over the grid, each averaged over k, give three vectors per sample. One shared bottleneck turns them into logits:

    .. math::
        \mathrm{logits} = \sum_{s \in \{A, M, m\}} W_2 \, \mathrm{relu}(W_1 s)

    If several positions share a maximum or a minimum, eager mode gives the gradient to one of them, as the published
    block does; compiled programs and forward mode divide it among them.

    This is the block as published for MFSF2-NET. Its origins are FcaNet (ICCV 2021) and the MFCA of MADGNet (CVPR
    2024).

    Args:
        channels: channels C of the map.
        reduction: bottleneck ratio; W1 maps C to ``C // reduction``.
        num_frequencies: number K of filters to take from the table: 1, 2, 4, 8, 16 or 32.
        frequencies: the table, ``"top"``, ``"low"`` or ``"bot"``, or your own ``(u, v)`` pairs on a 7x7 grid.
        grid_size: height and width G of the grid, at least 7.

    Shape: ``(B, C, H, W)`` to the same, for any H, W >= 1.

    Raises:
        ValueError: G < 7, a K that is not allowed, fewer channels than ``reduction``, or an input of the wrong shape.

    Example:
        >>> MFFE(256)(torch.randn(2, 256, 14, 14)).shape
        torch.Size([2, 256, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        num_frequencies: int = 16,
        frequencies: str | FrequencyPairs = "top",
        grid_size: int = 7,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_reduction(channels, reduction)
        self.channels = channels
        self.grid_size = grid_size
        self.frequencies = dct_frequencies(frequencies, num_frequencies)
        hidden = channels // reduction
        self.fc1 = nn.Linear(channels, hidden, bias=False, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(hidden, channels, bias=False, device=device, dtype=dtype)
        bank = torch.empty(len(self.frequencies), grid_size**2, device=device, dtype=dtype)
        self.bank: Tensor
        self.register_buffer("bank", bank, persistent=False)
        self.init_non_persistent_buffers()
        self.register_load_state_dict_post_hook(_fill_bank)  # type: ignore[no-untyped-call]

    def reset_parameters(self) -> None:
        """Reset the weights, and compute the filters again."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Compute the filters, which are not in the state dict. Call it after ``to_empty``, as for timm's modules.

        Filters on the meta device move to the device of the weights.
        """
        if self.bank.is_meta:
            weight = next(self.parameters())
            self.bank = torch.empty_like(self.bank, device=weight.device, dtype=weight.dtype)
        self.bank.copy_(dct_filter_bank(self.frequencies, self.grid_size, "cpu", torch.float64).flatten(1))

    def logits(self, x: Tensor) -> Tensor:
        """The gate before the sigmoid, ``(B, C)``."""
        check_map(x, self.channels)
        if self.bank.is_meta:
            # accelerate's loaders set weights one by one, without load_state_dict.
            self.init_non_persistent_buffers()
        pooled = adaptive_avg_pool(x, self.grid_size)
        # Each branch through the same bottleneck, whose last layer is linear.
        return self.fc2(self.act(self.fc1(statistics(pooled, self.bank))).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.logits(x).sigmoid().unsqueeze(2).unsqueeze(3)

    def extra_repr(self) -> str:
        return f"{self.channels}, grid_size={self.grid_size}, num_frequencies={len(self.frequencies)}"


def _fill_bank(module: Any, _incompatible_keys: Any) -> None:
    """Hook of ``load_state_dict``: weights may be loaded into empty memory, which holds no filters yet."""
    module.init_non_persistent_buffers()
