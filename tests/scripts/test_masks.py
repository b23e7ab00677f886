"""Every way in which files give masks, and images of 16 bits; turns that cameras note beside the pixels."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import DataError, MaskFormat, Sample, check_files, check_foreground
from datasets.images import open_rgb
from datasets.masks import IGNORE, open_mask, value_of_foreground
from PIL import Image

DISC = (np.hypot(*(np.mgrid[:48, :64] - np.array([[[20]], [[30]]]))) < 14).astype(np.uint8)
"""Foreground that no turn or mirror image leaves where it is."""
CLASSES = ("background", "skin", "lesion")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def read(pixels: Any, image: Path, name: str = "mask.png", names: tuple[str, ...] = (), **more: Any) -> np.ndarray:
    """A mask that is written as ``name``, as :func:`open_mask` reads it."""
    path = image.with_name(name)
    ignore_index = more.pop("ignore_index", None)
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path, **more)
    return open_mask(path, image, MaskFormat(names, ignore_index))


def palette_mask(indices: np.ndarray, *colors: tuple[int, int, int]) -> Image.Image:
    mask = Image.fromarray(indices).convert("P")
    mask.putpalette([value for color in colors for value in color])
    return mask


def rgb(indices: np.ndarray, *colors: tuple[int, int, int]) -> np.ndarray:
    return np.array(colors, np.uint8)[indices]


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp", "gif", "tif", "TIF", "webp", "pgm"])
@pytest.mark.parametrize("value", [255, 1, 128, 7])
def test_two_values_are_background_and_foreground(value: int, suffix: str, image: Path) -> None:
    more = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(DISC * np.uint8(value), image, f"mask.{suffix}", **more), DISC)


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 0, 255), (10, 200, 90), (1, 0, 0)])
def test_colors_never_count_by_their_brightness(color: tuple[int, int, int], image: Path) -> None:
    black = (0, 0, 0)
    assert np.array_equal(read(rgb(DISC, black, color), image), DISC)
    assert np.array_equal(read(palette_mask(DISC, black, color), image), DISC)
    assert np.array_equal(read(palette_mask(2 * DISC, black, (255, 255, 255), color), image, names=CLASSES), 2 * DISC)


def test_soft_edges_in_one_color(image: Path) -> None:
    """Of a primary color on black in a lossless file; JPEG mixes colors, and is refused."""
    soft = np.zeros((48, 64, 3), np.uint8)
    distance = 14 - np.hypot(*(np.mgrid[:48, :64] - np.array([[[20]], [[30]]])))
    soft[..., 0] = np.clip(12 * distance + 127, 0, 255)
    assert np.array_equal(read(soft, image), soft[..., 0] > 127)
    with pytest.raises(ValueError, match=r"\d+ different colors; save the mask as indices"):
        read(rgb(DISC, (0, 0, 0), (255, 0, 0)), image, "mask.jpg")


def test_gif_has_grey_values_in_palettes(image: Path) -> None:
    """Pillow's have no entry that is not used: a mask of 255 alone has index 0, one of 0 and 2 has 0 and 1."""
    assert read(np.full_like(DISC, 255), image, "mask.gif").all() and not read(0 * DISC, image, "mask.gif").any()
    assert np.array_equal(read(2 * DISC, image, "mask.gif", names=CLASSES), 2 * DISC)
    assert read(np.full_like(DISC, 2), image, "mask.gif", names=CLASSES).min() == 2
    assert value_of_foreground(image.with_name("mask.gif")) == 2
    red = palette_mask(DISC, (0, 0, 0), (255, 0, 0))
    assert np.array_equal(read(red, image, "mask.gif"), DISC)


