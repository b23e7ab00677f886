"""A second modality beside the image: a stack of slices, merged into an image. Either one may be missing."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_integer, check_map, check_rate, check_same
from .pooling import upsample_to

__all__ = ["SliceStem", "TwoModalityStem"]


class SliceStem(nn.Module):
    """Merge a stack of slices into an image: a 3D convolution over all S slices, with kernel S x 3 x 3.

    It starts as the mean over the slices, so a branch with pretrained weights sees an image from the first step.
    A reconstruction: the authors' figure shows a 3D stem, but its code is not published.

    Args:
        num_slices: slices S of the stack.
        in_chans: channels of each slice, 1 or ``out_chans``; slices with one channel are always accepted and repeated.
        out_chans: channels of the image.

    Because the kernel spans the whole stack, this is a 2D convolution of S * C channels. The weight has four
    dimensions; with five, models could not be converted to ``torch.channels_last``.

    Attributes:
        weight: ``(out_chans, S * in_chans, 3, 3)``: the 3D kernel ``(out_chans, in_chans, S, 3, 3)`` with the channels
            of each slice side by side.
        bias: ``(out_chans,)``.

    Shape: ``(B, S, in_chans, H, W)`` or ``(B, S, 1, H, W)`` to ``(B, out_chans, H, W)``.

    Raises:
        ValueError: no slices, another ``in_chans``, or a stack of the wrong shape.

    Example:
        >>> stem = SliceStem(num_slices=4)
        >>> stack = torch.randn(2, 4, 3, 40, 32)
        >>> torch.allclose(stem(stack), stack.mean(1), atol=1e-6)
        True
    """

    def __init__(
        self,
        num_slices: int = 4,
        in_chans: int = 3,
        out_chans: int = 3,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_chans not in (1, out_chans):
            raise ValueError(f"slices of {in_chans} channels for images of {out_chans}: use 1 or {out_chans}")
        self.num_slices = check_integer(num_slices, "num_slices")
        self.in_chans = in_chans
        self.out_chans = out_chans
        self.weight = nn.Parameter(torch.empty(out_chans, num_slices * in_chans, 3, 3, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_chans, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to the mean over the slices."""
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            center = self.weight[:, :, 1, 1]
            # With one channel per slice, the identity is a column of ones.
            identity = torch.eye(self.out_chans, device=center.device, dtype=center.dtype)
            identity = identity if self.in_chans == self.out_chans else identity.sum(1, keepdim=True)
            center.copy_(identity.repeat(1, self.num_slices) / self.num_slices)

    def forward(self, stack: Tensor) -> Tensor:
        check_stack(stack, self.num_slices, self.in_chans)
        slices = stack.expand(-1, -1, self.in_chans, -1, -1).flatten(1, 2)
        return F.conv2d(slices, self.weight, self.bias, padding=1)

    def extra_repr(self) -> str:
        return f"num_slices={self.num_slices}, in_chans={self.in_chans}, out_chans={self.out_chans}"


