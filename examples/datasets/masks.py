"""Mask files to class indices."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .images import has_deep_colors, opened, stored_size, turn_of
from .mask_values import count_values, foreground_of, listed

__all__ = ["IGNORE", "ONE_FOREGROUND", "MaskFormat", "open_mask", "value_of_foreground"]

IGNORE = 255
"""What pixels without a class are set to, whatever value they have in the file."""


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


ONE_FOREGROUND = MaskFormat()


@dataclass(frozen=True)
class _Stored:
    """A mask as its file has it.

    Attributes:
        values: int64 ``(H, W)``, upright.
        color: the one color that is not black, where there is one.
        is_lossy: whether the file's compression changes values.
        turn: the turn noted in the file, which is undone in ``values``.
    """

    values: np.ndarray
    color: tuple[int, ...] | None
    is_lossy: bool
    turn: int


def open_mask(path: str | Path, image: str | Path, mask_format: MaskFormat = ONE_FOREGROUND) -> np.ndarray:
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
    mask = _read(path, mask_format)
    values = mask.values
    if mask.is_lossy and (mask_format.names or mask_format.ignore_index is not None):
        raise ValueError("JPEG and the like change values, so classes and pixels to ignore are lost; save masks as PNG")
    ignored = np.zeros(values.shape, bool) if mask_format.ignore_index is None else values == mask_format.ignore_index
    if mask_format.names:
        indices = _indices(values, ignored, mask_format.names)
    else:
        indices = foreground_of(values, ignored, mask.is_lossy)
    indices = np.where(ignored, IGNORE, indices).astype(np.uint8)
    return _on_grid_of(image, indices, mask.turn)


def value_of_foreground(path: str | Path, mask_format: MaskFormat = ONE_FOREGROUND) -> int | tuple[int, ...] | None:
    """The one value or color beside 0 of a mask with two values; None for soft, lossy and empty masks."""
    mask = _read(path, mask_format)
    if mask.is_lossy:
        return None
    inner = [
        value for value in count_values(mask.values)[0].tolist() if value > 0 and value != mask_format.ignore_index
    ]
    return (mask.color or inner[0]) if len(inner) == 1 else None


def _read(path: str | Path, mask_format: MaskFormat) -> _Stored:
    with opened(path) as mask:
        turn, is_lossy = turn_of(mask), _is_lossy(mask)
        if has_deep_colors(mask):
            raise ValueError("16 bits a color; save the mask as one channel of 8 bits")
        ImageOps.exif_transpose(mask, in_place=True)
        if mask.mode == "1":
            # One bit is a class index where there are classes, else black and white.
            return _Stored(np.asarray(mask) * np.int64(1 if mask_format.names else 255), None, is_lossy, turn)
        if mask.mode == "P" and not mask_format.names:
            _check_palette(mask)
        values, color = _channel(mask, is_lossy)
        return _Stored(values, color, is_lossy, turn)


def _is_lossy(mask: Image.Image) -> bool:
    """Whether the file's compression may have changed values."""
    if mask.format == "WEBP" and mask.filename:
        with Path(mask.filename).open("rb") as file:
            return b"VP8L" not in file.read()
    compression = str(mask.info.get("compression", ""))
    return mask.format in ("AVIF", "JPEG", "JPEG2000", "MPO") or "jpeg" in compression or "webp" in compression


def _check_palette(mask: Image.Image) -> None:
    """Check that index 0 is painted as the background where another one is black.

    Programs that make palettes order them as they like, so that 0 may be the foreground.
    """
    used = np.unique(np.asarray(mask)).tolist()
    colors = mask.getpalette("RGB") or []
    painted = {index: tuple(colors[3 * index : 3 * index + 3]) for index in used}
    if any(painted.get(0, ())) and (0, 0, 0) in painted.values():
        raise ValueError(
            f"a palette that paints index 0 as {painted[0]} and another one black, so either may be the background; "
            "save the mask as grey PNG with 0 and 255"
        )