def test_transparency_may_carry_the_mask(image: Path) -> None:
    opaque, white = np.full_like(DISC, 255), np.full_like(DISC, 255)
    nothing = np.zeros_like(DISC)
    for layers in (
        [white, DISC * 255],
        [nothing, DISC * 255],
        [white, white, white, DISC * 255],
        [white, nothing, nothing, DISC * 255],
        [DISC * 255, nothing, nothing, DISC * 255],
        [DISC * 255, DISC * 255, DISC * 255, opaque],
        [DISC * 255, opaque],
        [DISC, DISC * 255],
    ):
        assert np.array_equal(read(np.stack(layers, -1), image), DISC), [layer.max() for layer in layers]
    assert not read(np.stack([white, nothing], -1), image).any()
    # Visible pixels show a class, and all of them have the same one.
    assert np.array_equal(read(np.stack([2 * DISC, DISC * 255], -1), image, names=CLASSES), 2 * DISC)
    # A soft edge in the transparency is cut at 127.
    soft = np.clip(40 * (14 - np.hypot(*(np.mgrid[:48, :64] - np.array([[[20]], [[30]]])))) + 127, 0, 255).astype(
        np.uint8
    )
    assert np.array_equal(read(np.stack([white, soft], -1), image), soft > 127)
    other = np.roll(DISC, 9, 1) * 255
    with pytest.raises(ValueError, match=r"both colors and transparency vary"):
        read(np.stack([other, DISC * 255], -1), image)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "pbm"])
def test_one_bit(suffix: str, image: Path) -> None:
    mask = Image.fromarray(DISC * 255).convert("1")
    assert np.array_equal(read(mask, image, f"mask.{suffix}"), DISC)
    assert np.array_equal(read(mask, image, f"mask.{suffix}", names=CLASSES[:2]), DISC)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("value", [1, 255, 4095, 65535])
def test_16_bits(value: int, suffix: str, image: Path) -> None:
    assert np.array_equal(read(DISC * np.uint16(value), image, f"mask.{suffix}"), DISC)
    assert np.array_equal(read(2 * DISC.astype(np.uint16), image, f"mask.{suffix}", CLASSES), 2 * DISC)
    assert np.array_equal(read(DISC.astype(np.int32), image, "mask.tif"), DISC)


@pytest.mark.parametrize("quality", [50, 75, 95])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_is_cut_at_127(quality: int, mode: str, image: Path) -> None:
    found = read(Image.fromarray(DISC * 255).convert(mode), image, "mask.jpg", quality=quality)
    assert np.array_equal(found, DISC)
    assert not read(Image.fromarray(DISC * 0).convert(mode), image, "mask.jpg", quality=quality).any()


@pytest.mark.parametrize(
    ("value", "more"), [(1, {}), (100, {}), (127, {}), (2, {"quality": 95}), (100, {"quality": 40})]
)
def test_dark_jpeg_is_not_an_empty_mask(value: int, more: dict[str, int], image: Path) -> None:
    """Ringing may lift some pixels above 127."""
    noise = r"a JPEG of values up to \d+, which may be noise; save masks as PNG"
    bright = r"values .*: what is foreground cannot be told; save masks with 0"
    with pytest.raises(ValueError, match=noise if value < 100 else rf"{noise}|{bright}"):
        read(DISC * np.uint8(value), image, "mask.jpg", **more)
    lines = np.zeros_like(DISC)
    lines[:, ::8] = lines[:, 1::8] = max(value, 100)
    with pytest.raises(ValueError, match=rf"{noise}|{bright}"):
        read(lines, image, "mask.jpg", **more)


def test_lossy_files_other_than_jpeg(image: Path) -> None:
    for name, more in (("mask.webp", {"quality": 40}), ("mask.tif", {"compression": "jpeg"}), ("mask.jp2", {})):
        assert np.array_equal(read(DISC * 255, image, name, **more), DISC), name
        assert value_of_foreground(image.with_name(name)) is None
        with pytest.raises(ValueError, match=r"a [A-Z0-9]+ of values up to|what is foreground cannot be told"):
            read(DISC * np.uint8(100), image, name, **more)
    for more in ({"names": CLASSES}, {"ignore_index": 255}):
        with pytest.raises(ValueError, match=r"JPEG changes values"):
            read(DISC * 255, image, "mask.jpg", **more)


