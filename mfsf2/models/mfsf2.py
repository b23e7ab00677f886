"""MFSF2-NET: an encoder, an optional head of classes, an optional head of masks, and the methods of timm's models."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..heads.classification import ClassificationHead
from ..heads.segmentation import SegmentationHead, check_mask_classes
from ..layers.checks import check_integer, check_rate
from . import outputs
from .encoder import Indices, MFSF2Encoder, reset_modules
from .outputs import Outputs

__all__ = ["LABEL_KEYS", "MFSF2"]

LABEL_KEYS = ("label_names", "label_descriptions", "temperature")
"""Entries of a pretrained configuration that describe a trained classifier."""


class MFSF2(nn.Module):
    """MFSF2-NET: an encoder and two optional heads, one of classes (``head``) and one of masks (``mask_head``).

    The default arguments give the classification network that its authors publish. The head of masks is a
    reconstruction, see :class:`SegmentationHead`. Checkpoints of a network of both heads load into networks of either.

    ``num_classes``, ``get_classifier`` and ``reset_classifier`` refer to the head of classes or, in a network without
    one, to the head of masks.

    Args:
        num_classes: number of classes; 0 for the head's hidden features ``(B, 1024)`` in place of logits; None for no
            head of classes.
        mask_classes: channels of the masks: 1 for a foreground against the background (sigmoid), more for several
            classes of which channel 0 is the background (softmax); None for no head of masks.
        in_chans: channels of the image.
        global_pool: any of timm's pools, see :class:`~mfsf2.layers.GlobalPool`; ``""``, with ``num_classes=0``, for the
            map ``(B, num_features, h, w)``.
        drop_rate: dropout before the classifier.
        head_hidden_size: width of the hidden layer of the head of classes.
        mask_drop_rate: dropout of whole channels of the bottleneck of the head of masks.
        **encoder_args: arguments of :class:`MFSF2Encoder`: ``drop_path_rate``, ``cnn``, ``transformer``, ``channels``,
            ``pretrained_backbones``, ...

    Attributes:
        encoder: the :class:`MFSF2Encoder`.
        head: the :class:`ClassificationHead` or None.
        mask_head: the :class:`SegmentationHead` or None.
        in_chans: channels of the image.
        feature_info: channels, stride and module of each fused map, in timm's form.

    Shape: image ``(B, in_chans, H, W)``, H, W >= 29 for PVTv2 branches, to logits ``(B, num_classes)`` or to mask
    logits ``(B, mask_classes, H, W)``; with both heads to :class:`Outputs`. After :meth:`prune_intermediate_layers` to
    what is left of the head of classes or, without one, to the last fused map.

    Raises:
        ValueError: no head at all, no mask channels, arguments or a method of a missing head, unknown or unsuitable
            backbones, an image of wrong rank, channels or size, an empty batch, too few values for batch statistics.
        TypeError: unknown argument, an image that is not floating point.
        AttributeError: a property of a missing head: ``global_pool`` and ``head_hidden_size`` of ``head``,
            ``mask_classes`` of ``mask_head``.
    """

    family: ClassVar[str] = "mfsf2"
    """How the names begin under which the registry builds this class."""

    def __init__(
        self,
        num_classes: int | None = 7,
        mask_classes: int | None = None,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        head_hidden_size: int = 1024,
        mask_drop_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        if num_classes is None and mask_classes is None:
            raise ValueError("num_classes and mask_classes are both None: give at least one, or use MFSF2Encoder")
        if num_classes is None and (global_pool, drop_rate, head_hidden_size) != ("avg", 0.3, 1024):
            raise ValueError("global_pool, drop_rate and head_hidden_size are of the head of classes: give num_classes")
        if mask_classes is None and mask_drop_rate:
            raise ValueError(f"mask_drop_rate={mask_drop_rate} is of the head of masks: give mask_classes")
        if head_hidden_size is not None:
            check_integer(head_hidden_size, "head_hidden_size")
        if mask_classes is not None:
            check_mask_classes(mask_classes, "mask_classes")
        check_rate(mask_drop_rate, "mask_drop_rate")
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
        # Like num_classes, that of the first head.
        self.drop_rate = mask_drop_rate if num_classes is None else drop_rate
        self.mask_drop_rate = mask_drop_rate
        self.architecture = f"{self.family}_{'cls' * (num_classes is not None)}{'seg' * (mask_classes is not None)}"

    def __getattr__(self, name: str) -> Any:
        # Asked last, also after a property has raised an AttributeError, whose message torch's own would hide.
        declared = getattr(type(self), name, None)
        if isinstance(declared, property) and declared.fget is not None:
            return declared.fget(self)
        return super().__getattr__(name)

    @property
    def heads(self) -> dict[str, ClassificationHead | SegmentationHead | None]:
        """Both heads by name, None for one that is not there."""
        return {"head": self.head, "mask_head": self.mask_head}

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of :func:`create_model` that rebuild this network, all but ``num_classes``."""
        args = dict(self.encoder.model_args, drop_rate=self.drop_rate)
        if self.head is not None:
            args.update(global_pool=self.global_pool, head_hidden_size=self.head.hidden_features)
            if self.mask_head is not None:
                args.update(mask_classes=self.mask_classes, mask_drop_rate=self.mask_drop_rate)
        return args

    @property
    def num_classes(self) -> int:
        """Number of classes; in a network without a head of classes, channels of the masks."""
        head = self.mask_head if self.head is None else self.head
        return 0 if head is None else head.num_classes

    @property
    def mask_classes(self) -> int:
        """Channels of the masks."""
        return self.require_head("mask_head", AttributeError).num_classes

    @property
    def num_features(self) -> int:
        """Channels of :meth:`forward_features`, times the factor of the head's pool."""
        if self.head is not None:
            return self.head.num_features
        return self.encoder.fusion.channels if self.is_pruned else self.encoder.num_features

    @property
    def head_hidden_size(self) -> int:
        """Width of what the classifier is given."""
        return self.require_head("head", AttributeError).hidden_size

    @property
    def global_pool(self) -> str:
        """Name of the head's pool."""
        return self.require_head("head", AttributeError).global_pool.pool_type

    @property
    def is_pruned(self) -> bool:
        """Whether :meth:`prune_intermediate_layers` has removed the pyramid and what lies above a fused map."""
        return self.encoder.fusion.pyramid is None

    def forward(self, x: Tensor) -> Tensor | Outputs:
        return outputs.predict(self, (x,))

    def forward_features(self, x: Tensor) -> Tensor:
        """CNN map, transformer map and pyramid side by side, ``(B, num_features, h, w)`` at stride 32.

        The input of the head of classes, where the pyramid is its mean, the same at every position, so that a mean over
        the map holds it unchanged; in a network without that head the last input of the head of masks, where it is the
        pyramid's map. All are on the transformer's grid. After pruning to F_i this is F_i.
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
            indices: which maps: the last n for an integer, all for None, else positions from 0, or negative ones.
            norm: no effect: the fused maps end in a batch norm and a ReLU.
            stop_early: leave out all above the last map wanted; that map is then returned as the features.
            output_fmt: ``"NCHW"``.
            intermediates_only: return the list of maps alone.
        """
        return outputs.intermediates(self, (x,), indices, stop_early, output_fmt, intermediates_only)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map of :meth:`forward_features` to logits, or with ``pre_logits`` to what the classifier is given."""
        return self.require_head("head")(x, pre_logits=pre_logits)

    def forward_logits(self, x: Tensor) -> Tensor:
        """Logits of the classes alone; neither the pyramid's map nor the head of masks is computed."""
        return outputs.classify(self, (x,))

    def forward_masks(self, x: Tensor) -> Tensor:
        """Logits of the masks alone, at the image's size; the head of classes is not computed."""
        return outputs.segment(self, (x,))

    def forward_deep(self, x: Tensor) -> Outputs:
        """For deep supervision: logits of the classes, if any, and five maps of mask logits, coarse to fine.

        Their strides are 32, 32, 16, 8 and 4; the last one, resized to the image, is what :meth:`forward` returns.
        """
        return outputs.predict_deep(self, (x,))

    def get_classifier(self) -> nn.Module | tuple[nn.Module, ...]:
        """The last linear layer; in a network of masks alone the layers of mask logits, coarse to fine."""
        if self.head is not None:
            return self.head.fc
        head = self.require_head("mask_head")
        return tuple(head.get_submodule(name) for name in head.classifier_names)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in a new classifier; device, dtype, training mode and, with None, the pool stay as they are.

        On a network without a pool None means average pooling, unless ``num_classes`` is 0. In a network of masks alone
        the layers of mask logits are replaced, and there is no pool. ``label_names`` leave ``pretrained_cfg``, as the
        old classes' names are none of the new ones'.
        """
        if global_pool is not None or self.head is not None:
            self.require_head("head").reset(num_classes, global_pool, **self.encoder.placement)
        else:
            self.require_head("mask_head").reset(num_classes, **self.encoder.placement)
        self._forget_labels()

    def reset_masks(self, mask_classes: int) -> None:
        """Put in new layers of mask logits for another number of mask classes; all else stays as it is."""
        head = self.require_head("mask_head")
        check_mask_classes(mask_classes, "mask_classes")
        head.reset(mask_classes, **self.encoder.placement)
        if self.head is None:
            self._forget_labels()

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
        take = self.encoder.take_indices(indices)
        if not prune_head and max(take) == self.encoder.num_stages - 1:
            return take
        if not prune_head and self.mask_head is not None:
            raise ValueError(
                f"indices={take} with prune_head=False: the head of masks reads every fused map and the pyramid; use "
                "prune_head=True, or keep the last stage"
            )
        self.encoder.prune(take)
        self.mask_head = None
        if self.head is not None:
            # In timm, what is left without its head returns the map.
            classes, pool = (0, "") if prune_head else (self.num_classes, self.global_pool)
            channels = self.encoder.fusion.channels
            head = ClassificationHead(channels, classes, None, pool, self.drop_rate, **self.encoder.placement)
            self.head = head.train(self.training)
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
            if name != "encoder":
                reset_modules(child)

    def example_inputs(self) -> dict[str, Tensor]:
        """Random inputs by name, a batch of two, of the network's device and dtype."""
        return {"image": torch.randn(2, self.in_chans, 224, 192, **self.encoder.placement)}

    def require_head(self, name: str, error: type[Exception] = ValueError) -> Any:
        """The ``head`` or the ``mask_head``; an error that names it where it is not there."""
        head = getattr(self, name)
        if head is None:
            kind, argument = ("classes", "num_classes") if name == "head" else ("masks", "mask_classes")
            if self.is_pruned and name == "mask_head" and self.architecture.endswith("seg"):
                raise error("this network is pruned, its head of masks is gone: build the network anew")
            both = f"use a network named *_clsseg, or {type(self).__name__}({argument}=...)"
            raise error(f"this network has no head of {kind} ({name}): {both}")
        return head

    def _forget_labels(self) -> None:
        """Take the classes' names out of the configuration: a new classifier's outputs have none yet."""
        cfg: dict[str, Any] = getattr(self, "pretrained_cfg", {})
        for key in LABEL_KEYS:
            cfg.pop(key, None)
