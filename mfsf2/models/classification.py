"""MFSF2-NET for classification, with the methods that timm gives its models."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

from ..heads.classification import ClassificationHead
from ..layers.checks import check_integer
from ..layers.pooling import resize_bilinear
from .base import ImageNetwork, MFSF2Network
from .encoder import MFSF2Encoder

__all__ = ["ClassifierMethods", "MFSF2Classifier", "join_pooled"]

torch.fx.wrap("resize_bilinear")


def join_pooled(cnn_map: Tensor, transformer_map: Tensor, pyramid: Tensor) -> Tensor:
    """Concatenate two maps and a vector on the grid of the transformer map."""
    constant = pyramid.unsqueeze(2).unsqueeze(3).expand(-1, -1, transformer_map.shape[2], transformer_map.shape[3])
    return torch.cat([resize_bilinear(cnn_map, transformer_map), transformer_map, constant], dim=1)


class ClassifierMethods(MFSF2Network):
    """A network with a head of classes, and timm's methods around it.

    Its features are the CNN map, the transformer map and the pooled pyramid.
    """

    head: ClassificationHead
    num_classes: int

    def _add_classifier(
        self,
        num_classes: int,
        global_pool: str,
        drop_rate: float,
        head_hidden_size: int,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        if head_hidden_size is not None:
            check_integer(head_hidden_size, "head_hidden_size")
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.head = ClassificationHead(
            self.encoder.num_features,
            num_classes,
            head_hidden_size,
            global_pool,
            drop_rate,
            device=device,
            dtype=dtype,
        )

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments that rebuild this network, all but ``num_classes``."""
        return dict(
            self.encoder.model_args,
            global_pool=self.global_pool,
            drop_rate=self.drop_rate,
            head_hidden_size=self.head.hidden_features,
        )

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

    def _features(self, cnn_maps: list[Tensor], transformer_maps: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        fused, pyramid = self.encoder.fusion(cnn_maps, transformer_maps)
        return join_pooled(cnn_maps[-1], transformer_maps[-1], pyramid), fused

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map of ``forward_features`` to logits, or with ``pre_logits`` to what the classifier is given."""
        return self.head(x, pre_logits=pre_logits)

    def get_classifier(self) -> nn.Module:
        """The last linear layer."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new classifier; device, dtype, training mode and, with None, the pool stay as they are.

        On a network without a pool None means average pooling, unless ``num_classes`` is 0. ``label_names`` leave
        ``pretrained_cfg``, as the old classes' names are none of the new ones'.
        """
        self.head.reset(num_classes, global_pool, **self._placement())
        self.num_classes = num_classes
        self._forget_labels()

    def _empty_heads(self, keep_classifier: bool) -> None:
        pool = self.global_pool if keep_classifier else ""
        self.num_classes = self.num_classes if keep_classifier else 0
        channels = self.encoder.fusion.channels
        head = ClassificationHead(channels, self.num_classes, None, pool, self.drop_rate, **self._placement())
        self.head = head.train(self.training)


class MFSF2Classifier(ClassifierMethods, ImageNetwork):
    """MFSF2-NET classification network: encoder and head.

    With the default arguments the network that its authors publish.

    Args:
        num_classes: number of classes; 0 for a network that returns the head's hidden features ``(B, 1024)``.
        in_chans: channels of the image.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`; ``""``, with ``num_classes=0``, for the
            map ``(B, num_features, h, w)``.
        drop_rate: dropout before the classifier.
        head_hidden_size: width of the head's hidden layer.
        **encoder_args: arguments of :class:`MFSF2Encoder`: ``drop_path_rate``, ``cnn``, ``transformer``, ``channels``,
            ``pretrained_backbones``, ...

    Shape: image ``(B, in_chans, H, W)``, H, W >= 29 for PVTv2 branches, to logits ``(B, num_classes)``.

    Raises:
        ValueError: unknown or unsuitable backbones, an image of wrong rank, channels or size, an empty batch, a batch
            of one in training mode.
        TypeError: unknown argument, an image that is not floating point.
    """

    architecture = "mfsf2_cls"
    head_names = ("head",)

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        head_hidden_size: int = 1024,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        super().__init__(MFSF2Encoder(in_chans=in_chans, device=device, dtype=dtype, **encoder_args))
        self._add_classifier(num_classes, global_pool, drop_rate, head_hidden_size, device, dtype)

    def forward_features(self, x: Tensor) -> Tensor:
        """The head's input: CNN map, transformer map and pooled pyramid, ``(B, num_features, h, w)`` at stride 32.

        The pooled pyramid is the same at every position, so that the map's average holds it unchanged. A CNN map of
        another grid is resized to the transformer's. After pruning to F_i this is F_i.
        """
        return self._encode(x)

    def forward(self, x: Tensor) -> Tensor:
        self.head.check_batch(x)
        return self.forward_head(self.forward_features(x))
