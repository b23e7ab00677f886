"""A second modality: a stack of slices, turned into an image, beside an image; either may be missing."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .checks import check_dtypes, check_form, check_integer, check_map, check_rate
from .pooling import upsample_to

__all__ = ["SliceStem", "TwoModalityStem"]


def check_stack(stack: Tensor, num_slices: int, slice_chans: int) -> None:
    """Check a stack: rank 5, floating point, its numbers of slices and channels (one channel always passes)."""
    check_form(stack, f"(B, {num_slices}, {slice_chans}, H, W)", "stack")
    if stack.shape[1] != num_slices:
        raise ValueError(f"stack has {stack.shape[1]} slices, expected {num_slices}: {list(stack.shape)}")
    if stack.shape[2] not in (1, slice_chans):
        allowed = "1" if slice_chans == 1 else f"{slice_chans}, or 1 to be repeated"
        raise ValueError(f"stack has slices of {stack.shape[2]} channels, expected {allowed}: {list(stack.shape)}")
    if 0 in (stack.shape[0], stack.shape[3], stack.shape[4]):
        raise ValueError(f"stack is empty, shape {list(stack.shape)}: batch, height and width must be at least 1")


torch.fx.wrap("check_stack")


class SliceStem(nn.Module):
    """Stack of slices to an image: a 3d convolution over all S slices, kernel S x 3 x 3.

    It starts as the mean over the slices, so that a branch with pretrained weights sees an image from the first step.
    A reconstruction: the authors' figure shows a 3d stem and they publish no code of it.

    Args:
        num_slices: slices S of the stack.
        in_chans: channels of each slice; slices of one channel are repeated to as many.
        out_chans: channels of the image. Where they differ from ``in_chans``, each starts as the mean over the slices'
            channels too.

    The kernel is as deep as the stack, so this is a 2d convolution of S C channels. Its weight has four dimensions:
    with one of five, whole networks could not be brought to ``torch.channels_last``.

    Attributes:
        weight: ``(out_chans, S * in_chans, 3, 3)``: the kernel ``(out_chans, in_chans, S, 3, 3)`` of the 3d convolution
            with the channels of each slice side by side.
        bias: ``(out_chans,)``.

    Shape: ``(B, S, in_chans, H, W)`` or ``(B, S, 1, H, W)`` to ``(B, out_chans, H, W)``.

    Raises:
        ValueError: no slices, or a stack of another rank, number of slices or channels.
        TypeError: a stack that is not floating point.

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
        for name, value in (("num_slices", num_slices), ("in_chans", in_chans), ("out_chans", out_chans)):
            check_integer(value, name)
        self.num_slices = num_slices
        self.in_chans = in_chans
        self.out_chans = out_chans
        self.weight = nn.Parameter(torch.empty(out_chans, num_slices * in_chans, 3, 3, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_chans, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the mean over the slices."""
        nn.init.zeros_(self.bias)
        nn.init.zeros_(self.weight)
        with torch.no_grad():
            middle = self.weight[:, :, 1, 1]
            if self.in_chans == self.out_chans:
                identity = torch.eye(self.in_chans, device=middle.device, dtype=middle.dtype)
                middle.copy_(identity.repeat(1, self.num_slices) / self.num_slices)
            else:
                middle.fill_(1 / (self.num_slices * self.in_chans))

    def forward(self, stack: Tensor) -> Tensor:
        check_stack(stack, self.num_slices, self.in_chans)
        check_dtypes(self, stack=stack)
        slices = stack.expand(-1, -1, self.in_chans, -1, -1).flatten(1, 2)
        return F.conv2d(slices, self.weight, self.bias, padding=1)

    def extra_repr(self) -> str:
        return f"num_slices={self.num_slices}, in_chans={self.in_chans}, out_chans={self.out_chans}"


def check_mask(mask: Tensor | None, like: Tensor | None, name: str) -> None:
    """Check a mask over the samples of a modality, if there is one."""
    if mask is None:
        return
    if like is None:
        raise ValueError(f"{name}_mask is given without {name}: leave both out where no sample has it")
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = mask.dtype if isinstance(mask, Tensor) else type(mask)
        raise TypeError(f"{name}_mask must be a bool tensor, True where a sample has its {name}, got {given}")
    if mask.dim() != 1 or mask.shape[0] != like.shape[0]:
        raise ValueError(f"{name}_mask has shape {list(mask.shape)}, expected one entry a sample: [{like.shape[0]}]")


def check_every(present: Tensor | None, message: str) -> None:
    """Check that a mask, if there is one, is True for every sample; compiled programs check it as they run."""
    if present is None:
        return
    if torch.compiler.is_compiling():
        torch._assert_async(present.all(), message)
    elif not present.all():
        raise ValueError(f"{message}; not so for the samples {(~present).nonzero().flatten().tolist()}")


def check_modalities(
    image: Tensor | None,
    stack: Tensor | None,
    image_mask: Tensor | None,
    stack_mask: Tensor | None,
    in_chans: int,
    num_slices: int,
    slice_chans: int,
) -> None:
    """Check the inputs of :class:`TwoModalityStem`, each alone and against the others; dtypes are not among it."""
    if image is not None:
        check_map(image, in_chans, "image")
    if stack is not None:
        check_stack(stack, num_slices, slice_chans)
    check_mask(image_mask, image, "image")
    check_mask(stack_mask, stack, "stack")
    if slice_chans not in (1, in_chans):
        needed = f"slices of {slice_chans} channels and images of {in_chans} cannot stand in for each other: give both"
        if image is None or stack is None:
            raise ValueError(needed)
        check_every(image_mask, f"{needed}, for every sample")
        check_every(stack_mask, f"{needed}, for every sample")
    if image is None and stack is None:
        raise ValueError("image and stack are both missing: give at least one of them")
    if image is None:
        check_every(stack_mask, "each sample needs its stack where no image is given")
    elif stack is None:
        check_every(image_mask, "each sample needs its image where no stack is given")
    elif image.shape[0] != stack.shape[0]:
        raise ValueError(
            f"image and stack hold batches of {image.shape[0]} and {stack.shape[0]} samples: they must be equal"
        )
    elif image_mask is not None and stack_mask is not None:
        check_every(image_mask | stack_mask, "each sample needs its image or its stack")


def drop_modalities(
    image_mask: Tensor | None, stack_mask: Tensor | None, image: Tensor, rate: float
) -> tuple[Tensor, Tensor]:
    """Masks in which a share ``rate`` of the samples with both modalities has lost one, either equally often."""
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
    """The mean slice, at the images' size, for the samples without an image."""
    if image_mask is None:
        return image
    return select(image_mask, image, upsample_to(mean_slice(stack, image.shape[1]), image))


def fill_stacks(merged: Tensor, stack_mask: Tensor | None, image: Tensor) -> Tensor:
    """The image, at the stacks' size, for the samples without a stack."""
    if stack_mask is None:
        return merged
    return select(stack_mask, merged, upsample_to(image, merged))


# Whether there is a mask is not known while symbolic tracing goes on: each is one node.
for _name in ("check_modalities", "drop_modalities", "select", "fill_images", "fill_stacks"):
    torch.fx.wrap(_name)


def check_modality_dropout(rate: float, name: str, in_chans: int, slice_chans: int | None) -> None:
    """Check the share of samples that lose a modality, and that the other one can stand in for it."""
    check_rate(rate, name)
    if slice_chans is None:
        return
    check_integer(slice_chans, "slice_chans")
    if rate and slice_chans not in (1, in_chans):
        raise ValueError(
            f"slices of {slice_chans} channels and images of {in_chans} cannot stand in for each other: use {name}=0, "
            f"given was {rate}"
        )


class TwoModalityStem(nn.Module):
    """An image and a stack of slices, either of which may be missing, to the images of two branches.

    The first branch gets the image, the second the stack through a :class:`SliceStem`. A branch without its own input
    gets the other's: the second one the image itself, the first one the mean slice. Sizes are free: where masks say
    that single samples miss a modality, these get the other one resized (bilinear) to the missing tensor's size. What
    stands in a missing sample's place, be it NaN, reaches neither outputs nor gradients.

    A reconstruction, see :class:`SliceStem`.

    Args:
        num_slices: slices S of the stack.
        in_chans: channels of the image, and of both outputs.
        slice_chans: channels of each slice; None for those of the image. Slices of one channel are repeated. With any
            other number both modalities are needed always, and ``drop_rate`` must be 0.
        drop_rate: modality dropout: the share of samples with both modalities that lose one in training, the image or
            the stack equally often. The draw follows ``torch.manual_seed``.

    Shape: image ``(B, in_chans, H, W)`` or None, stack ``(B, S, slice_chans, H', W')`` or None, bool masks ``(B,)``
    or None, True where the sample has the modality, to two images ``(B, in_chans, ...)``.

    Raises:
        ValueError: both modalities missing, for the batch or for a sample; a stack of wrong rank, slices or channels;
            batches or masks of different lengths; a mask without its modality.
        TypeError: masks that are not bool, inputs that are not floating point.

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
        check_modality_dropout(drop_rate, "drop_rate", in_chans, slice_chans)
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
            image: ``(B, in_chans, H, W)``; None where no sample has one.
            stack: ``(B, S, slice_chans, H', W')``; None where no sample has one.
            image_mask: bool ``(B,)``, True where a sample has its image; None where all have.
            stack_mask: the same for the stack.
        """
        slices = self.slices
        check_modalities(image, stack, image_mask, stack_mask, slices.out_chans, slices.num_slices, slices.in_chans)
        check_dtypes(self, image=image, stack=stack)
        if stack is None:
            return image, image  # type: ignore[return-value]  # both missing is refused above
        if image is None:
            return mean_slice(stack, slices.out_chans), slices(stack)
        if self.training and self.drop_rate:
            image_mask, stack_mask = drop_modalities(image_mask, stack_mask, image, self.drop_rate)
        # What stands in a missing sample's place must not reach any product, where NaN times 0 is NaN.
        image, stack = select(image_mask, image, 0.0), select(stack_mask, stack, 0.0)
        second = fill_stacks(slices(stack), stack_mask, image)
        if slices.in_chans in (1, slices.out_chans):
            image = fill_images(image, image_mask, stack)
        return image, second