def test_soft_masks_are_cut_at_127(image: Path) -> None:
    distance = 14 - np.hypot(*(np.mgrid[:48, :64] - np.array([[[20]], [[30]]])))
    for steepness in (200, 120, 60, 30):
        soft = np.clip(steepness * distance + 127, 0, 255).astype(np.uint8)
        assert np.array_equal(read(soft, image), soft > 127), steepness
    deep = np.clip(20000 * distance + 32000, 0, 65535).astype(np.uint16)
    assert np.array_equal(read(deep, image), deep > 32767)
    small = Image.fromarray(DISC * 255)
    for factor in (2, 3):
        larger = small.resize((64 * factor, 48 * factor), Image.Resampling.BICUBIC)
        Image.new("RGB", larger.size).save(image)
        assert np.array_equal(read(larger, image), np.asarray(larger) > 127), factor


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ((0, 1, 2), "0, 1, 2"),
        ((0, 100, 127), "0, 100, 127"),
        ((0, 128, 255), "0, 128, 255"),
        ((0, 1, 255), "0, 1, 255"),
        ((0, 255, 1), "0, 1, 255"),
        ((1, 2, 3), "1, 2, 3"),
        ((1, 2, 1), "1, 2"),
        ((0, 40, 200), "0, 40, 200"),
    ],
)
def test_values_that_may_be_classes_are_refused(values: tuple[int, ...], found: str, image: Path) -> None:
    """Whatever the second class's size: half the foreground, a few pixels, or a line."""
    square, line = np.zeros_like(DISC), np.zeros_like(DISC)
    square[2:7, 40:45] = line[3:40, 60] = 1
    for second in (DISC * (np.arange(64) < 30), square, line, square[::-1] & (np.arange(64) == 42)):
        mask = np.array(values, np.uint8)[np.where(second > 0, 2, DISC * (second == 0))]
        with pytest.raises(ValueError, match=f"values {found}: what is foreground cannot be told; .*data.mask_names"):
            read(mask, image)


def test_lines_of_few_values_are_refused(image: Path) -> None:
    """Vessels of two kinds beside a lesion."""
    for values in ((0, 60, 180, 255), (0, 1, 2, 255), (0, 1, 254, 255)):
        mask = values[3] * DISC
        mask[::6, 44:] = values[1]
        mask[:, 45:64:6] = values[2]
        with pytest.raises(ValueError, match=r"what is foreground cannot be told"):
            read(mask, image)


def test_areas_of_grey_among_soft_edges_are_refused(image: Path) -> None:
    """A second class of five pixels' width beside a first one with soft edges, as PNG and as JPEG."""
    distance = 14 - np.hypot(*(np.mgrid[:48, :64] - np.array([[[20]], [[30]]])))
    soft = np.clip(60 * distance + 127, 0, 255).astype(np.uint8)
    soft[36:41, 50:55] = 130
    with pytest.raises(ValueError, match=r"what is foreground cannot be told"):
        read(soft, image)
    large = np.kron(DISC, np.ones((4, 4), np.uint8)) * 255
    large[60:120, 180:250] = 128
    Image.new("RGB", (256, 192)).save(image)
    for quality in (50, 75, 95):
        with pytest.raises(ValueError, match=r"what is foreground cannot be told"):
            read(large, image, "mask.jpg", quality=quality)