class TwoModalityStem(nn.Module):
    """An image and a stack of slices, either of which may be missing, to the images of two branches.

    The first branch gets the image, the second one the stack through a :class:`SliceStem`. A branch without its own
    input gets the other modality: the mean slice or the image. The image and the stack may differ in size. If masks say
    that single samples lack a modality, these samples get the other one, resized (bilinear) to the size of the missing
    one. Placeholders, even NaN, never affect outputs or gradients.

    A reconstruction, see :class:`SliceStem`.

    Args:
        num_slices: slices S of the stack.
        in_chans: channels of the image and of both outputs.
        slice_chans: channels of each slice: 1, or those of the image (None).
        drop_rate: modality dropout: in training, the fraction of the samples with both modalities that lose one, the
            image or the stack equally often. It follows ``torch.manual_seed``.

    Shape: image ``(B, in_chans, H, W)`` or None, stack ``(B, S, slice_chans or 1, H', W')`` or None, bool masks
    ``(B,)`` or None, True if the sample has the modality, to two images ``(B, in_chans, ...)``.

    Raises:
        ValueError: both modalities missing, for the batch or for a sample; an image or a stack of the wrong shape;
            batches or masks of different lengths; a mask without its modality.
        TypeError: a mask that is not bool.

    Example:
        >>> stem = TwoModalityStem(num_slices=4)
        >>> a, b = stem(torch.randn(2, 3, 64, 64), torch.randn(2, 4, 3, 40, 48))
        >>> a.shape, b.shape
        (torch.Size([2, 3, 64, 64]), torch.Size([2, 3, 40, 48]))
    """

    def __init__(
        self,
        num_slices: int = 4,
        in_chans: int = 3,
        slice_chans: int | None = None,
        drop_rate: float = 0.2,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_rate(drop_rate, "drop_rate")
        slice_chans = in_chans if slice_chans is None else slice_chans
        self.slices = SliceStem(num_slices, slice_chans, in_chans, device=device, dtype=dtype)
        self.drop_rate = drop_rate

    def forward(
        self,
        image: Tensor | None = None,
        stack: Tensor | None = None,
        image_mask: Tensor | None = None,
        stack_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The images for both branches.

        Args:
            image: ``(B, in_chans, H, W)``; None if no sample has one.
            stack: ``(B, S, slice_chans or 1, H', W')``; None if no sample has one.
            image_mask: bool ``(B,)``, True if a sample has its image; None if all have.
            stack_mask: the same for the stack.
        """
        check_modalities(image, stack, image_mask, stack_mask)
        if image is not None:
            check_map(image, self.slices.out_chans, "image")
        if stack is None:
            return image, image  # type: ignore[return-value]  # both missing is an error above
        if image is None:
            return mean_slice(stack, self.slices.out_chans), self.slices(stack)
        if self.training and self.drop_rate:
            image_mask, stack_mask = drop_modalities(image_mask, stack_mask, image, self.drop_rate)
        # Placeholders must not reach any product, because NaN * 0 is NaN.
        image, stack = select(image_mask, image, 0.0), select(stack_mask, stack, 0.0)
        return fill_images(image, image_mask, stack), fill_stacks(self.slices(stack), stack_mask, image)


def drop_modalities(
    image_mask: Tensor | None, stack_mask: Tensor | None, image: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """Masks in which a fraction ``rate`` of the samples with both modalities loses one, each equally often."""
    every = torch.ones(image.shape[0], dtype=torch.bool, device=image.device)
    has_image = every if image_mask is None else image_mask
    has_stack = every if stack_mask is None else stack_mask
    draw = torch.rand(image.shape[0], device=image.device)
    lose_image = has_stack & (draw < rate / 2)
    lose_stack = has_image & (draw >= 1 - rate / 2)
    return has_image & ~lose_image, has_stack & ~lose_stack


def select(mask: Tensor | None, present: Tensor, absent: Tensor | float) -> Tensor:
    """``present`` for the samples in the mask, ``absent`` for the others."""
    if mask is None:
        return present
    return torch.where(mask.view(-1, *[1] * (present.dim() - 1)), present, absent)


def mean_slice(stack: Tensor, channels: int) -> Tensor:
    """Mean over the slices; one channel is repeated to ``channels``."""
    return stack.mean(1).expand(-1, channels, -1, -1)


def fill_images(image: Tensor, image_mask: Tensor | None, stack: Tensor) -> Tensor:
    """The mean slice, at the size of the images, for the samples without an image."""
    if image_mask is None:
        return image
    return select(image_mask, image, upsample_to(mean_slice(stack, image.shape[1]), image))


def fill_stacks(merged: Tensor, stack_mask: Tensor | None, image: Tensor) -> Tensor:
    """The image, at the size of the stacks, for the samples without a stack."""
    if stack_mask is None:
        return merged
    return select(stack_mask, merged, upsample_to(image, merged))


def check_stack(stack: Tensor, num_slices: int, slice_chans: int) -> None:
    """Check the rank, the slices and the channels of a stack."""
    if isinstance(stack, torch.fx.Proxy):
        return
    if stack.dim() != 5 or stack.shape[1] != num_slices or stack.shape[2] not in (1, slice_chans):
        chans = "1" if slice_chans == 1 else f"{slice_chans} or 1"
        raise ValueError(f"stack must have shape (B, {num_slices}, {chans}, H, W), got {list(stack.shape)}")


def check_modalities(
    image: Tensor | None, stack: Tensor | None, image_mask: Tensor | None, stack_mask: Tensor | None
) -> None:
    """Check that every sample has a modality, and that the masks belong to what is given."""
    check_mask(image_mask, image, "image")
    check_mask(stack_mask, stack, "stack")
    if image is None and stack is None:
        raise ValueError("image and stack are both missing: pass at least one of them")
    if image is None:
        check_every(stack_mask, "each sample needs its stack if no image is given")
    elif stack is None:
        check_every(image_mask, "each sample needs its image if no stack is given")
    else:
        check_same(image, stack, "image and stack")
        if image_mask is not None and stack_mask is not None:
            check_every(image_mask | stack_mask, "each sample needs its image or its stack")


def check_mask(mask: Tensor | None, modality: Tensor | None, name: str) -> None:
    """Check the mask of a modality."""
    if mask is None:
        return
    if modality is None:
        raise ValueError(f"{name}_mask is given without {name}: omit both if no sample has it")
    if mask.dtype != torch.bool:
        raise TypeError(f"{name}_mask is {mask.dtype}, expected bool: True if a sample has its {name}")
    if mask.shape != modality.shape[:1]:
        raise ValueError(f"{name}_mask has shape {list(mask.shape)}, expected [{modality.shape[0]}]")


def check_every(present: Tensor | None, message: str) -> None:
    """Check that a mask is True for every sample; compiled programs check it when they run."""
    if present is None:
        return
    if torch.compiler.is_compiling():
        torch._assert_async(present.all(), message)
    elif not present.all():
        raise ValueError(f"{message}: missing for the samples {(~present).nonzero().flatten().tolist()}")


# Symbolic tracing does not know whether there is a mask: each of these is one node.
for _name in ("check_modalities", "drop_modalities", "select", "fill_images", "fill_stacks"):
    torch.fx.wrap(_name)
