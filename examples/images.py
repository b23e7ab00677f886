"""Read images and masks into memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def read_images(paths: Sequence[Path], height: int, width: int) -> Tensor:
    """Images resized to one size (bicubic), uint8 ``(N, 3, height, width)``.

    Raises:
        ValueError: an image that cannot be read.
    """
    images = torch.empty(len(paths), 3, height, width, dtype=torch.uint8)
    for index, path in enumerate(paths):
        pixels = _read(path, "RGB", (width, height), Image.Resampling.BICUBIC)
        images[index] = torch.from_numpy(pixels).permute(2, 0, 1)
    return images


def read_masks(paths: Sequence[Path], height: int, width: int) -> Tensor:
    """Masks resized to one size (nearest), uint8 ``(N, 1, height, width)``: 1 where a pixel is above 127.

    Raises:
        ValueError: a mask that cannot be read.
    """
    masks = torch.empty(len(paths), 1, height, width, dtype=torch.uint8)
    for index, path in enumerate(paths):
        masks[index, 0] = torch.from_numpy(_read(path, "L", (width, height), Image.Resampling.NEAREST) > 127)
    return masks


def _read(path: Path, mode: str, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode).resize(size, resample))
    except OSError as error:
        raise ValueError(f"{path}: not a readable image: {error}") from error
