"""MFSF2-NET for classification, with the methods that timm gives its models."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from ..heads.classification import ClassificationHead
from ..layers.dct import FrequencyPairs
from ..layers.pooling import resize_bilinear
from .encoder import MFSF2Encoder

__all__ = ["MFSF2Classifier"]

torch.fx.wrap("resize_bilinear")


class MFSF2Classifier(nn.Module):
    """MFSF2-NET classification network: encoder and head.

    With the default arguments the network that its authors publish.

    Args:
        num_classes: number of classes; 0 for a network that returns the head's hidden features ``(B, 1024)``.
        in_chans: channels of the image.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`; ``""``, with ``num_classes=0``, for the
            map ``(B, num_features, h, w)``.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth, in the transformer branch only.
        cnn, transformer: names of timm models with maps of strides 4, 8, 16 and 32.
        channels: channels C of the fused maps.
        pyramid_chans: channels A of each stage inside the pyramid.
        out_chans: channels O of the pyramid's output.
        head_hidden_size: width of the head's hidden layer.
        reduction, num_frequencies, frequencies, grid_size: as for :class:`~mfsf2.layers.MFFE`.
        pretrained_backbones: start both branches from timm's ImageNet weights, from the Hub.
        cache_dir: where these are kept.

    Shape: image ``(B, in_chans, H, W)``, H, W >= 29 for PVTv2 branches, to logits ``(B, num_classes)``.

    Raises:
        ValueError: unknown or unsuitable backbones, an image of wrong rank, channels or size, an empty batch, a batch
            of one in training mode.
        TypeError: unknown argument, an image that is not floating point.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        drop_path_rate: float = 0.1,
        cnn: str = "resnet50",
        transformer: str = "pvt_v2_b2",
        channels: int = 256,
        pyramid_chans: int = 256,
        out_chans: int = 512,
        head_hidden_size: int = 1024,
        reduction: int = 16,
        num_frequencies: int = 16,
        frequencies: str | FrequencyPairs = "top",
        grid_size: int = 7,
        pretrained_backbones: bool = False,
        cache_dir: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        # What rebuilds this architecture; the head's state is read from the head when the network is saved.
        self.model_args: dict[str, Any] = dict(
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            cnn=cnn,
            transformer=transformer,
            channels=channels,
            pyramid_chans=pyramid_chans,
            out_chans=out_chans,
            head_hidden_size=head_hidden_size,
            reduction=reduction,
            num_frequencies=num_frequencies,
            frequencies=frequencies,
            grid_size=grid_size,
        )
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.encoder = MFSF2Encoder(
            cnn,
            transformer,
            in_chans,
            channels,
            pyramid_chans,
            out_chans,
            reduction,
            num_frequencies,
            frequencies,
            grid_size,
            drop_path_rate,
            pretrained_backbones,
            cache_dir,
            device=device,
            dtype=dtype,
        )
        features = self.encoder.cnn_chans[-1] + self.encoder.transformer_chans[-1] + out_chans
        self.head = ClassificationHead(
            features, num_classes, head_hidden_size, global_pool, drop_rate, device=device, dtype=dtype
        )
        self.feature_info = [
            dict(num_chs=channels, reduction=4 * 2**i, module=f"encoder.fusion.stages.{i}")
            for i in range(self.encoder.num_stages)
        ]

    @property
    def num_features(self) -> int:
        """Channels of :meth:`forward_features`, times the pool's factor."""
        return self.head.num_features

    @property
    def head_hidden_size(self) -> int:
        """Width of what the classifier is given."""
        return self.head.hidden_size

    @property
    def global_pool(self) -> str:
        """Name of the head's pool."""
        return self.head.global_pool.pool_type

    @property
    def is_pruned(self) -> bool:
        """Whether :meth:`prune_intermediate_layers` has removed the pyramid and what lies above a fused map."""
        return self.encoder.fusion.pyramid is None

    def forward_features(self, x: Tensor) -> Tensor:
        """The head's input: CNN map, transformer map and pooled pyramid, ``(B, num_features, h, w)`` at stride 32.

        The pooled pyramid is the same at every position, so that the map's average holds it unchanged. A CNN map of
        another grid is resized to the transformer's. After pruning to F_i this is F_i.
        """
        cnn_maps, transformer_maps = self.encoder(x)
        if self.is_pruned:
            return self._fuse_stage(cnn_maps, transformer_maps, -1)
        _, pyramid = self.encoder.fusion(cnn_maps, transformer_maps)
        return _join(cnn_maps[-1], transformer_maps[-1], pyramid)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map of :meth:`forward_features` to logits, or with ``pre_logits`` to what the classifier is given."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        self.head.check_batch(x)
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
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
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r} is not offered: the fused maps are 'NCHW'")
        take = self._take_indices(indices)
        last = max(take)
        to_the_end = not (intermediates_only or (stop_early and last < self.encoder.num_stages - 1))
        cnn_maps, transformer_maps = self.encoder(x, None if to_the_end else last + 1)
        if not to_the_end or self.is_pruned:
            needed = {*take, len(cnn_maps) - 1}
            fused = {i: self._fuse_stage(cnn_maps, transformer_maps, i) for i in sorted(needed)}
            maps = [fused[i] for i in take]
            return maps if intermediates_only else (fused[len(cnn_maps) - 1], maps)
        all_fused, pyramid = self.encoder.fusion(cnn_maps, transformer_maps)
        return _join(cnn_maps[-1], transformer_maps[-1], pyramid), [all_fused[i] for i in take]

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the fused maps ``indices`` do not need.

        With the largest index i, the stages above it, the fusion of stages not asked for, the pyramid and the head's
        hidden layer go, and :meth:`forward_features` becomes F_i. The head is emptied; with ``prune_head=False`` it
        becomes a pool and a new classifier for F_i, or nothing changes where i is the last stage.

        Args:
            indices: as for :meth:`forward_intermediates`.
            prune_norm: no effect: a fused map's norm is part of it.
            prune_head: remove the head.

        Returns:
            The indices as positions from 0.
        """
        take = self._take_indices(indices)
        last = max(take)
        if not prune_head and last == self.encoder.num_stages - 1:
            return take
        self.encoder.prune(take)
        pool = self.global_pool if not prune_head else ""
        self.num_classes = 0 if prune_head else self.num_classes
        training, parameter = self.training, next(self.parameters())
        self.head = ClassificationHead(
            self.encoder.fusion.channels,
            self.num_classes,
            None,
            pool,
            self.drop_rate,
            device=parameter.device,
            dtype=parameter.dtype,
        ).train(training)
        return take

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new classifier; device, dtype, training mode and, with None, the pool stay as they are.

        On a network without a pool None means average pooling, unless ``num_classes`` is 0.
        """
        parameter = next(self.encoder.parameters())
        self.head.reset(num_classes, global_pool, device=parameter.device, dtype=parameter.dtype)
        self.num_classes = num_classes

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
        for module in self.head.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()

    def _take_indices(self, indices: int | Sequence[int] | None) -> list[int]:
        """Positions of the fused maps that ``indices`` names."""
        n, kept = self.encoder.num_stages, self.encoder.kept_stages
        if indices is None:
            return kept
        if isinstance(indices, int):
            if not 0 < indices <= n:
                raise ValueError(f"indices={indices}: ask for the last 1 to {n} maps")
            indices = range(n - indices, n)
        if not indices or not all(-n <= i < n for i in indices):
            raise ValueError(f"indices={list(indices)}: ask for at least one of the maps 0 to {n - 1}, or -{n} to -1")
        take = [i % n for i in indices]
        if not set(take) <= set(kept):
            raise ValueError(f"indices={list(indices)}: this network is pruned to the maps {kept}")
        return take

    def _fuse_stage(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor], index: int) -> Tensor:
        return self.encoder.fusion.stages[index](cnn_maps[index], transformer_maps[index])


def _join(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate two maps and a vector on the grid of the transformer map."""
    constant = pyramid.unsqueeze(2).unsqueeze(3).expand(-1, -1, transformer_map.shape[2], transformer_map.shape[3])
    return torch.cat([resize_bilinear(cnn_map, transformer_map), transformer_map, constant], dim=1)
