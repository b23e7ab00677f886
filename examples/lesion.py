"""A generated picture of a pigmented spot on skin: an image that anyone may show. It is of no patient."""

import numpy as np
from PIL import Image

__all__ = ["generate_lesion"]


def generate_lesion(seed: int = 0, size: tuple[int, int] = (600, 450)) -> tuple[Image.Image, Image.Image]:
    """Image and mask of a spot with an irregular soft border, mottled colors and a few hairs.

    Args:
        seed: of everything random.
        size: width and height.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -width / height : width / height : width * 1j]
    y, x = y - rng.uniform(-0.15, 0.15), x - rng.uniform(-0.2, 0.2)
    angle, stretch = np.arctan2(y, x), rng.uniform(0.8, 1.25)
    radius = rng.uniform(0.45, 0.6) * (1 + 0.3 * _clouds(rng, size, 5))
    for waves in (2, 3, 5):
        radius *= 1 + 0.1 * rng.uniform(-1, 1) * np.sin(waves * angle + rng.uniform(0, 6))
    inside = radius - np.hypot(x * stretch, y / stretch)
    pigment = 1 / (1 + np.exp(-inside / 0.035))
    skin = np.array([0.86, 0.68, 0.60]) * (1 + 0.05 * _clouds(rng, size, 4) + 0.03 * _clouds(rng, size, 40))[..., None]
    dark, light = np.array([0.28, 0.16, 0.13]), np.array([0.60, 0.38, 0.28])
    mottle = (0.5 + 0.45 * _clouds(rng, size, 7) + 0.25 * _clouds(rng, size, 45) + 0.5 * inside).clip(0, 1)[..., None]
    pixels = skin + 0.9 * pigment[..., None] * (mottle * dark + (1 - mottle) * light - skin)
    for _ in range(6):
        pixels = pixels * (1 - 0.6 * _hair(rng, x, y))[..., None]
    pixels = pixels * (1 - 0.1 * (x**2 + y**2))[..., None] + rng.normal(0, 0.01, (height, width, 3))
    mask = (pigment > 0.5).astype(np.uint8) * 255
    return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)), Image.fromarray(mask)


def _clouds(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of about -1 to 1, with so many cells across."""
    noise = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))


def _hair(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How much a thin bent line covers each pixel."""
    turn, bend, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3), rng.uniform(-0.9, 0.9)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.exp(-(((across - offset - bend * along**2) / 0.006) ** 2)) * (np.abs(along - offset) < 0.8)
