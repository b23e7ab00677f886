"""Multi-frequency feature extraction: channel attention on statistics of DCT-filtered features."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .checks import check_map, check_reduction
from .dct import FrequencyPairs, dct_filter_bank, dct_frequencies
from .pooling import adaptive_avg_pool

__all__ = ["MFFE"]

torch.fx.wrap("adaptive_avg_pool")


class MFFE(nn.Module):
    r"""Multi-frequency feature extraction, a channel gate: returns ``x * sigmoid(logits(x))``.

    The map is average-pooled to a G x G grid and multiplied by K DCT filters :math:`D_k`. The mean, maximum and minimum
    over the grid, each averaged over k, give three vectors per sample. One shared bottleneck turns them into logits:

    .. math::
        \mathrm{logits} = \sum_{s \in \{A, M, m\}} W_2 \, \mathrm{relu}(W_1 s)

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
        grid = adaptive_avg_pool(x, self.grid_size).flatten(2)
        filtered = grid.unsqueeze(2) * self.bank
        # The mean is linear, so the average branch needs one filter only: the mean of all.
        # A matrix with one column, because fvcore does not count matrix-vector products.
        average = torch.matmul(grid, self.bank.mean(0).unsqueeze(1)).squeeze(2) / self.bank.shape[1]
        statistics = torch.stack([average, filtered.amax(3).mean(2), filtered.amin(3).mean(2)], dim=1)
        return self.fc2(self.act(self.fc1(statistics)).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.logits(x).sigmoid().unsqueeze(2).unsqueeze(3)

    def extra_repr(self) -> str:
        return f"{self.channels}, grid_size={self.grid_size}, num_frequencies={len(self.frequencies)}"


def _fill_bank(module: Any, _incompatible_keys: Any) -> None:
    """Hook of ``load_state_dict``: weights may be loaded into empty memory, which holds no filters yet."""
    module.init_non_persistent_buffers()
