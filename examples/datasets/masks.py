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
        values: whole numbers ``(H, W)``, upright.
        color: the one color that is not black, where there is one.
        lossy: name of the file's format where its compression changes values; else empty.
        turn: the turn noted in the file, which is undone in ``values``.
    """

    values: np.ndarray
    color: tuple[int, ...] | None
    lossy: str
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
    if mask.lossy and (mask_format.names or mask_format.ignore_index is not None):
        raise ValueError(f"{mask.lossy} changes values, so classes and pixels to ignore are lost; save masks as PNG")
    values, ignored = mask.values, None
    if mask_format.ignore_index is not None:
        ignored = values == mask_format.ignore_index
        values = np.where(ignored, 0, values)
    if mask_format.names:
        _check_indices(values, mask_format)
        indices = values.astype(np.uint8)
    else:
        indices = foreground_of(values, mask.lossy).astype(np.uint8)
    if ignored is not None:
        indices[ignored] = IGNORE
    return _on_grid_of(image, indices, mask.turn)


def value_of_foreground(path: str | Path, mask_format: MaskFormat = ONE_FOREGROUND) -> int | tuple[int, ...] | None:
    """The one value or color beside 0 of a mask with two values; None for soft, lossy and empty masks."""
    mask = _read(path, mask_format)
    if mask.lossy:
        return None
    inner = [
        value for value in count_values(mask.values)[0].tolist() if value > 0 and value != mask_format.ignore_index
    ]
    return (mask.color or inner[0]) if len(inner) == 1 else None


def _read(path: str | Path, mask_format: MaskFormat) -> _Stored:
    with opened(path) as mask:
        # May load the pixels, of TIFF then turned already: therefore the file is opened again.
        turn = turn_of(mask)
    with opened(path) as mask:
        lossy = _lossy_format(mask, Path(path))
        if has_deep_colors(mask):
            raise ValueError("16 bits a color; save the mask as one channel of 8 bits")
        ImageOps.exif_transpose(mask, in_place=True)
        if mask.mode == "1":
            # One bit is a class index where there are classes, else black and white.
            return _Stored(np.asarray(mask) * np.uint8(1 if mask_format.names else 255), None, lossy, turn)
        if mask.mode == "P":
            return _Stored(_of_palette(mask, mask_format), None, lossy, turn)
        values, color = _channel(mask, bool(lossy))
        return _Stored(values, color, lossy, turn)


def _lossy_format(mask: Image.Image, path: Path) -> str:
    """The format's name where its compression may have changed values."""
    compression = str(mask.info.get("compression", ""))
    if mask.format == "WEBP":
        is_lossy = b"VP8L" not in path.read_bytes()
    else:
        is_lossy = mask.format in ("AVIF", "JPEG", "JPEG2000", "MPO") or "jpeg" in compression or "webp" in compression
    return mask.format if is_lossy and mask.format else ""


def _of_palette(mask: Image.Image, mask_format: MaskFormat) -> np.ndarray:
    """The indices; of GIF, which has nothing else, the grey values that a palette of grey stands for.

    Programs that make palettes order them as they like, so that 0 may be the foreground.

    Raises:
        ValueError: a palette by which the indices may not be what is meant.
    """
    indices = np.asarray(mask)
    used = count_values(indices)[0].tolist()
    colors = np.zeros((256, 3), np.uint8)
    entries = mask.getpalette("RGB") or []
    colors.flat[: len(entries)] = entries
    grey = colors[used, 0].tolist() if (colors[used] == colors[used, :1]).all() else None
    if mask.format == "GIF" and grey is not None:
        return colors[:, 0][indices]
    if mask_format.names:
        if grey is not None and grey != used and max(grey) < len(mask_format.names):
            raise ValueError(f"a palette that paints the indices {used} in grey of {grey}; save the mask without one")
    elif colors[0].any() and (0 in used or not colors[used].any(-1).all()):
        raise ValueError(
            f"a palette that paints index 0 as {tuple(colors[0].tolist())}, so that it may be the foreground; save the "
            "mask as grey PNG with 0 and 255"
        )
    return indices


def _channel(mask: Image.Image, is_lossy: bool) -> tuple[np.ndarray, tuple[int, ...] | None]:
    """The one channel that carries the mask, never brightness of colors; and the color of its foreground."""
    if mask.mode == "F":
        raise ValueError("floating point pixels; masks have whole numbers")
    if mask.mode == "L" or mask.mode.startswith("I"):
        return np.asarray(mask), None
    if mask.mode not in ("LA", "RGBA", "PA"):
        return _one_of_colors(np.asarray(mask.convert("RGB")), is_lossy)
    pixels = np.asarray(mask)
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
    # JPEG leaves grey pixels a tinge.
    if np.ptp(color, -1).max() <= (16 if is_lossy else 0):
        return color[..., len(color[0, 0]) // 2], None
    lit = color[color.max(-1) > 0]
    if _is_constant(lit):
        return (color.max(-1) > 0) * np.uint8(255), tuple(lit[0].tolist())
    number = len(np.unique(color.reshape(-1, 3), axis=0))
    brightest = color.reshape(-1, 3).max(0)
    if number > 64 and np.sort(brightest)[1] <= 40:
        # Soft edges of one primary color on black: what counts is how bright it is.
        return color.max(-1), tuple(brightest.tolist())
    raise ValueError(f"{number} different colors; save the mask as indices 0, 1, 2, ... (a palette or grey PNG)")


def _check_indices(values: np.ndarray, mask_format: MaskFormat) -> None:
    names = mask_format.names
    found = count_values(values)[0]
    if not 0 <= found[0] <= found[-1] < len(names):
        more = "" if mask_format.ignore_index is not None else "; pixels without a class need --data.ignore_index"
        raise ValueError(f"values {listed(found)}, expected 0 to {len(names) - 1} for {', '.join(names)}{more}")


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
