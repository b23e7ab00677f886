"""Image files to pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

__all__ = ["has_deep_colors", "is_dicom", "open_rgb", "opened", "stored_size", "turn_of"]

_BITS = (8, 10, 12, 14, 16)
"""Bits that cameras and microscopes give a pixel, in files of 16."""


def open_rgb(path: str | Path) -> Image.Image:
    """An image as 8-bit RGB, upright.

    Grey images of 16 bits often hold 8 to 14: the range that their values show is brought to 8 bits, while Pillow alone
    would clip or blacken them.

    Raises:
        OSError: no such file, or not a readable image.
        ValueError: pixels that are no colors, colors whose range cannot be told, or far too many pixels.
    """
    with opened(path) as image:
        is_deep = has_deep_colors(image)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            pixels = np.asarray(image)
            low, high = int(pixels.min()), int(pixels.max())
            if low < 0 or high > 65535:
                raise ValueError(f"values from {low} to {high}; images have 8 or 16 bits")
            bits = next(bits for bits in _BITS if high < 2**bits)
            return Image.fromarray((pixels >> (bits - 8)).astype(np.uint8)).convert("RGB")
        if image.mode == "F":
            raise ValueError("floating point pixels; images have 8 or 16 bits")
        rgb = image.convert("RGB")
        if is_deep and np.asarray(rgb).max() <= 64:
            # Pillow keeps the upper byte of each color, in PPM rounded.
            raise ValueError("16 bits a color of which at most 14 are used; convert the image to 8 bits a color")
        return rgb


def has_deep_colors(image: Image.Image) -> bool:
    """Whether an opened file has 16 bits a color, of which Pillow keeps 8; to be asked before pixels are loaded."""
    # The last entry of a tile is its raw mode, as "RGB;16B", or of PPM the raw mode and the largest value.
    raw_modes = [str(tile[3]) for tile in getattr(image, "tile", ())]
    return not image.mode.startswith("I") and any(";16" in mode or "65535" in mode for mode in raw_modes)


def turn_of(image: Image.Image) -> int:
    """The turn that a camera noted beside the pixels (EXIF): 1 for none, up to 8; to be asked of a file just opened."""
    turn = image.getexif().get(ExifTags.Base.Orientation, 1)
    return turn if turn in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of the pixels as they are stored, before any turn."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        # Of turned TIFF files, newer releases of Pillow give the upright size.
        return tags[ExifTags.Base.ImageLength], tags[ExifTags.Base.ImageWidth]
    return image.height, image.width


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The opened image file.

    Raises:
        OSError: no such file.
        ValueError: no image, far too many pixels, or DICOM, with how to convert it.
    """
    try:
        # Not by its path: Pillow 13 maps uncompressed TIFF files into memory then, and scrambles those that are turned.
        with Path(path).open("rb") as file, Image.open(file) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except UnidentifiedImageError:
        raise ValueError(DICOM if is_dicom(path) else "cannot identify the image format") from None


DICOM = (
    "DICOM is not read; convert it to PNG first, for example with dcmj2pnm of DCMTK (dcmj2pnm --write-png in.dcm "
    "out.png) or with pydicom, choosing the window that shows what matters"
)


def is_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM, by its suffix or its content."""
    if Path(path).suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
