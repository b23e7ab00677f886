"""Multi-frequency feature extraction: channel attention on statistics of DCT-filtered features."""

from collections.abc import Callable
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from .checks import check_integer, check_map
from .dct import FrequencyPairs, dct_filter_bank, dct_frequencies
from .pooling import adaptive_avg_pool
from .statistics import statistics

__all__ = ["MFFE"]

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
    2024). A fresh gate is near 0.5, which a network trained without it does not survive. ``identity=True`` is for such
    networks, see :func:`mfsf2.add_mffe`: the gate is ``2 * sigmoid(logits)`` and W2 starts at zero, so that the block
    starts as the identity and learns from the first step.

    The block can be the ``attn_layer`` or ``se_layer`` of timm's models, which pass the arguments ``rd_*`` and
    ``act_layer``. Those models may draw its weights anew, after which it is no longer the identity.

    Under ``torch.autocast``, matrix products run in the lower precision, all else in the dtype of the map, which is
    also that of the result. With ``torch.use_deterministic_algorithms``, all operations are deterministic on CUDA too.

    Args:
        channels: channels C of the map.
        reduction: bottleneck ratio; W1 maps C to ``C // reduction`` channels, at least one.
        num_frequencies: number K of filters to take from the table: 1, 2, 4, 8, 16 or 32.
        frequencies: the table, ``"top"``, ``"low"`` or ``"bot"``, or your own ``(u, v)`` pairs on a 7x7 grid.
        grid_size: height and width G of the grid, at least 7.
        identity: start as the identity.
        data_format: ``"NCHW"``, or ``"NHWC"`` for maps with channels last.
        rd_ratio: timm's form of ``1 / reduction``, which it replaces.
        rd_channels: width of the bottleneck, instead of a ratio.
        rd_divisor: round the width of a ratio to a multiple.
        act_layer: activation of the bottleneck.
        bias: whether W1 and W2 have biases, which start at zero; None for biases with ``rd_ratio`` only, because the
            EfficientNets of timm, which pass it, initialize biases.

    Shape: ``(B, C, H, W)`` to the same, for any H, W >= 1; with ``"NHWC"``, ``(B, H, W, C)``.

    Raises:
        ValueError: G < 7, a K or a data format that is not allowed, or an input of the wrong shape.

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
        identity: bool = False,
        data_format: str = "NCHW",
        rd_ratio: float | None = None,
        rd_channels: int | None = None,
        rd_divisor: int = 1,
        act_layer: Callable[[], nn.Module] = nn.ReLU,
        bias: bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if data_format not in ("NCHW", "NHWC"):
            raise ValueError(f"data_format={data_format!r}: use 'NCHW' or 'NHWC'")
        if not callable(act_layer):
            raise TypeError(f"act_layer={act_layer!r}: pass a class, such as torch.nn.ReLU")
        self.channels = check_integer(channels, "channels")
        self.grid_size = grid_size
        self.identity = identity
        self.data_format = data_format
        self.frequencies = dct_frequencies(frequencies, num_frequencies)
        hidden = _hidden_channels(channels, reduction, rd_ratio, rd_channels, rd_divisor)
        bias = rd_ratio is not None if bias is None else bias
        self.fc1 = nn.Linear(channels, hidden, bias=bias, device=device, dtype=dtype)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden, channels, bias=bias, device=device, dtype=dtype)
        self._set_first_values()
        bank = torch.empty(len(self.frequencies), grid_size**2, device=device, dtype=dtype)
        self.bank: Tensor
        self.register_buffer("bank", bank, persistent=False)
        self.init_non_persistent_buffers()
        self.register_load_state_dict_post_hook(_fill_bank)  # type: ignore[no-untyped-call]

    def _set_first_values(self) -> None:
        """What torch's layers start differently."""
        if self.identity:
            nn.init.zeros_(self.fc2.weight)
        for bias in (self.fc1.bias, self.fc2.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def reset_parameters(self) -> None:
        """Reset the weights, and compute the filters again."""
        self.fc1.reset_parameters()
        self.fc2.reset_parameters()
        self._set_first_values()
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
        is_last = self.data_format == "NHWC"
        check_map(x, self.channels, channels_last=is_last)
        if self.bank.is_meta:
            # accelerate's loaders set weights one by one, without load_state_dict.
            self.init_non_persistent_buffers()
        pooled = adaptive_avg_pool(x.permute(0, 3, 1, 2) if is_last else x, self.grid_size)
        # Each branch through the same bottleneck, whose last layer is linear.
        return self.fc2(self.act(self.fc1(statistics(pooled, self.bank))).sum(1))

    def gate(self, x: Tensor) -> Tensor:
        """The factor of each channel, ``(B, C)``."""
        gate = self.logits(x).sigmoid()
        return 2 * gate if self.identity else gate

    def forward(self, x: Tensor) -> Tensor:
        # Autocast on CUDA sums in float32.
        gate = self.gate(x).type_as(x)
        if self.data_format == "NHWC":
            return x * gate.unsqueeze(1).unsqueeze(2)
        return x * gate.unsqueeze(2).unsqueeze(3)

    def extra_repr(self) -> str:
        text = f"{self.channels}, grid_size={self.grid_size}, num_frequencies={len(self.frequencies)}"
        text += ", identity=True" if self.identity else ""
        return text if self.data_format == "NCHW" else f"{text}, data_format={self.data_format!r}"


def _hidden_channels(
    channels: int, reduction: int, rd_ratio: float | None, rd_channels: int | None, rd_divisor: int
) -> int:
    """Width of the bottleneck, which timm's models give in more than one way."""
    if rd_channels is not None:
        return check_integer(rd_channels, "rd_channels")
    divisor = check_integer(rd_divisor, "rd_divisor")
    if rd_ratio is None:
        hidden = channels // check_integer(reduction, "reduction")
    elif rd_ratio > 0:
        hidden = int(channels * rd_ratio)
    else:
        raise ValueError(f"rd_ratio={rd_ratio} must be positive")
    return max(divisor, (hidden + divisor // 2) // divisor * divisor)


def _fill_bank(module: Any, _incompatible_keys: Any) -> None:
    """Hook of ``load_state_dict``: weights may be loaded into empty memory, which holds no filters yet."""
    module.init_non_persistent_buffers()
