"""Small synthetic data sets in the very layouts of the real ones, good enough to learn from.

Each class has its own color and texture of spot, on skin of a random tone; masks show the spot. RCM slices have more
bright cells the higher the class. Nothing of it is real, and nothing trained on it is of use on patients.
"""

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from . import ham10000, isic2018, isic2019, psinkd
from .errors import DataError

__all__ = ["WRITERS", "write_dataset"]

OWN_CLASSES = ("brown", "violet", "pink")
"""Of the generated layouts of one's own data."""

HUES = np.array([[0.45, 0.28, 0.18], [0.30, 0.20, 0.35], [0.75, 0.35, 0.35], [0.55, 0.50, 0.30], [0.15, 0.12, 0.12]])


def spot(rng: np.random.Generator, label: int, size: tuple[int, int] = (90, 120)) -> tuple[Image.Image, Image.Image]:
    """Image of a spot and its mask; the class decides color and stripes."""
    height, width = size
    y, x = np.mgrid[-1 : 1 : height * 1j, -width / height : width / height : width * 1j]
    y, x = y - rng.uniform(-0.25, 0.25), x - rng.uniform(-0.3, 0.3)
    angle = np.arctan2(y, x)
    outline = rng.uniform(0.4, 0.65) * (1 + 0.12 * np.sin(3 * angle + rng.uniform(0, 6)))
    mask = np.hypot(y, x) < outline
    skin = np.array([0.85, 0.66, 0.56]) * rng.uniform(0.85, 1.1)
    color = HUES[label % len(HUES)] * rng.uniform(0.85, 1.15)
    stripes = 1 + 0.35 * np.sin((8 if label < len(HUES) else 25) * x + rng.uniform(0, 6))
    pixels = np.where(mask[..., None], color * stripes[..., None], skin) + rng.normal(0, 0.03, (height, width, 3))
    return Image.fromarray((255 * pixels.clip(0, 1)).astype(np.uint8)), Image.fromarray(mask.astype(np.uint8) * 255)


def slices(rng: np.random.Generator, label: int, size: int = 64) -> list[Image.Image]:
    """Grey slices with bright cells, the more the higher the label."""
    y, x = np.mgrid[:size, :size]
    images = []
    for _ in range(psinkd.NUM_SLICES):
        pixels = np.full((size, size), 0.2)
        for _ in range(2 + 4 * label):
            row, column = rng.uniform(0, size, 2)
            pixels[np.hypot(y - row, x - column) < 4] = 0.8
        pixels = (255 * (pixels + rng.normal(0, 0.04, pixels.shape)).clip(0, 1)).astype(np.uint8)
        images.append(Image.fromarray(pixels))
    return images


