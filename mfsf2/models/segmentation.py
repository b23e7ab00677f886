"""MFSF2-NET for segmentation, alone and together with classification. The decoder is a reconstruction."""

from typing import Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn

from ..heads.segmentation import SegmentationHead, check_mask_classes
from ..layers.checks import check_rate
from ..layers.pooling import resize_bilinear, upsample_to
from .base import ImageNetwork
from .classification import ClassifierMethods, join_pooled
from .encoder import MFSF2Encoder

__all__ = ["DeepPredictions", "MFSF2ClassifierSegmenter", "MFSF2Segmenter", "Predictions"]

torch.fx.wrap("resize_bilinear")
torch.fx.wrap("upsample_to")


class Predictions(NamedTuple):
    """What a network of both tasks returns."""

    logits: Tensor
    """Logits of the classes, ``(B, num_classes)``."""

    masks: Tensor
    """Logits of the masks, ``(B, mask_classes, H, W)`` at the image's size."""


class DeepPredictions(NamedTuple):
    """What a network of both tasks returns for deep supervision."""

    logits: Tensor
    """Logits of the classes, ``(B, num_classes)``."""

    masks: list[Tensor]
    """Five maps of mask logits ``(B, mask_classes, h, w)``, coarse to fine."""


def join_maps(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate three maps on the grid of the transformer map."""
    return torch.cat(
        [resize_bilinear(cnn_map, transformer_map), transformer_map, upsample_to(pyramid, transformer_map)], dim=1
    )


class MaskMethods(ImageNetwork):
    """A network with a head of masks.

    The head's bottleneck reads the CNN map, the transformer map and the pyramid's map, its four steps F_4 to F_1.
    """

    mask_head: SegmentationHead | nn.Identity

    def _new_mask_head(
        self, mask_classes: int, drop_rate: float, device: torch.device | str | None, dtype: torch.dtype | None
    ) -> SegmentationHead:
        fusion = self.encoder.fusion
        in_chans = [fusion.channels] * self.encoder.num_stages + [self.encoder.num_features]
        return SegmentationHead(in_chans, mask_classes, drop_rate=drop_rate, device=device, dtype=dtype)

    def _unpruned_mask_head(self) -> SegmentationHead:
        if isinstance(self.mask_head, nn.Identity):
            raise ValueError("this network is pruned, its head of masks is gone: build the network anew")
        return self.mask_head

    def _all_maps(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """CNN map, transformer map and pyramid map at stride 32 or near it, and the fused maps F_1..F_4."""
        self._unpruned_mask_head()
        cnn_maps, transformer_maps = self.encoder(x)
        fused, pyramid = self.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
        return cnn_maps[-1], transformer_maps[-1], pyramid, fused

    def _deep_logits(
        self, cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor, fused: list[Tensor]
    ) -> list[Tensor]:
        return self._unpruned_mask_head().deep_logits([*fused, join_maps(cnn_map, transformer_map, pyramid)])


class MFSF2Segmenter(MaskMethods):
    """MFSF2-NET segmentation network: encoder and decoder. A reconstruction, see :class:`SegmentationHead`.

    Args:
        num_classes: channels of the masks: 1 for a foreground against the background (sigmoid), more for several
            classes of which channel 0 is the background (softmax).
        in_chans: channels of the image.
        drop_rate: dropout of whole channels of the decoder's bottleneck.
        **encoder_args: arguments of :class:`MFSF2Encoder`: ``drop_path_rate``, ``cnn``, ``transformer``, ``channels``,
            ``pretrained_backbones``, ...

    Shape: image ``(B, in_chans, H, W)``, H, W >= 29 for PVTv2 branches, to logits ``(B, num_classes, H, W)``.

    Raises:
        ValueError: no classes, unknown or unsuitable backbones, an image of wrong rank, channels or size, an empty
            batch.
        TypeError: unknown argument, an image that is not floating point.
    """

    architecture = "mfsf2_seg"
    head_names = ("mask_head",)

    def __init__(
        self,
        num_classes: int = 1,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        super().__init__(MFSF2Encoder(in_chans=in_chans, device=device, dtype=dtype, **encoder_args))
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.mask_head = self._new_mask_head(num_classes, drop_rate, device, dtype)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments that rebuild this network, all but ``num_classes``."""
        return dict(self.encoder.model_args, drop_rate=self.drop_rate)

    @property
    def num_features(self) -> int:
        """Channels of :meth:`forward_features`."""
        return self.encoder.fusion.channels if self.is_pruned else self.encoder.num_features

    def _features(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fused, pyramid = self.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
        return join_maps(cnn_maps[-1], transformer_maps[-1], pyramid), fused

    def forward_features(self, x: Tensor) -> Tensor:
        """The decoder's bottleneck input: CNN map, transformer map and the pyramid's map at stride 32.

        ``(B, num_features, h, w)``, on the transformer's grid. After pruning to F_i this is F_i.
        """
        return self._encode(x)

    def deep_logits(self, x: Tensor) -> list[Tensor]:
        """The five logit maps for deep supervision, coarse to fine: strides 32, 32, 16, 8 and 4.

        The last one, resized to the image, is what :meth:`forward` returns.
        """
        return self._deep_logits(*self._all_maps(x))

    def forward(self, x: Tensor) -> Tensor:
        if self.is_pruned:
            return self.forward_features(x)
        return upsample_to(self.deep_logits(x)[-1], x)

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The layers of logits, coarse to fine: five 1x1 convolutions."""
        head = self._unpruned_mask_head()
        return (head.coarse, *(step.out for step in head.steps))  # type: ignore[arg-type]

    def reset_classifier(self, num_classes: int) -> None:
        """Put in new layers of logits for another number of mask classes; all else stays as it is.

        ``label_names`` leave ``pretrained_cfg``, as the old classes' names are none of the new ones'.
        """
        self._unpruned_mask_head().reset(num_classes, **self._placement())
        self.num_classes = num_classes
        self._forget_labels()

    def _empty_heads(self, keep_classifier: bool) -> None:
        self.num_classes = 0
        self.mask_head = nn.Identity()


class MFSF2ClassifierSegmenter(ClassifierMethods, MaskMethods):
    """MFSF2-NET for classification and segmentation at once: one encoder, both heads.

    The head of masks is a reconstruction, see :class:`SegmentationHead`. Checkpoints of this network load into
    :class:`MFSF2Classifier` and :class:`MFSF2Segmenter`, which then compute the same.

    Args:
        num_classes: number of classes; 0 for the head's hidden features in place of class logits.
        in_chans: channels of the image.
        mask_classes: channels of the masks, as ``num_classes`` of :class:`MFSF2Segmenter`.
        global_pool, drop_rate, head_hidden_size: as for :class:`MFSF2Classifier`.
        mask_drop_rate: as ``drop_rate`` of :class:`MFSF2Segmenter`.
        **encoder_args: arguments of :class:`MFSF2Encoder`.

    Shape: image ``(B, in_chans, H, W)`` to a named tuple of ``logits`` ``(B, num_classes)`` and ``masks``
    ``(B, mask_classes, H, W)``. A network pruned by :meth:`prune_intermediate_layers` returns what its head of classes
    does.
    """

    architecture = "mfsf2_clsseg"
    head_names = ("head", "mask_head")

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 3,
        mask_classes: int = 1,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        head_hidden_size: int = 1024,
        mask_drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        check_mask_classes(mask_classes, "mask_classes")
        check_rate(mask_drop_rate, "mask_drop_rate")
        super().__init__(MFSF2Encoder(in_chans=in_chans, device=device, dtype=dtype, **encoder_args))
        self.mask_classes = mask_classes
        self.mask_drop_rate = mask_drop_rate
        self._add_classifier(num_classes, global_pool, drop_rate, head_hidden_size, device, dtype)
        self.mask_head = self._new_mask_head(mask_classes, mask_drop_rate, device, dtype)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments that rebuild this network, all but ``num_classes``."""
        return dict(super().model_args, mask_classes=self.mask_classes, mask_drop_rate=self.mask_drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        """The input of the head of classes, as :meth:`MFSF2Classifier.forward_features` returns it."""
        return self._encode(x)

    def forward_logits(self, x: Tensor) -> Tensor:
        """Logits of the classes alone; neither the pyramid's map nor the head of masks is computed."""
        self.head.check_batch(x)
        return self.forward_head(self.forward_features(x))

    def forward_masks(self, x: Tensor) -> Tensor:
        """Logits of the masks alone, at the image's size; the head of classes is not computed."""
        return upsample_to(self._deep_logits(*self._all_maps(x))[-1], x)

    def forward_deep(self, x: Tensor) -> DeepPredictions:
        """Logits of the classes, and the five maps of mask logits for deep supervision, coarse to fine.

        Their strides are 32, 32, 16, 8 and 4; the last one, resized to the image, is what :meth:`forward` returns.
        """
        self.head.check_batch(x)
        cnn_map, transformer_map, pyramid, fused = self._all_maps(x)
        # The average of the pyramid's map is its pooled vector, so one pyramid serves both heads.
        features = join_pooled(cnn_map, transformer_map, pyramid.mean((2, 3)))
        return DeepPredictions(self.forward_head(features), self._deep_logits(cnn_map, transformer_map, pyramid, fused))

    def forward(self, x: Tensor) -> Predictions | Tensor:
        if self.is_pruned:
            return self.forward_logits(x)
        logits, masks = self.forward_deep(x)
        return Predictions(logits, upsample_to(masks[-1], x))

    def reset_masks(self, mask_classes: int) -> None:
        """Put in new layers of mask logits for another number of mask classes; all else stays as it is."""
        check_mask_classes(mask_classes, "mask_classes")
        self._unpruned_mask_head().reset(mask_classes, **self._placement())
        self.mask_classes = mask_classes

    def _empty_heads(self, keep_classifier: bool) -> None:
        super()._empty_heads(keep_classifier)
        self.mask_head = nn.Identity()
