"""MFSF2-NET for classification from two modalities: an image and a stack of slices. A reconstruction."""

from typing import Any

import torch
import torch.fx
from torch import Tensor

from ..layers.checks import check_sides
from ..layers.slices import TwoModalityStem, check_modality_dropout
from .base import Indices
from .classification import ClassifierMethods
from .encoder import MFSF2Encoder

__all__ = ["MFSF2RCMClassifier"]


def check_stack_sides(stack: Tensor | None, min_size: int) -> None:
    """Check a stack's height and width, if there is one; all else is the stem's to check."""
    if isinstance(stack, Tensor) and stack.dim() == 5:
        check_sides(stack, min_size, "stack")


torch.fx.wrap("check_stack_sides")


class MFSF2RCMClassifier(ClassifierMethods):
    """MFSF2-NET classification network for a dermoscopic image and a stack of confocal microscopy (RCM) slices.

    The image feeds the CNN branch, the stack the transformer branch; any other second modality of slices will do. With
    one modality missing this is the one-modality network, see :class:`~mfsf2.layers.TwoModalityStem`. A reconstruction:
    the authors' figure shows the second modality and they publish no code of it.

    Args:
        num_classes: number of classes; 0 for a network that returns the head's hidden features ``(B, 1024)``.
        in_chans: channels of the image.
        num_slices: slices S of the stack.
        slice_chans: channels of each slice; None for those of the image.
        modality_drop_rate: modality dropout in training, as ``drop_rate`` of :class:`~mfsf2.layers.TwoModalityStem`.
        global_pool, drop_rate, head_hidden_size: as for :class:`MFSF2Classifier`.
        **encoder_args: arguments of :class:`MFSF2Encoder`.

    Shape: image ``(B, in_chans, H, W)`` or None, stack ``(B, S, slice_chans, H', W')`` or None, bool masks ``(B,)`` or
    None, True where the sample has the modality, to logits ``(B, num_classes)``. H', W' are free of H, W; all are >= 29
    for PVTv2 branches.

    Raises:
        ValueError: both modalities missing, for the batch or for a sample; a stack of wrong rank, slices, channels or
            size; batches or masks of different lengths; as :class:`MFSF2Classifier`.
        TypeError: unknown argument, masks that are not bool, inputs that are not floating point.
    """

    architecture = "mfsf2_rcm_cls"
    head_names = ("head",)

    def __init__(
        self,
        num_classes: int = 8,
        in_chans: int = 3,
        num_slices: int = 4,
        slice_chans: int | None = None,
        modality_drop_rate: float = 0.2,
        global_pool: str = "avg",
        drop_rate: float = 0.3,
        head_hidden_size: int = 1024,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **encoder_args: Any,
    ) -> None:
        check_modality_dropout(modality_drop_rate, "modality_drop_rate", in_chans, slice_chans)
        super().__init__(MFSF2Encoder(in_chans=in_chans, device=device, dtype=dtype, **encoder_args))
        self.stem = TwoModalityStem(num_slices, in_chans, slice_chans, modality_drop_rate, device=device, dtype=dtype)
        self._add_classifier(num_classes, global_pool, drop_rate, head_hidden_size, device, dtype)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments that rebuild this network, all but ``num_classes``."""
        slices = self.stem.slices
        return dict(
            super().model_args,
            num_slices=slices.num_slices,
            # What is taken from the image's channels stays so when the network is rebuilt for other images.
            slice_chans=None if slices.in_chans == self.in_chans else slices.in_chans,
            modality_drop_rate=self.stem.drop_rate,
        )

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth; the stem of the stack is with the branches' stems."""
        groups = super().group_matcher(coarse)
        groups.setdefault("stem", []).append((r"^stem\.", None))
        return groups

    def example_inputs(self) -> dict[str, Tensor]:
        """Two random images and stacks, of the network's device and dtype."""
        slices, placement = self.stem.slices, self._placement()
        return {
            "image": torch.randn(2, self.in_chans, 224, 192, **placement),
            "stack": torch.randn(2, slices.num_slices, slices.in_chans, 160, 256, **placement),
        }

    def _branch_images(
        self,
        image: Tensor | None = None,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """The images for both branches."""
        check_stack_sides(stack, self.encoder.min_size)
        return self.stem(image, stack, image_mask, stack_mask)

    def forward_features(
        self,
        image: Tensor | None = None,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> Tensor:
        """The head's input, as :meth:`MFSF2Classifier.forward_features` returns it, on the transformer's grid."""
        return self._encode(*self._branch_images(image, stack, image_mask, stack_mask))

    def forward_intermediates(
        self,
        image: Tensor | None = None,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        *,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The fused maps F_1..F_4, and what :meth:`forward_features` returns.

        Arguments are in timm's order, as for :meth:`MFSF2Classifier.forward_intermediates`, the stack by keyword. The
        maps are on the transformer's grids: strides count from the stack where it is given.
        """
        if isinstance(indices, Tensor):
            raise TypeError("the second argument, indices, is a tensor: give the stack by its name, stack=...")
        inputs = self._branch_images(image, stack, image_mask, stack_mask)
        return self._intermediates(inputs, indices, stop_early, output_fmt, intermediates_only)

    def forward(
        self,
        image: Tensor | None = None,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> Tensor:
        """Logits of the classes, ``(B, num_classes)``.

        Args:
            image: ``(B, in_chans, H, W)``; None where no sample has one.
            stack: ``(B, S, slice_chans, H', W')``; None where no sample has one.
            image_mask: bool ``(B,)``, True where a sample has its image; None where all have.
            stack_mask: the same for the stack.
        """
        images = self._branch_images(image, stack, image_mask, stack_mask)
        self.head.check_batch(images[0])
        return self.forward_head(self._encode(*images))
