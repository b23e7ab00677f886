"""MFSF2-NET of two modalities: an image and a stack of slices. A reconstruction."""

from typing import Any, ClassVar

import torch
import torch.fx
from torch import Tensor

from ..layers.checks import check_sides
from ..layers.modality import TwoModalityStem, check_modality_dropout
from . import outputs
from .encoder import Images, Indices
from .mfsf2 import MFSF2
from .outputs import Outputs

__all__ = ["MFSF2TwoModality"]

Input = Tensor | None


def check_stack_sides(stack: Input, min_size: int) -> None:
    """Check a stack's height and width, if there is one; all else is the stem's to check."""
    if isinstance(stack, Tensor) and stack.dim() == 5:
        check_sides(stack, min_size, "stack")


torch.fx.wrap("check_stack_sides")


class MFSF2TwoModality(MFSF2):
    """MFSF2-NET for a dermoscopic image and a stack of confocal microscopy (RCM) slices.

    The image feeds the CNN branch, the stack the transformer branch; any other second modality of slices will do. With
    one modality missing this is the one-modality network, see :class:`~mfsf2.layers.TwoModalityStem`. A reconstruction:
    the authors' figure shows the second modality and they publish no code of it.

    Every method of :class:`MFSF2` that takes an image takes these four inputs:

    - ``image``: ``(B, in_chans, H, W)``; None where no sample has one.
    - ``stack``: ``(B, S, slice_chans, H', W')``; None where no sample has one.
    - ``image_mask``: bool ``(B,)``, True where a sample has its image; None where all have.
    - ``stack_mask``: the same for the stack.

    Args:
        num_classes, mask_classes: as for :class:`MFSF2`.
        in_chans: channels of the image.
        num_slices: slices S of the stack.
        slice_chans: channels of each slice; None for those of the image.
        modality_drop_rate: modality dropout in training, as ``drop_rate`` of :class:`~mfsf2.layers.TwoModalityStem`.
        **network_args: further arguments of :class:`MFSF2`, those of :class:`MFSF2Encoder` among them.

    Shape: as for :class:`MFSF2`; masks are of the image's size, or of the stack's where there is no image. H', W' are
    free of H, W; all are >= 29 for PVTv2 branches.

    Raises:
        ValueError: both modalities missing, for the batch or for a sample; a stack of wrong rank, slices, channels or
            size; batches or masks of different lengths; as :class:`MFSF2`.
        TypeError: unknown argument, masks that are not bool, inputs that are not floating point.
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
        **network_args: Any,
    ) -> None:
        check_modality_dropout(modality_drop_rate, "modality_drop_rate", in_chans, slice_chans)
        super().__init__(num_classes, mask_classes, in_chans, device=device, dtype=dtype, **network_args)
        self.stem = TwoModalityStem(num_slices, in_chans, slice_chans, modality_drop_rate, device=device, dtype=dtype)

    @property
    def model_args(self) -> dict[str, Any]:
        """Arguments of :func:`create_model` that rebuild this network, all but ``num_classes``."""
        slices = self.stem.slices
        return dict(
            super().model_args,
            num_slices=slices.num_slices,
            # What is taken from the image's channels stays so when the network is rebuilt for other images.
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
        """As :meth:`MFSF2.forward_intermediates`, with arguments in timm's order and the stack by keyword.

        The maps are on the transformer's grids: strides count from the stack where it is given.
        """
        if isinstance(indices, Tensor):
            raise TypeError("the second argument, indices, is a tensor: give the stack by its name, stack=...")
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
        """As :meth:`MFSF2.forward_deep`; strides count from the stack where it is given."""
        return outputs.predict_deep(self, self._images(image, stack, image_mask, stack_mask))

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort the parameters by depth; the stem of the stack is with the branches' stems."""
        groups = super().group_matcher(coarse)
        groups.setdefault("stem", []).append((r"^stem\.", None))
        return groups

    def example_inputs(self) -> dict[str, Tensor]:
        """Random inputs by name, a batch of two, of the network's device and dtype."""
        slices = self.stem.slices
        stack = torch.randn(2, slices.num_slices, slices.in_chans, 160, 256, **self.encoder.placement)
        return {**super().example_inputs(), "stack": stack}

    def _images(self, image: Input, stack: Input, image_mask: Input, stack_mask: Input) -> Images:
        """The images for both branches."""
        check_stack_sides(stack, self.encoder.min_size)
        return self.stem(image, stack, image_mask, stack_mask)
