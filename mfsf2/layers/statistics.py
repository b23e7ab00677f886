"""Mean, maximum and minimum of DCT-filtered maps, what MFFE looks at."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .pooling import is_channels_last
from .tracing import is_compiling

__all__ = ["statistics"]


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
