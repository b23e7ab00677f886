"""What the networks of every task share: the encoder, the fused maps, timm's methods."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .encoder import MFSF2Encoder

__all__ = ["LABEL_KEYS", "ImageNetwork", "MFSF2Network", "check_indices"]

LABEL_KEYS = ("label_names", "label_descriptions", "temperature")
"""Entries of a pretrained configuration that describe a trained classifier."""

Indices = int | Sequence[int] | None


def check_indices(indices: Any, n: int, name: str = "indices") -> None:
    """Check which of ``n`` maps are asked for: the last few, or a list of positions."""
    if isinstance(indices, int) and not isinstance(indices, bool):
        if not 0 < indices <= n:
            raise ValueError(f"{name}={indices}: ask for the last 1 to {n} maps")
        return
    if not isinstance(indices, Sequence) or not all(type(i) is int for i in indices):
        given = type(indices) if isinstance(indices, Tensor) else repr(indices)
        raise TypeError(f"{name}={given} must be an integer, for the last maps, or a list of integers, their positions")
    if not indices or not all(-n <= i < n for i in indices):
        raise ValueError(f"{name}={list(indices)}: ask for at least one of the maps 0 to {n - 1}, or -{n} to -1")


class MFSF2Network(nn.Module, ABC):
    """Encoder and, in subclasses, one or two heads.

    Attributes:
        encoder: the :class:`MFSF2Encoder`.
        in_chans: channels of the image.
        feature_info: channels, stride and module of each fused map, in timm's form.
    """

    architecture: ClassVar[str]
    """Name under which the registry builds this class."""

    head_names: ClassVar[tuple[str, ...]]
    """The modules of this class that are heads, the one that ``num_classes`` belongs to first."""

    HEAD_LAYERS: ClassVar[dict[str, str]] = {"head": r"fc", "mask_head": r"coarse|steps\.\d+\.out"}
    """Modules that are heads in any network, and a pattern of those layers in them that have an output a class."""

    def __init__(self, encoder: MFSF2Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.in_chans = encoder.in_chans
        self.feature_info = [
            dict(num_chs=encoder.fusion.channels, reduction=4 * 2**i, module=f"encoder.fusion.stages.{i}")
            for i in range(encoder.num_stages)
        ]

    @property
    @abstractmethod
    def model_args(self) -> dict[str, Any]:
        """Arguments that rebuild this network, all but ``num_classes``."""

    @property
    def is_pruned(self) -> bool:
        """Whether :meth:`prune_intermediate_layers` has removed the pyramid and what lies above a fused map."""
        return self.encoder.fusion.pyramid is None

    @abstractmethod
    def example_inputs(self) -> dict[str, Tensor]:
        """Random inputs by name, of the network's device and dtype."""

    @abstractmethod
    def _features(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What ``forward_features`` returns, and the fused maps F_1..F_4."""

    @abstractmethod
    def _empty_heads(self, keep_classifier: bool) -> None:
        """Take the heads out, or leave a classifier on the last fused map."""

    def _encode(self, *inputs: Tensor) -> Tensor:
        """What ``forward_features`` returns, for the encoder's inputs."""
        cnn_maps, transformer_maps = self.encoder(*inputs)
        if self.is_pruned:
            return self._fuse_stage(cnn_maps, transformer_maps, -1)
        return self._features(cnn_maps, transformer_maps)[0]

    def _intermediates(
        self, inputs: tuple[Tensor, ...], indices: Indices, stop_early: bool, output_fmt: str, intermediates_only: bool
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """``forward_intermediates`` for the encoder's inputs."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r} is not offered: the fused maps are 'NCHW'")
        take = self._take_indices(indices)
        last = max(take)
        to_the_end = not (intermediates_only or (stop_early and last < self.encoder.num_stages - 1))
        cnn_maps, transformer_maps = self.encoder(*inputs, num_stages=None if to_the_end else last + 1)
        if not to_the_end or self.is_pruned:
            needed = {*take, len(cnn_maps) - 1}
            fused = {i: self._fuse_stage(cnn_maps, transformer_maps, i) for i in sorted(needed)}
            maps = [fused[i] for i in take]
            return maps if intermediates_only else (fused[len(cnn_maps) - 1], maps)
        features, all_fused = self._features(cnn_maps, transformer_maps)
        return features, [all_fused[i] for i in take]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the fused maps ``indices`` do not need.

        With the largest index i, the stages above it, the fusion of stages not asked for, the pyramid and the heads go,
        and ``forward_features`` becomes F_i. With ``prune_head=False`` a pool and a new classifier for F_i take the
        head's place, or nothing changes where i is the last stage.

        Args:
            indices: as for ``forward_intermediates``.
            prune_norm: no effect: a fused map's norm is part of it.
            prune_head: remove the heads.

        Returns:
            The indices as positions from 0.

        Raises:
            ValueError: indices that are not there; ``prune_head=False`` below the last stage where a head of masks
                would be left without its maps.
        """
        take = self._take_indices(indices)
        if not prune_head and max(take) == self.encoder.num_stages - 1:
            return take
        if not prune_head and "mask_head" in self.head_names:
            raise ValueError(
                f"indices={take} with prune_head=False: the head of masks reads every fused map and the pyramid; use "
                "prune_head=True, or keep the last stage"
            )
        self.encoder.prune(take)
        self._empty_heads(keep_classifier=not prune_head)
        return take

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the branches' blocks in the backward pass: less memory, the same outputs and gradients."""
        self.encoder.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth, for timm's layer-wise learning-rate decay."""
        return self.encoder.group_matcher(coarse, prefix="encoder.")

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to spare from weight decay."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def init_weights(self) -> None:
        """Draw all weights afresh; also what makes a network usable after ``to_empty`` on a real device."""
        self.encoder.init_weights()
        for name, child in self.named_children():
            if name == "encoder":
                continue
            for module in child.modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    reset()

    def _forget_labels(self) -> None:
        """Take the classes' names out of the configuration: a new classifier's outputs have none yet."""
        cfg: dict[str, Any] = getattr(self, "pretrained_cfg", {})
        for key in LABEL_KEYS:
            cfg.pop(key, None)

    def _placement(self) -> dict[str, Any]:
        """Device and dtype of the weights."""
        parameter = next(self.encoder.parameters())
        return dict(device=parameter.device, dtype=parameter.dtype)

    def _take_indices(self, indices: Indices) -> list[int]:
        """Positions of the fused maps that ``indices`` names."""
        n, kept = self.encoder.num_stages, self.encoder.kept_stages
        if indices is None:
            return kept
        check_indices(indices, n)
        if isinstance(indices, int):
            indices = range(n - indices, n)
        take = [i % n for i in indices]
        if not set(take) <= set(kept):
            raise ValueError(f"indices={list(indices)}: this network is pruned to the maps {kept}")
        return take

    def _fuse_stage(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor], index: int) -> Tensor:
        return self.encoder.fusion.stages[index](cnn_maps[index], transformer_maps[index])


class ImageNetwork(MFSF2Network):
    """A network of one image."""

    def forward_features(self, x: Tensor) -> Tensor:
        """The heads' map ``(B, num_features, h, w)`` at stride 32; after pruning to F_i, F_i."""
        return self._encode(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The fused maps F_1..F_4, and what :meth:`forward_features` returns.

        Args:
            x: image.
            indices: which maps: the last n for an integer, all for None, else positions from 0, or negative ones.
            norm: no effect: the fused maps end in a batch norm and a ReLU.
            stop_early: leave out all above the last map wanted; that map is then returned as the features.
            output_fmt: ``"NCHW"``.
            intermediates_only: return the list of maps alone.
        """
        return self._intermediates((x,), indices, stop_early, output_fmt, intermediates_only)

    def example_inputs(self) -> dict[str, Tensor]:
        """Two random images, of the network's device and dtype."""
        return {"image": torch.randn(2, self.in_chans, 224, 192, **self._placement())}
