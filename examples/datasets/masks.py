"""Mask files to class indices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .images import opened, orientation_of

__all__ = ["IGNORE", "MaskFormat", "open_mask", "value_of_foreground"]

IGNORE = 255
"""What pixels without a class are set to, whatever value they have in the file."""

_LOSSY = {"JPEG", "MPO", "JPEG2000"}


@dataclass(frozen=True)
class MaskFormat:
    """How masks are read.

    Attributes:
        names: of the values 0, 1, 2, ...; empty for masks that show one foreground.
        ignore_index: value of pixels that belong to no class; None for none.
    """

    names: tuple[str, ...] = ()
    ignore_index: int | None = None

    @property
    def num_classes(self) -> int:
        """Channels of the mask logits: 1 for one foreground."""
        return len(self.names) or 1

    @property
    def foregrounds(self) -> list[str]:
        """Names of what is not background."""
        return list(self.names[1:]) or ["foreground"]


def open_mask(path: str | Path, image: str | Path, mask_format: MaskFormat = MaskFormat()) -> np.ndarray:
    """A mask as class indices, uint8 ``(H, W)`` on the grid of the upright image; ``IGNORE`` where there is no class.

    With one foreground, masks of two values are taken as they are (0 and 255, 0 and 1, the indices of a palette, black
    and a color, transparent and opaque); soft masks and JPEG are cut at 127.

    Args:
        path: the mask's file.
        image: the image's file, which may have a turn noted beside its pixels.
        mask_format: how to read it.

    Raises:
        OSError: no such file, or not a readable image.
        ValueError: values that may mean several things, or that are not of the format; another size than the image's.
    """
    with opened(path) as mask:
        is_lossy = mask.format in _LOSSY
        values = _channel(mask)
        turn = mask.getexif().get(0x0112, 1)
    ignored = np.zeros(values.shape, bool) if mask_format.ignore_index is None else values == mask_format.ignore_index
    indices = (
        _indices(values, ignored, mask_format.names) if mask_format.names else _foreground(values, ignored, is_lossy)
    )
    indices = np.where(ignored, IGNORE, indices).astype(np.uint8)
    return _turned(indices, turn, image)


def value_of_foreground(path: str | Path, ignore_index: int | None = None) -> int | None:
    """The one value beside 0 of a mask with two values; None for soft, lossy and empty masks."""
    with opened(path) as mask:
        if mask.format in _LOSSY:
            return None
        values = np.unique(_channel(mask))
    inner = values[(values > 0) & (values != (-1 if ignore_index is None else ignore_index))]
    return int(inner[0]) if inner.size == 1 else None


def _channel(mask: Image.Image) -> np.ndarray:
    """The one channel that carries the mask; never brightness of colors."""
    if mask.mode == "F":
        raise ValueError("floating point pixels; masks have whole numbers")
    if mask.mode == "1":
        return np.asarray(mask) * np.int64(255)
    if mask.mode in ("L", "P") or mask.mode.startswith("I"):
        # Of a palette, the indices.
        return np.asarray(mask).astype(np.int64)
    if mask.mode in ("LA", "RGBA", "PA"):
        pixels = np.asarray(mask)
        color, alpha = pixels[..., :-1], pixels[..., -1].astype(np.int64)
        if alpha.min() == alpha.max() > 0:
            return _one_of_colors(color)
        if _is_constant(color[alpha > 0] if alpha.any() else color.reshape(-1, color.shape[-1])):
            return alpha
        colors = _one_of_colors(color)
        if np.array_equal(colors > 0, alpha > 0):
            return colors
        raise ValueError("both colors and transparency vary, so either may be the mask; save the mask as one channel")
    return _one_of_colors(np.asarray(mask.convert("RGB")))


def _is_constant(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:1]).all())


def _one_of_colors(color: np.ndarray) -> np.ndarray:
    """Grey values, or 0 for black and 255 for the one other color."""
    color = color.astype(np.int64)
    if (color == color[..., :1]).all():
        return color[..., 0]
    lit = color.max(-1) > 0
    if _is_constant(color[lit]):
        return lit * 255
    # Of a lossy file, shades of one color: what counts is how bright the brightest channel is.
    number = len(np.unique(color.reshape(-1, 3), axis=0))
    if number > 64:
        channels = color.reshape(-1, 3).max(0)
        if np.sort(channels)[1] <= 40:
            return color.max(-1)
    raise ValueError(f"{number} different colors; save the mask as indices 0, 1, 2, ... (a palette or grey PNG)")


def _indices(values: np.ndarray, ignored: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    found = np.unique(values[~ignored])
    if found.size and not 0 <= found.min() <= found.max() < len(names):
        more = "" if ignored.any() else "; pixels without a class need --data.ignore_index"
        raise ValueError(f"values {_listed(found)}, expected 0 to {len(names) - 1} for {', '.join(names)}{more}")
    return values


def _foreground(values: np.ndarray, ignored: np.ndarray, is_lossy: bool) -> np.ndarray:
    """0 and 1."""
    found, counts = np.unique(values[~ignored], return_counts=True)
    inner, number = found[found > 0], counts[found > 0]
    if not inner.size:
        return np.zeros(values.shape, np.int64)
    largest = int(inner[-1])
    if inner.size == 1 and not is_lossy:
        return (values > 0).astype(np.int64)
    if is_lossy and largest <= 127:
        raise ValueError(f"a JPEG of values up to {largest}, which may be noise; save masks as PNG with 0 and 255")
    if largest <= 127:
        raise ValueError(f"values {_listed(found)}: {_ADVICE}")
    # Soft edges have a little of each value; a class, or pixels to ignore, has much of one. JPEG spreads its own.
    between = (inner > largest * (0.25 if is_lossy else 0)) & (inner < largest * (0.75 if is_lossy else 1))
    most = number[between].sum() / 4 if is_lossy else number[between].max(initial=0)
    if most > max(0.1 * number.sum(), 20):
        raise ValueError(f"values {_listed(found)}: {_ADVICE}")
    return (values > (127 if largest <= 255 else largest / 2)).astype(np.int64)


_ADVICE = (
    "what is foreground cannot be told; save masks with 0 and 255, or, for several classes, name them: "
    "--data.mask_names '[background, ...]', and --data.ignore_index for pixels to ignore"
)


def _listed(found: np.ndarray) -> str:
    return ", ".join(map(str, found[:6])) + (f", ... {found[-1]}" if found.size > 6 else "")


def _turned(indices: np.ndarray, turn: int, image: str | Path) -> np.ndarray:
    """The mask on the upright image's grid.

    Raises:
        ValueError: another size; or the image is turned, the mask says nothing, and the sizes do not tell.
    """
    with opened(image) as opened_image:
        width, height = opened_image.size
    stored, of_image = (height, width), orientation_of(image)
    upright = stored if of_image < 5 else stored[::-1]
    if turn != 1:
        indices = _transpose(indices, turn)
    elif of_image != 1:
        fits = [size for size in {stored, upright} if indices.shape == size]
        if fits and (of_image < 5 or stored == upright):
            raise ValueError(
                f"the image has an EXIF orientation ({of_image}) and the mask has none, so the mask may be upright or as "
                "the pixels are stored; write the turn into the image's pixels, for example with ImageMagick's "
                "mogrify -auto-orient, and turn the mask where it needs it"
            )
        if indices.shape == stored:
            indices = _transpose(indices, of_image)
    if indices.shape != upright:
        found, expected = (f"{size[1]}x{size[0]}" for size in (indices.shape, upright))
        raise ValueError(f"mask of {found} pixels for an image of {expected}")
    return indices


def _transpose(indices: np.ndarray, turn: int) -> np.ndarray:
    image = Image.fromarray(indices)
    image.getexif()[0x0112] = turn
    return np.asarray(ImageOps.exif_transpose(image))
