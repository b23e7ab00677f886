"""Image files to pixels."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

__all__ = ["open_mask", "open_rgb"]


def open_rgb(path: str | Path) -> Image.Image:
    """An image of 8 bits in RGB; grey ones of 16 bits are scaled down, of which Pillow alone would clip all to white.

    Raises:
        OSError: no such file, or not a readable image.
        ValueError: pixels that are no colours, such as floating point numbers, or far too many of them.
    """
    with _upright(path) as image:
        if image.mode.startswith("I"):
            pixels = np.asarray(image)
            if pixels.min() < 0 or pixels.max() > 65535:
                raise ValueError(f"values from {pixels.min()} to {pixels.max()}; images have 8 or 16 bits")
            return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
        if image.mode == "F":
            raise ValueError("floating point pixels; images have 8 or 16 bits")
        return image.convert("RGB")


def open_mask(path: str | Path) -> Image.Image:
    """A mask of 8 bits, foreground above 127.

    Raises:
        OSError: no such file, or not a readable image.
        ValueError: another kind of pixels, far too many of them, or a mask whose foreground would be lost at 127.
    """
    with _upright(path) as image:
        if image.mode.startswith("I") or image.mode == "F":
            raise ValueError(f"mode {image.mode}; masks have 8 bits, foreground above 127")
        mask = image.convert("L")
        largest = int(np.asarray(mask).max())
        # JPEG has a little noise where it is black.
        if image.format != "JPEG" and 0 < largest <= 127:
            raise ValueError(f"values up to {largest}; in masks the foreground is above 127, as a rule 255")
        return mask


@contextmanager
def _upright(path: str | Path) -> Iterator[Image.Image]:
    """The opened image as viewers show it: cameras may store it turned, and say so beside."""
    try:
        opened = Image.open(path)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
    with opened as image:
        ImageOps.exif_transpose(image, in_place=True)
        yield image
