"""MFSF2-NET for two modalities: an image and a stack of slices. A reconstruction."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..layers.checks import check_pixels, check_rate
from ..layers.modality import TwoModalityStem, check_stack
from . import outputs
from .encoder import Images, Indices
from .mfsf2 import MFSF2
from .outputs import Outputs

__all__ = ["MFSF2TwoModality"]

Input = Tensor | None


class MFSF2TwoModality(MFSF2):
    """MFSF2-NET for a dermoscopic image and a stack of reflectance confocal microscopy (RCM) slices.

    The image feeds the CNN branch, the stack the transformer branch. Any other modality with slices works too. With one
    modality missing, this is the one-modality model, see :class:`~mfsf2.layers.TwoModalityStem`. A reconstruction: the
    authors' figure shows the second modality, but its code is not published.

    Every method of :class:`MFSF2` that takes an image takes these four inputs:

    - ``image``: ``(B, in_chans, H, W)``; None if no sample has one.
    - ``stack``: ``(B, S, slice_chans or 1, H', W')``; None if no sample has one.
    - ``image_mask``: bool ``(B,)``, True if a sample has its image; None if all have.
    - ``stack_mask``: the same for the stack.

    Args:
        num_classes, mask_classes: as for :class:`MFSF2`.
        in_chans: channels of the image.
        num_slices: slices S of the stack.
        slice_chans: channels of each slice: 1, or those of the image (None).
        modality_drop_rate: modality dropout, see ``drop_rate`` of :class:`~mfsf2.layers.TwoModalityStem`.
        **mfsf2_args: further arguments of :class:`MFSF2`, including those of :class:`MFSF2Encoder`.

    Shape: as for :class:`MFSF2`. Masks have the size of the image, or of the stack if there is no image. H', W' need
    not equal H, W; for PVTv2 branches all are >= 29.

    Raises:
        ValueError: both modalities missing, for the batch or for a sample; a stack of the wrong shape or size; batches
            or masks of different lengths; see also :class:`MFSF2`.
        TypeError: an unknown argument, a mask that is not bool, or an input that is not floating point.
    """

    family: ClassVar[str] = "mfsf2_rcm"

    def __init__(
        self,
        num_classes: int | None = 8,
        mask_classes: int | None = None,
        in_chans: int = 3,
        num_slices: int = 4,
        slice_chans: int | None = None,
        modality_drop_rate: float = 0.2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **mfsf2_args: Any,
    ) -> None:
        check_rate(modality_drop_rate, "modality_drop_rate")
        super().__init__(num_classes, mask_classes, in_chans, device=device, dtype=dtype, **mfsf2_args)
        self.stem = TwoModalityStem(num_slices, in_chans, slice_chans, modality_drop_rate, device=device, dtype=dtype)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of :func:`create_model` that rebuild this model, except ``num_classes``."""
        slices = self.stem.slices
        return dict(
            super().model_args,
            num_slices=slices.num_slices,
            # None, so that it follows in_chans if the model is rebuilt for other images.
            slice_chans=None if slices.in_chans == self.in_chans else slices.in_chans,
            modality_drop_rate=self.stem.drop_rate,
        )

    def forward(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> Tensor | Outputs:
        return outputs.predict(self, self._images(image, stack, image_mask, stack_mask))

    def forward_features(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> Tensor:
        """As :meth:`MFSF2.forward_features`."""
        return outputs.encode(self, self._images(image, stack, image_mask, stack_mask))

    def forward_intermediates(
        self,
        image: Input = None,
        indices: Indices = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        *,
        stack: Input = None,
        image_mask: Input = None,
        stack_mask: Input = None,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """As :meth:`MFSF2.forward_intermediates`, with the arguments in timm's order and the stack by keyword.

        The maps are on the transformer's grids, so if a stack is given, strides are relative to it.
        """
        if isinstance(indices, Tensor):
            raise TypeError("the second argument, indices, is a tensor: pass the stack as stack=...")
        images = self._images(image, stack, image_mask, stack_mask)
        return outputs.intermediates(self, images, indices, stop_early, output_fmt, intermediates_only)

    def forward_logits(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> Tensor:
        """As :meth:`MFSF2.forward_logits`."""
        return outputs.classify(self, self._images(image, stack, image_mask, stack_mask))

    def forward_masks(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> Tensor:
        """As :meth:`MFSF2.forward_masks`."""
        return outputs.segment(self, self._images(image, stack, image_mask, stack_mask))

    def forward_deep(
        self, image: Input = None, stack: Input = None, image_mask: Input = None, stack_mask: Input = None
    ) -> Outputs:
        """As :meth:`MFSF2.forward_deep`; if a stack is given, strides are relative to it."""
        return outputs.predict_deep(self, self._images(image, stack, image_mask, stack_mask))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth; the stack's stem belongs to the branches' stems."""
        groups = super().group_matcher(coarse)
        groups.setdefault("stem", []).append((r"^stem\.", None))
        return groups

    def example_inputs(self) -> dict[str, Tensor]:
        """Random inputs by name, a batch of two, on the model's device and in its dtype."""
        slices = self.stem.slices
        stack = torch.randn(2, slices.num_slices, slices.in_chans, 160, 256, **self.encoder.placement)
        return {**super().example_inputs(), "stack": stack}

    def _images(self, image: Input, stack: Input, image_mask: Input, stack_mask: Input) -> Images:
        """The images for both branches."""
        if stack is not None:
            check_stack(stack, self.stem.slices.num_slices, self.stem.slices.in_chans)
            check_pixels(stack, self.encoder.min_size, "stack")
        return self.stem(image, stack, image_mask, stack_mask)