def _channel(mask: Image.Image, is_lossy: bool) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """The one channel that carries the mask, never brightness of colors; and the color of its foreground."""
    if mask.mode == "F":
        raise ValueError("floating point pixels; masks have whole numbers")
    if mask.mode in ("L", "P") or mask.mode.startswith("I"):
        # Of a palette, the indices.
        return np.asarray(mask).astype(np.int64), None
    if mask.mode not in ("LA", "RGBA", "PA"):
        return _one_of_colors(np.asarray(mask.convert("RGB")), is_lossy)
    pixels = np.asarray(mask).astype(np.int64)
    color, alpha = pixels[..., :-1], pixels[..., -1]
    visible = alpha > 0
    if visible.all() and _is_constant(alpha):
        return _one_of_colors(color, is_lossy)
    says_the_same = np.array_equal(color.max(-1) > 0, visible)
    if _is_constant(color[visible]) and (not says_the_same or len(np.unique(alpha)) > 2):
        return alpha, None
    if says_the_same:
        return _one_of_colors(color, is_lossy)
    raise ValueError("both colors and transparency vary, so either may be the mask; save the mask as one channel")


def _is_constant(pixels: np.ndarray) -> bool:
    return bool((pixels == pixels[:1]).all())


def _one_of_colors(color: np.ndarray, is_lossy: bool) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """Grey values; or 0 for black and 255 for the one other color, with this color."""
    color = color.astype(np.int64)
    # JPEG leaves grey pixels a tinge.
    if np.ptp(color, -1).max() <= (16 if is_lossy else 0):
        return color[..., len(color[0, 0]) // 2], None
    lit = color[color.max(-1) > 0]
    if _is_constant(lit):
        return (color.max(-1) > 0) * np.int64(255), tuple(lit[0].tolist())
    number = len(np.unique(color.reshape(-1, 3), axis=0))
    brightest = color.reshape(-1, 3).max(0)
    if number > 64 and np.sort(brightest)[1] <= 40:
        # Soft edges of one primary color on black: what counts is how bright it is.
        return color.max(-1), tuple(brightest.tolist())
    raise ValueError(f"{number} different colors; save the mask as indices 0, 1, 2, ... (a palette or grey PNG)")


def _indices(values: np.ndarray, ignored: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    found = count_values(values[~ignored])[0]
    if found.size and not 0 <= found.min() <= found.max() < len(names):
        more = "" if ignored.any() else "; pixels without a class need --data.ignore_index"
        raise ValueError(f"values {listed(found)}, expected 0 to {len(names) - 1} for {', '.join(names)}{more}")
    return values


def _on_grid_of(image: str | Path, indices: np.ndarray, turn: int) -> np.ndarray:
    """The mask on the upright image's grid.

    Args:
        image: the image's file.
        indices: the mask, upright by what its own file says.
        turn: what its own file says.

    Raises:
        ValueError: another size; or the two files say different turns, and the sizes do not tell which is right.
    """
    with opened(image) as file:
        stored, of_image = stored_size(file), turn_of(file)
    upright = stored if of_image < 5 else stored[::-1]
    # A mask may have been drawn on the upright image or on the pixels as they are stored.
    readings = [indices]
    if turn != of_image:
        readings.append(_transpose(_transpose_back(indices, turn), of_image))
    fitting = [reading for reading in readings if reading.shape == upright]
    if not fitting:
        found, expected = (f"{size[1]}x{size[0]}" for size in (indices.shape, upright))
        raise ValueError(f"mask of {found} pixels for an image of {expected}")
    if not np.array_equal(fitting[0], fitting[-1]):
        of_both = [f"an EXIF orientation ({turn})" if turn != 1 else "none" for turn in (of_image, turn)]
        raise ValueError(
            f"the image has {of_both[0]} and the mask has {of_both[1]}, so the mask may be upright or as the pixels "
            "are stored; write the turn into the image's pixels, for example with ImageMagick's mogrify -auto-orient, "
            "and turn the mask where it needs it"
        )
    return fitting[0]


def _transpose(indices: np.ndarray, turn: int) -> np.ndarray:
    """Upright from stored pixels."""
    image = Image.fromarray(indices)
    image.getexif()[0x0112] = turn
    return np.asarray(ImageOps.exif_transpose(image))


def _transpose_back(indices: np.ndarray, turn: int) -> np.ndarray:
    """Stored from upright pixels: all turns but the quarter ones are their own inverse."""
    return _transpose(indices, {6: 8, 8: 6}.get(turn, turn))