def _write_table(path: Path, rows: Sequence[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _folders(root: Path, names: Iterable[str]) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.mkdir(parents=True, exist_ok=True)
    return paths


def _identity(number: int) -> str:
    return f"ISIC_{number:07d}"


def _write_ham10000(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    *parts, masks = _folders(folder, [*ham10000.IMAGE_FOLDERS, ham10000.MASK_FOLDER])
    rows: list[dict[str, object]] = []
    for label, name in enumerate(ham10000.CLASSES):
        for lesion in range(lesions):
            # Every other lesion is photographed twice.
            for _ in range(1 + lesion % 2):
                identity = _identity(len(rows))
                image, mask = spot(rng, label)
                image.save(parts[len(rows) % 2] / f"{identity}.jpg", quality=92)
                mask.save(masks / f"{identity}_segmentation.png")
                rows.append({"lesion_id": f"HAM_{label}{lesion:05d}", "image_id": identity, "dx": name})
    _write_table(folder / ham10000.METADATA[0], rows)


def _write_isic2019(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    (images,) = _folders(folder, [isic2019.IMAGE_FOLDER])
    codes = [*isic2019.CLASSES, "UNK"]
    truth: list[dict[str, object]] = []
    metadata: list[dict[str, object]] = []
    for label in range(len(isic2019.CLASSES)):
        for lesion in range(lesions):
            for _ in range(1 + lesion % 2):
                number = len(truth)
                identity = _identity(number) + ("_downsampled" if number % 3 == 0 else "")
                spot(rng, label)[0].save(images / f"{identity}.jpg", quality=92)
                truth.append({"image": identity, **{code: float(i == label) for i, code in enumerate(codes)}})
                known = "" if lesion == 0 else f"BCN_{label}{lesion:05d}"
                metadata.append({"image": identity, "age_approx": 50, "lesion_id": known, "sex": "female"})
    _write_table(folder / isic2019.TRUTH, truth)
    _write_table(folder / isic2019.METADATA, metadata)


def _write_isic2018(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    images, masks = _folders(folder, [isic2018.IMAGE_FOLDER, isic2018.MASK_FOLDER])
    for number in range(5 * lesions):
        image, mask = spot(rng, number % 7)
        image.save(images / f"{_identity(number)}.jpg", quality=92)
        mask.save(masks / f"{_identity(number)}_segmentation.png")


def _write_kvasir(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    images, masks = _folders(folder, ["images", "masks"])
    for number in range(5 * lesions):
        image, mask = spot(rng, 2, (100 + number % 7, 110))
        image.save(images / f"polyp{number:03d}.jpg", quality=92)
        mask.save(masks / f"polyp{number:03d}.jpg", quality=92)


def _write_folder(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    for label, name in enumerate(OWN_CLASSES):
        (of_class,) = _folders(folder, [name])
        for number in range(lesions):
            # The patient's number comes first.
            spot(rng, label)[0].save(of_class / f"p{label}{number // 2:03d}_{number:03d}.jpg", quality=92)


def _write_table_of_own(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    images, masks, stacks = _folders(folder, ["images", "masks", "slices"])
    rows: list[dict[str, object]] = []
    for label, name in enumerate(OWN_CLASSES):
        for number in range(lesions):
            identity = f"{name}{number:03d}"
            image, mask = spot(rng, label)
            image.save(images / f"{identity}.png")
            mask.save(masks / f"{identity}_mask.png")
            for position, slice_ in enumerate(slices(rng, label)[:2]):
                slice_.save(stacks / f"{identity}_{'ab'[position]}.png")
            files = {"image": f"{identity}.png", "mask": f"{identity}_mask.png"}
            depth = {f"stack_{letter}": f"{identity}_{letter}.png" for letter in "ab"}
            rows.append({**files, "label": name, "group": f"p{label}{number // 2:03d}", **depth})
    _write_table(folder / "labels.csv", rows)


def _write_masks(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    images, masks = _folders(folder, ["images", "masks"])
    for number in range(5 * lesions):
        image, mask = spot(rng, number % 2)
        image.save(images / f"{number:03d}.jpg", quality=92)
        mask.save(masks / f"{number:03d}_mask.png")


def _write_psinkd(folder: Path, lesions: int, rng: np.random.Generator) -> None:
    images, stacks = _folders(folder, [psinkd.IMAGE_FOLDER, psinkd.STACK_FOLDER])
    rows: list[dict[str, object]] = []
    for label, code in enumerate(isic2019.CLASSES):
        for lesion in range(lesions):
            identity = f"L{label}{lesion:03d}"
            spot(rng, label)[0].save(images / f"{identity}.jpg", quality=92)
            for number, image in enumerate(slices(rng, label), start=1):
                image.save(stacks / f"{identity}_{number}.png")
            rows.append({"lesion_id": identity, "patient_id": f"P{label}{lesion // 2:03d}", "label": code})
    _write_table(folder / psinkd.TABLE, rows)


WRITERS: dict[str, Callable[[Path, int, np.random.Generator], None]] = {
    "ham10000": _write_ham10000,
    "isic2018": _write_isic2018,
    "isic2019": _write_isic2019,
    "kvasir": _write_kvasir,
    "psinkd": _write_psinkd,
    "folder": _write_folder,
    "table": _write_table_of_own,
    "masks": _write_masks,
}


def write_dataset(name: str, folder: str | Path, lesions: int = 6, seed: int = 0) -> Path:
    """Write a synthetic data set.

    Args:
        name: whose layout.
        folder: where; must be empty or absent, so that nothing real is overwritten.
        lesions: lesions of each class; five times as many images where there are no classes.
        seed: of the random numbers.

    Raises:
        DataError: a folder that is not empty, no lesions.
    """
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder} is not empty: synthetic data is written to a new folder")
    if lesions < 1:
        raise DataError(f"lesions={lesions} must be at least 1")
    WRITERS[name](folder, lesions, np.random.default_rng(seed))
    return folder