def test_many_classes_beside_pixels_to_ignore_are_refused(image: Path) -> None:
    """Classes far below 255 would all be background, and the pixels to ignore foreground."""
    mask = np.zeros((48, 64), np.uint8)
    for number in range(20):
        mask[2 + 9 * (number // 6) :, 3 + 10 * (number % 6) :] = number + 1
    mask[:3] = 255
    with pytest.raises(ValueError, match=r"values 0, 1, 2, .*255: what is foreground cannot be told"):
        read(mask, image)


def test_masks_that_were_jpeg_once_are_cut_at_127(image: Path) -> None:
    """Or that were drawn smaller: blurred, noisy, of many values, none of them a class."""
    for quality in (30, 60, 90):
        Image.fromarray(DISC * 255).save(image.with_name("once.jpg"), quality=quality)
        noisy = np.asarray(Image.open(image.with_name("once.jpg")))
        assert len(np.unique(noisy)) > 9 and np.array_equal(read(noisy, image), DISC)
    for step in (6, 10):
        tiny = Image.fromarray(DISC[::step, ::step] * 255).resize((64, 48), Image.Resampling.BILINEAR)
        assert np.array_equal(read(tiny, image), np.asarray(tiny) > 127)
        assert read(tiny, image, "mask.jpg", quality=95).shape == (48, 64)


def test_pixels_to_ignore(image: Path) -> None:
    border = np.roll(DISC, 2, 0) ^ DISC
    for value in (1, 128, 200):
        found = read(np.where(border > 0, 255, DISC * value).astype(np.uint8), image, ignore_index=255)
        assert np.array_equal(found, np.where(border > 0, IGNORE, DISC))
    mask = np.where(border > 0, 255, 2 * DISC).astype(np.uint8)
    assert np.array_equal(read(mask, image, names=CLASSES, ignore_index=255), np.where(border > 0, IGNORE, 2 * DISC))
    assert np.array_equal(
        read(np.where(border > 0, 9, DISC).astype(np.uint8), image, names=CLASSES, ignore_index=9),
        np.where(border > 0, IGNORE, DISC),
    )
    with pytest.raises(ValueError, match=r"values 0, 2, 255, expected 0 to 2 .*data\.ignore_index"):
        read(mask, image, names=CLASSES)
    path = image.with_name("mask.png")
    Image.fromarray(np.where(border > 0, 255, DISC * 7).astype(np.uint8)).save(path)
    assert value_of_foreground(path, MaskFormat(ignore_index=255)) == 7
    assert value_of_foreground(path) is None


@pytest.mark.parametrize("value", [3, 200, 255])
def test_class_indices_that_have_no_name(value: int, image: Path) -> None:
    with pytest.raises(ValueError, match=f"values 0, {value}, expected 0 to 2 for background, skin, lesion"):
        read(DISC * np.uint8(value), image, names=CLASSES)


def test_class_indices(image: Path) -> None:
    indices = (DISC + (np.arange(64) > 30)).astype(np.uint8)
    assert set(indices.flat) == {0, 1, 2}
    for mask in (indices, indices.astype(np.uint16), palette_mask(indices, (0, 0, 0), (128, 0, 0), (0, 128, 0))):
        assert np.array_equal(read(mask, image, names=CLASSES), indices)
    with pytest.raises(ValueError, match=r"3 different colors; save the mask as indices"):
        read(rgb(indices, (0, 0, 0), (128, 0, 0), (64, 0, 0)), image, names=CLASSES)


def test_colors_and_palettes_that_may_be_anything_are_refused(image: Path) -> None:
    white, black, red = (255, 255, 255), (0, 0, 0), (255, 0, 0)
    with pytest.raises(ValueError, match=r"2 different colors"):
        read(rgb(DISC, white, red), image)
    # Programs order palettes as they like.
    for indices in (1 - DISC, np.zeros_like(DISC), np.ones_like(DISC)):
        with pytest.raises(
            ValueError, match=r"a palette that paints index 0 as \(255, 255, 255\), so that it may be the f"
        ):
            read(palette_mask(indices, white, black), image)
    with pytest.raises(ValueError, match=r"a palette that paints the indices \[0, 1\] in grey of \[1, 0\]"):
        read(palette_mask(1 - DISC, (1, 1, 1), black), image, names=CLASSES)
    grey = palette_mask(2 * DISC, black, (128, 128, 128), white)
    assert np.array_equal(read(grey, image, names=CLASSES), 2 * DISC) and np.array_equal(read(grey, image), DISC)
    assert np.array_equal(read(palette_mask(1 - DISC, white, black), image, names=CLASSES), 1 - DISC)
    with pytest.raises(ValueError, match=r"floating point pixels"):
        read(DISC.astype(np.float32), image, "mask.tif")
    with pytest.raises(ValueError, match=r"values -1, 0; masks have none below 0"):
        read(-DISC.astype(np.int32), image, "mask.tif")


def test_masks_of_another_size(image: Path) -> None:
    with pytest.raises(ValueError, match=r"mask of 48x64 pixels for an image of 64x48"):
        read(DISC.T.copy(), image)
    with pytest.raises(ValueError, match=r"mask of 32x48 pixels for an image of 64x48"):
        read(DISC[:, ::2].copy(), image)


# Masks of a whole data set


def samples_of(folder: Path, *masks: Any) -> list[Sample]:
    samples = []
    for number, mask in enumerate(masks):
        Image.new("RGB", (64, 48)).save(folder / f"{number}.png")
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(folder / f"{number}_mask.png")
        samples.append(Sample(str(number), folder / f"{number}.png", str(number), mask=folder / f"{number}_mask.png"))
    return samples


def test_different_foregrounds_in_one_data_set_are_refused(tmp_path: Path) -> None:
    red, green = (rgb(DISC, (0, 0, 0), color) for color in ((255, 0, 0), (0, 255, 0)))
    empty = np.zeros_like(DISC)
    for masks, found in (
        ((DISC, DISC, 2 * DISC), r"1 in 2 masks, as .*0_mask.png; 2 in 1 masks, as .*2_mask.png"),
        ((DISC * 255, DISC, empty), r"1 in 1 masks, .*; 255 in 1 masks"),
        ((red, green, empty), r"\(0, 255, 0\) in 1 masks, .*; \(255, 0, 0\) in 1 masks"),
        (
            (palette_mask(DISC, (0, 0, 0), (255, 0, 0)), palette_mask(3 * DISC, (0, 0, 0), *[(0, 0, 9)] * 3)),
            "1 in 1 .*; 3 in 1",
        ),
    ):
        with pytest.raises(
            DataError, match=rf"foreground has different values in different masks: {found}.*mask_names"
        ):
            check_files(samples_of(tmp_path, *masks))
    for masks in ((DISC, DISC, empty), (red, red, empty), (DISC * 255, Image.fromarray(DISC * 255).convert("1"))):
        check_files(samples_of(tmp_path, *masks))
    check_files(samples_of(tmp_path, DISC, 2 * DISC), MaskFormat(CLASSES))
    border = np.where(np.roll(DISC, 2, 0) ^ DISC, 255, DISC).astype(np.uint8)
    check_files(samples_of(tmp_path, DISC, border), MaskFormat(ignore_index=255))


def test_some_mask_must_have_foreground(tmp_path: Path) -> None:
    empty, ignored = np.zeros_like(DISC), DISC * 255
    with pytest.raises(DataError, match=r"no mask to train on shows foreground: all 2 of them were read"):
        check_foreground(samples_of(tmp_path, empty, empty), MaskFormat())
    with pytest.raises(DataError, match=r"no mask to train on shows foreground"):
        check_foreground(samples_of(tmp_path, ignored, empty), MaskFormat(ignore_index=255))
    with pytest.raises(DataError, match=r"no mask to train on shows lesion: all 2"):
        check_foreground(samples_of(tmp_path, DISC, empty), MaskFormat(CLASSES))
    with pytest.raises(DataError, match=r"shows skin, lesion"):
        check_foreground(samples_of(tmp_path, empty), MaskFormat(CLASSES))
    with pytest.raises(DataError, match=r"0_mask.png: not a usable mask \(values 0, 9, expected"):
        check_foreground(samples_of(tmp_path, 9 * DISC), MaskFormat(CLASSES))
    check_foreground(samples_of(tmp_path, empty, DISC), MaskFormat())
    check_foreground(samples_of(tmp_path, DISC, empty, 2 * DISC), MaskFormat(CLASSES))


def test_unusable_files_are_named_with_what_was_found(tmp_path: Path) -> None:
    samples = samples_of(tmp_path, DISC, DISC + (np.arange(64) > 30).astype(np.uint8), DISC[:, :32].copy())
    with pytest.raises(DataError) as caught:
        check_files(samples)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 3 images cannot be used, the first are"
    assert lines[1].startswith(f"  {tmp_path}/1_mask.png: not a usable mask (values 0, 1, 2: what is foreground")
    assert lines[2] == f"  {tmp_path}/2_mask.png: not a usable mask (mask of 32x48 pixels for an image of 64x48)"


# Turns that are noted beside the pixels (EXIF)


def with_turn(pixels: np.ndarray, path: Path, turn: int) -> Path:
    exif = Image.Exif()
    if turn != 1:
        exif[0x0112] = turn
    Image.fromarray(pixels).save(path, exif=exif)
    return path


UPRIGHT = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: np.rot90(x, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).T,
    8: np.rot90,
}
"""What each EXIF orientation asks viewers to do."""


@pytest.mark.parametrize("turn", UPRIGHT)
@pytest.mark.parametrize(("suffix", "more"), [("png", {}), ("tif", {}), ("tif", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_images_are_upright(turn: int, suffix: str, more: dict[str, str], dtype: Any, tmp_path: Path) -> None:
    """Pillow 13 scrambles uncompressed TIFF files that are turned by a quarter, if it is given their paths."""
    pixels = np.arange(6 * 40, dtype=dtype).reshape(6, 40) << (8 * (dtype == np.uint16))
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(tmp_path / f"i.{suffix}", exif=exif, **more)
    found = np.asarray(open_rgb(tmp_path / f"i.{suffix}"))[..., 0]
    assert np.array_equal(found, UPRIGHT[turn](np.arange(240).reshape(6, 40)))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffixes", [("jpg", "png"), ("png", "png"), ("tif", "tif"), ("tif", "png"), ("png", "tif")])
@pytest.mark.parametrize("square", [False, True])
def test_image_and_mask_turned_alike(turn: int, suffixes: tuple[str, str], square: bool, tmp_path: Path) -> None:
    disc = DISC[:, :48].copy() if square else DISC
    image = with_turn(np.stack([disc * 255] * 3, -1), tmp_path / f"i.{suffixes[0]}", turn)
    mask = with_turn(disc * 255, tmp_path / f"m.{suffixes[1]}", turn)
    upright = np.asarray(open_rgb(image))[..., 0] > 127
    assert np.array_equal(upright, UPRIGHT[turn](disc)) and np.array_equal(open_mask(mask, image), upright)


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_quarter_turns_are_told_by_the_size(turn: int, suffix: str, tmp_path: Path) -> None:
    """A mask without EXIF may be drawn on the upright image or on the stored pixels, and the other way round."""
    turned = with_turn(np.stack([DISC * 255] * 3, -1), tmp_path / f"turned.{suffix}", turn)
    upright = np.asarray(open_rgb(turned))[..., 0] > 127
    stored = with_turn(DISC * 255, tmp_path / "stored.png", 1)
    drawn = with_turn(upright.astype(np.uint8) * 255, tmp_path / "drawn.png", 1)
    assert np.array_equal(open_mask(stored, turned), upright) and np.array_equal(open_mask(drawn, turned), upright)
    plain = with_turn(np.stack([DISC] * 3, -1), tmp_path / f"plain.{suffix}", 1)
    tagged = with_turn(DISC * 255, tmp_path / "tagged.png", turn)
    assert np.array_equal(open_mask(tagged, plain), DISC)
    wide = with_turn(np.stack([upright.astype(np.uint8)] * 3, -1), tmp_path / f"wide.{suffix}", 1)
    assert np.array_equal(open_mask(tagged, wide), upright)


@pytest.mark.parametrize(
    ("of_image", "of_mask", "square"),
    [
        (3, 1, False),
        (2, 1, False),
        (4, 1, True),
        (1, 3, False),
        (6, 1, True),
        (5, 1, True),
        (1, 8, True),
        (6, 8, False),
        (8, 6, True),
        (3, 4, False),
    ],
)
def test_turns_that_sizes_do_not_tell_are_refused(of_image: int, of_mask: int, square: bool, tmp_path: Path) -> None:
    disc = DISC[:, :48].copy() if square else DISC
    for suffix in ("png", "tif"):
        image = with_turn(np.stack([disc * 255] * 3, -1), tmp_path / f"i.{suffix}", of_image)
        mask = with_turn(disc * 255, tmp_path / f"m.{suffix}", of_mask)
        with pytest.raises(ValueError, match=r"the image has (none|an EXIF orientation \(\d\)) .*mogrify -auto-orient"):
            open_mask(mask, image)
        # An empty mask is the same either way.
        assert not open_mask(with_turn(disc * 0, tmp_path / f"e.{suffix}", of_mask), image).any()


@pytest.mark.parametrize("turn", [0, 9, 255])
def test_orientations_that_mean_nothing(turn: int, tmp_path: Path) -> None:
    image = with_turn(np.stack([DISC * 255] * 3, -1), tmp_path / "i.jpg", turn)
    assert np.array_equal(np.asarray(open_rgb(image))[..., 0] > 127, DISC)
    assert np.array_equal(open_mask(with_turn(DISC, tmp_path / "m.png", turn), image), DISC)
    assert np.array_equal(open_mask(with_turn(DISC, tmp_path / "m.png", 1), image), DISC)


# Images of 16 bits


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_images_are_brought_from_the_range_that_they_show(bits: int, suffix: str, tmp_path: Path) -> None:
    ramp = (np.arange(256, dtype=np.uint16) << (bits - 8)).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / f"deep.{suffix}")
    found = np.asarray(open_rgb(tmp_path / f"deep.{suffix}"))
    assert np.array_equal(found, np.stack([np.arange(256).reshape(16, 16)] * 3, -1))


def test_values_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    for pixels, message in (
        (np.array([[0, 70000]], np.int32), "values from 0 to 70000"),
        (np.array([[-5, 70]], np.int32), "values from -5 to 70"),
        (np.eye(4, dtype=np.float32), "floating point pixels"),
    ):
        Image.fromarray(pixels).save(tmp_path / "deep.tif")
        with pytest.raises(ValueError, match=message):
            open_rgb(tmp_path / "deep.tif")


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG file of 16 bits a channel, 2 or 4 of them with transparency; Pillow writes none."""
    height, width, channels = pixels.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_16_bits(pixels: np.ndarray) -> bytes:
    """A TIFF file of three channels with 16 bits each; Pillow writes none."""
    height, width, channels = pixels.shape
    content = pixels.astype("<u2").tobytes()
    bits_at = 8 + 2 + 10 * 12 + 4
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, bits_at),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, bits_at + 2 * channels),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(content)),
        (284, 3, 1, 1),
    ]
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *entry) for entry in fields)
    return (
        b"II*\0"
        + struct.pack("<I", 8)
        + directory
        + bytes(4)
        + struct.pack(f"<{channels}H", *[16] * channels)
        + content
    )


def deep_file(kind: str, pixels: np.ndarray, folder: Path) -> Path:
    height, width, _ = pixels.shape
    if kind == "ppm":
        content = f"P6 {width} {height} 65535\n".encode() + pixels.astype(">u2").tobytes()
    else:
        content = (png_of_16_bits if kind == "png" else tiff_of_16_bits)(pixels)
    path = folder / f"deep.{kind}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["png", "tif", "ppm"])
def test_colors_of_16_bits(kind: str, tmp_path: Path) -> None:
    ramp = np.stack([np.arange(256).reshape(16, 16)] * 3, -1)
    found = np.asarray(open_rgb(deep_file(kind, ramp * 257, tmp_path)))
    assert np.array_equal(found, ramp)
    for bits in (8, 10, 12, 14):
        with pytest.raises(
            ValueError, match=r"16 bits a color of which at most 14 are used; convert the image to 8 bits"
        ):
            open_rgb(deep_file(kind, ramp << (bits - 8), tmp_path))


@pytest.mark.parametrize("channels", [2, 4])
def test_16_bits_with_transparency(channels: int, tmp_path: Path) -> None:
    ramp = np.stack([np.arange(256).reshape(16, 16)] * (channels - 1) + [np.full((16, 16), 255)], -1)
    assert np.array_equal(np.asarray(open_rgb(deep_file("png", ramp << 8, tmp_path))), ramp[..., [0] * 3])
    with pytest.raises(ValueError, match=r"16 bits a color"):
        open_rgb(deep_file("png", ramp << 4, tmp_path))


@pytest.mark.parametrize("kind", ["png", "tif"])
@pytest.mark.parametrize("value", [1, 255])
def test_color_masks_of_16_bits_are_not_read_as_empty(value: int, kind: str, image: Path) -> None:
    mask = deep_file(kind, np.stack([DISC.astype(int) * value] * 3, -1), image.parent)
    with pytest.raises(ValueError, match=r"16 bits a color; save the mask as one channel of 8 bits"):
        open_mask(mask, image)
