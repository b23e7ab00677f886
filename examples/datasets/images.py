"""Image files to pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

__all__ = ["open_rgb", "opened", "orientation_of"]

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
        is_deep_color = not image.mode.startswith("I") and _has_16_bits(image)
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
        if is_deep_color and np.asarray(rgb).max() < 64:
            # Pillow keeps the upper byte of each color.
            raise ValueError("16 bits a color of which at most 14 are used; convert the image to 8 bits a color")
        return rgb


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel, whatever Pillow makes of it."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def orientation_of(path: str | Path) -> int:
    """The turn that a camera noted beside the pixels (EXIF): 1 for none, up to 8."""
    with opened(path) as image:
        turn = image.getexif().get(ExifTags.Base.Orientation, 1)
        return turn if turn in range(1, 9) else 1


@contextmanager
def opened(path: str | Path) -> Iterator[Image.Image]:
    """The opened image file.

    Raises:
        ValueError: far too many pixels, or DICOM, with how to convert it.
    """
    try:
        image = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    except OSError:
        if is_dicom(path):
            raise ValueError(DICOM) from None
        raise
    with image:
        yield image


DICOM = (
    "DICOM is not read; convert it to PNG first, for example with dcmj2pnm of DCMTK (dcmj2pnm --write-png in.dcm "
    "out.png) or with pydicom, choosing the window that shows what matters"
)


def is_dicom(path: str | Path) -> bool:
    """Whether a file is DICOM, by its content."""
    try:
        with Path(path).open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False
