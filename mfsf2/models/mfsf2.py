"""MFSF2-NET: an encoder with a classification head, a segmentation head or both, and the methods of timm's models."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..heads.classification import ClassificationHead
from ..heads.segmentation import SegmentationHead
from ..layers.checks import check_integer
from . import outputs
from .encoder import Indices, MFSF2Encoder, reset_modules
from .outputs import Outputs

__all__ = ["LABEL_KEYS", "MFSF2"]

LABEL_KEYS = ("label_names", "label_descriptions", "temperature")
"""Entries of a pretrained configuration that describe a trained classifier."""


class MFSF2(nn.Module):
    """MFSF2-NET: an encoder with a classification head (``head``), a segmentation head (``mask_head``), or both.

    The default arguments give the classification model that the authors publish. The segmentation head is a
    reconstruction, see :class:`SegmentationHead`. Checkpoints of a model with both heads load into a model with one.

    ``num_classes``, ``get_classifier`` and ``reset_classifier`` refer to the classification head or, in a model without
    one, to the segmentation head.

    Args:
        num_classes: number of classes; 0 for the hidden features ``(B, 1024)`` instead of logits; None for no
            classification head.
        mask_classes: channels of the masks: 1 for foreground against background (sigmoid), more for several classes, of
            which channel 0 is the background (softmax); None for no segmentation head.
        in_chans: channels of the image.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`; ``""``, with ``num_classes=0``, for the
            map ``(B, num_features, h, w)``.
        drop_rate: dropout before the classifier.
        head_hidden_size: width of the hidden layer of the classification head; None for no hidden layer.
        mask_drop_rate: channel dropout of the bottleneck of the segmentation head.
        **encoder_args: arguments of :class:`MFSF2Encoder`: ``drop_path_rate``, ``cnn``, ``transformer``, ``channels``,
            ``pretrained_backbones``, ...

    Attributes:
        encoder: the :class:`MFSF2Encoder`.
        head: the :class:`ClassificationHead` or None.
        mask_head: the :class:`SegmentationHead` or None.
        in_chans: channels of the image.
        feature_info: channels, stride and module of each fused map, in timm's form.

    Shape: image ``(B, in_chans, H, W)``, with H, W >= 29 for PVTv2 branches, to logits ``(B, num_classes)`` or to mask
    logits ``(B, mask_classes, H, W)``; with both heads to :class:`Outputs`. After :meth:`prune_intermediate_layers`, to
    what the pruned classification head returns or, without one, to the last fused map.

    Raises:
        ValueError: no head at all, no mask channels, an argument or a method of a missing head, an unknown or
            unsuitable backbone, an image of the wrong shape or size, an empty batch, or too few samples for batch norm.
        TypeError: an unknown argument, or an image that is not floating point.
        AttributeError: a property of a missing head: ``global_pool`` and ``head_hidden_size`` of ``head``,
            ``mask_classes`` of ``mask_head``.
    """

    family: ClassVar[str] = "mfsf2"
    """Prefix of this class's names in the registry."""

    def __init__(
        self,
        num_classes: int | None = 7,
        mask_classes: int | None = None,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        head_hidden_size: int | None = 1024,
        mask_drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        if num_classes is None and mask_classes is None:
            raise ValueError("num_classes and mask_classes are both None: pass at least one, or use MFSF2Encoder")
        if num_classes is None and (global_pool, drop_rate, head_hidden_size) != ("avg", 0.3, 1024):
            raise ValueError(
                "global_pool, drop_rate and head_hidden_size belong to the classification head: pass num_classes"
            )
        if mask_classes is None and mask_drop_rate:
            raise ValueError(f"mask_drop_rate={mask_drop_rate} belongs to the segmentation head: pass mask_classes")
        # Before the backbones are built, and by the name of the argument.
        if num_classes is not None:
            check_integer(num_classes, "num_classes", 0)
        if mask_classes is not None:
            check_integer(mask_classes, "mask_classes")
        super().__init__()
        dd: dict[str, Any] = dict(device=device, dtype=dtype)
        self.encoder = encoder = MFSF2Encoder(in_chans=in_chans, **dd, **encoder_args)
        self.in_chans = encoder.in_chans
        channels, stages = encoder.fusion.channels, encoder.num_stages
        self.feature_info = [
            dict(num_chs=channels, reduction=4 * 2**i, module=f"encoder.fusion.stages.{i}") for i in range(stages)
        ]
        self.head: ClassificationHead | None = None
        self.mask_head: SegmentationHead | None = None
        if num_classes is not None:
            self.head = ClassificationHead(
                encoder.num_features, num_classes, head_hidden_size, global_pool, drop_rate, **dd
            )
        if mask_classes is not None:
            in_maps = [*[channels] * stages, encoder.num_features]
            self.mask_head = SegmentationHead(in_maps, mask_classes, drop_rate=mask_drop_rate, **dd)
        # Of the first head, like num_classes.
        self.drop_rate = mask_drop_rate if num_classes is None else drop_rate
        self.mask_drop_rate = mask_drop_rate
        self.architecture = f"{self.family}_{'cls' * (num_classes is not None)}{'seg' * (mask_classes is not None)}"

    def __getattr__(self, name: str) -> Any:
        # Python calls this after a property has raised an AttributeError too, and torch would hide its message.
        declared = getattr(type(self), name, None)
        if isinstance(declared, property) and declared.fget is not None:
            return declared.fget(self)
        return super().__getattr__(name)

    @property
    def heads(self) -> dict[str, ClassificationHead | SegmentationHead | None]:
        """Both heads by name, None for a missing one."""
        return {"head": self.head, "mask_head": self.mask_head}

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of :func:`create_model` that rebuild this model, except ``num_classes``."""
        args = dict(self.encoder.model_args, drop_rate=self.drop_rate)
        if self.head is not None:
            args.update(global_pool=self.global_pool, head_hidden_size=self.head.hidden_size)
            if self.mask_head is not None:
                args.update(mask_classes=self.mask_classes, mask_drop_rate=self.mask_drop_rate)
        return args

    @property
    def num_classes(self) -> int:
        """Number of classes; in a model without a classification head, channels of the masks."""
        head = self.mask_head if self.head is None else self.head
        return 0 if head is None else head.num_classes

    @property
    def mask_classes(self) -> int:
        """Channels of the masks."""
        return self.require_head("mask_head", AttributeError).num_classes

    @property
    def num_features(self) -> int:
        """Channels of :meth:`forward_features`, times 2 if the head's pool concatenates."""
        if self.head is not None:
            return self.head.num_features
        return self.encoder.fusion.channels if self.is_pruned else self.encoder.num_features

    @property
    def head_hidden_size(self) -> int:
        """Width of the classifier's input."""
        head = self.require_head("head", AttributeError)
        return head.hidden_size or head.num_features

    @property
    def global_pool(self) -> str:
        """Name of the head's pool."""
        return self.require_head("head", AttributeError).global_pool.pool_type

    @property
    def is_pruned(self) -> bool:
        """Whether :meth:`prune_intermediate_layers` has removed the pyramid and everything above a fused map."""
        return self.encoder.fusion.pyramid is None

    def forward(self, x: Tensor) -> Tensor | Outputs:
        return outputs.predict(self, (x,))

    def forward_features(self, x: Tensor) -> Tensor:
        """CNN map, transformer map and pyramid, concatenated on the transformer's grid: ``(B, num_features, h, w)``.

        This is the input of the classification head: the pyramid is its mean, the same at every position, so a mean
        over the map keeps it. In a model without that head it is the bottleneck input of the segmentation head, with
        the pyramid's map. After pruning to F_i, it is F_i.
        """
        return outputs.encode(self, (x,))

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
            indices: which maps: the last n for an integer, all for None, else their positions, which may be negative.
            norm: no effect, because the fused maps end in a batch norm and a ReLU.
            stop_early: skip everything above the last of these maps, and return that map as the features.
            output_fmt: ``"NCHW"``.
            intermediates_only: return the list of maps only.
        """
        return outputs.intermediates(self, (x,), indices, stop_early, output_fmt, intermediates_only)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map of :meth:`forward_features` to logits; with ``pre_logits``, to the classifier's input."""
        head = self.require_head("head")
        # As in timm, so that nn.Identity may take the head's place.
        return head(x, pre_logits=True) if pre_logits else head(x)

    def forward_logits(self, x: Tensor) -> Tensor:
        """Class logits only, without computing the pyramid's map or the segmentation head."""
        return outputs.classify(self, (x,))

    def forward_masks(self, x: Tensor) -> Tensor:
        """Mask logits only, at the size of the image, without computing the classification head."""
        return outputs.segment(self, (x,))

    def forward_deep(self, x: Tensor) -> Outputs:
        """For deep supervision: class logits, if any, and five maps of mask logits, coarse to fine.

        Their strides are 32, 32, 16, 8 and 4. :meth:`forward` returns the last one, resized to the image.
        """
        return outputs.predict_deep(self, (x,))

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """The last linear layer; without a classification head, the layers of mask logits, coarse to fine."""
        if self.head is not None:
            return self.head.fc
        head = self.require_head("mask_head")
        return tuple(head.get_submodule(name) for name in head.classifier_names)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier, and with another ``global_pool`` the pool; keep device, dtype and training mode.

        In a model without a pool, None means average pooling unless ``num_classes`` is 0. Without a classification
        head, the layers of mask logits are replaced, and ``global_pool`` must be None. The class names in
        ``pretrained_cfg`` are removed, because they do not belong to the new classes.
        """
        if global_pool is not None or self.head is not None:
            self.require_head("head").reset(num_classes, global_pool, **self.encoder.placement)
        else:
            self.require_head("mask_head").reset(num_classes, **self.encoder.placement)
        self._forget_labels()

    def reset_masks(self, mask_classes: int) -> None:
        """Replace the layers of mask logits, for another number of mask classes."""
        head = self.require_head("mask_head")
        head.reset(check_integer(mask_classes, "mask_classes"), **self.encoder.placement)
        if self.head is None:
            self._forget_labels()

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove everything that the fused maps ``indices`` do not need.

        Let i be the largest index. The stages above i, the fusion of other stages, the pyramid and the heads are
        removed, and ``forward_features`` returns F_i. With ``prune_head=False``, a pool and a new classifier for F_i
        replace the head; if i is the last stage, nothing changes.

        Args:
            indices: as for ``forward_intermediates``.
            prune_norm: no effect, because the norm of a fused map is part of it.
            prune_head: remove the heads.

        Returns:
            The indices as positions from 0.

        Raises:
            ValueError: indices out of range, or ``prune_head=False`` below the last stage in a model with a
                segmentation head, which needs every map.
        """
        take = self.encoder.take_indices(indices)
        if not prune_head and max(take) == self.encoder.num_stages - 1:
            return take
        if not prune_head and self.mask_head is not None:
            raise ValueError(
                f"indices={take} with prune_head=False: the segmentation head reads every fused map and the pyramid; "
                "use prune_head=True, or keep the last stage"
            )
        self.encoder.prune(take)
        self.mask_head = None
        if self.head is not None:
            # As in timm, a model without its head returns the map.
            classes, pool = (0, "") if prune_head else (self.num_classes, self.global_pool)
            channels = self.encoder.fusion.channels
            head = ClassificationHead(channels, classes, None, pool, self.drop_rate, **self.encoder.placement)
            self.head = head.train(self.training)
        return take

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks of both branches in the backward pass: less memory, the same outputs and gradients."""
        self.encoder.set_grad_checkpointing(enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth, for timm's layer-wise learning-rate decay."""
        return self.encoder.group_matcher(coarse, prefix="encoder.")

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to exclude from weight decay."""
        return {f"encoder.{name}" for name in self.encoder.no_weight_decay()}

    def init_weights(self) -> None:
        """Initialize all weights, also after ``to_empty``."""
        self.encoder.init_weights()
        for name, child in self.named_children():
            if name != "encoder":
                reset_modules(child)

    def example_inputs(self) -> dict[str, Tensor]:
        """Random inputs by name, a batch of two, on the model's device and in its dtype."""
        return {"image": torch.randn(2, self.in_chans, 224, 192, **self.encoder.placement)}

    def require_head(self, name: str, error: type[Exception] = ValueError) -> Any:
        """The ``head`` or the ``mask_head``; an error that names it if it is missing."""
        head = getattr(self, name)
        if head is None:
            kind, argument = ("classification", "num_classes") if name == "head" else ("segmentation", "mask_classes")
            if self.is_pruned and name == "mask_head" and self.architecture.endswith("seg"):
                raise error("this model is pruned and has lost its segmentation head: create it again")
            both = f"use a model named *_clsseg, or {type(self).__name__}({argument}=...)"
            raise error(f"this model has no {kind} head ({name}): {both}")
        return head

    def _forget_labels(self) -> None:
        """Remove the class names from the configuration: a new classifier has none yet."""
        cfg: dict[str, Any] = getattr(self, "pretrained_cfg", {})
        for key in LABEL_KEYS:
            cfg.pop(key, None)
