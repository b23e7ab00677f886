"""One's own images: class folders, tables, images with masks; every way in which they can be wrong."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import (
    Data,
    DataError,
    Dataset,
    check_classes,
    check_files,
    load_split,
    make_split,
    read_dataset,
    split_text,
)
from datasets.index import FileIndex, find_files
from datasets.synthetic import write_dataset
from PIL import Image

COLORS = iter(range(10**6))


def image(path: Path) -> Path:
    """A small image unlike any other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number = next(COLORS)
    formats = {"jpe": "jpeg", "jfif": "jpeg"}
    pixels = np.full((4, 5, 3), (number // 256 % 256, number % 256, 7), np.uint8)
    Image.fromarray(pixels).save(path, formats.get(path.suffix.lower()[1:]))
    return path


def mask(path: Path, value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.eye(4, 5, dtype=np.uint8) * np.uint8(value)).save(path)
    return path


def dicom(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(128) + b"DICM" + bytes(40))
    return path


def folder(root: Path, **more: Any) -> Dataset:
    return read_dataset(Data("folder", str(root), **more))


def masks(root: Path, **more: Any) -> Dataset:
    return read_dataset(Data("masks", str(root), **more), masks=True)


def table(root: Path, text: str | bytes, names: str = "a.png b.png c.png d.png", **more: Any) -> Dataset:
    """The data set of a CSV file beside some images."""
    for name in names.split():
        if not (root / name).exists():
            image(root / name)
    (root / "labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return read_dataset(Data("table", str(root), **more))


def groups_of(dataset: Dataset) -> dict[str, str]:
    return {sample.id: sample.group for sample in dataset.samples}


def splits_of(dataset: Dataset) -> dict[str, str | None]:
    return {sample.id: sample.split for sample in dataset.samples}


# Class folders


def test_class_folders(tmp_path: Path) -> None:
    for name in ("nevus/1.png", "nevus/more/2.JPG", "melanoma/1.tif", "melanoma/x.webp", "melanoma/deep/er/y.BMP"):
        image(tmp_path / name)
    dataset = folder(tmp_path, license="CC0")
    assert dataset.labels == ["melanoma", "nevus"] and dataset.license == "CC0" and not dataset.multi_label
    assert {sample.id: sample.label for sample in dataset.samples} == {
        "melanoma/1.tif": 0,
        "melanoma/deep/er/y.BMP": 0,
        "melanoma/x.webp": 0,
        "nevus/1.png": 1,
        "nevus/more/2.JPG": 1,
    }
    assert all(sample.split is None and sample.group == sample.id for sample in dataset.samples)
    assert dataset.group_kind == "image" and dataset.notes == () and not dataset.has_masks
    check_files(dataset.samples)


def test_class_names_that_are_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    for name in ("10", "9", "1", "grade b", "Grade a"):
        image(tmp_path / name / "1.png")
    assert folder(tmp_path).labels == ["1", "9", "10", "Grade a", "grade b"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ("train val test", "train val test"),
        ("train valid test", "train val test"),
        ("training validation testing", "train val test"),
        ("Train Dev TEST", "train val test"),
        ("train test", "train test"),
        ("train val", "train val"),
        ("train", "train"),
        ("test", "test"),
        ("val test", "val test"),
    ],
)
def test_division_of_folders_is_kept(names: str, splits: str, tmp_path: Path) -> None:
    expected = {}
    for name, split in zip(names.split(), splits.split()):
        for of_class in ("a", "b"):
            for number in range(20 if split == "train" else 2):
                expected[image(tmp_path / name / of_class / f"{number}.png").relative_to(tmp_path).as_posix()] = split
    dataset = folder(tmp_path)
    assert dataset.labels == ["a", "b"] and splits_of(dataset) == expected
    made = make_split(dataset)
    for name in splits.split():
        of_split = {sample.id for sample in made[name]}
        given = {identity for identity, split in expected.items() if split == name}
        carved = {sample.id for sample in made["val"]} if name == "train" and "val" not in splits else set()
        assert of_split | carved == given and not of_split & carved
        assert len(carved) == (4 if name == "train" and "val" not in splits else 0)
    assert made == make_split(dataset)


def test_splits_or_classes(tmp_path: Path) -> None:
    for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png"):
        image(tmp_path / name)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "readme.txt").touch()
    assert folder(tmp_path).labels == ["a", "b"]
    image(tmp_path / "controls" / "1.png")
    with pytest.raises(DataError, match=r"controls beside test, train: splits or classes"):
        folder(tmp_path)
    (tmp_path / "controls" / "1.png").unlink()
    image(tmp_path / "training" / "a" / "2.png")
    with pytest.raises(DataError, match=r"two folders of one split among test, train, training"):
        folder(tmp_path)
    # Without "train" they are classes like others.
    for name in ("x/test/1.png", "x/control/1.png"):
        image(tmp_path / name)
    assert folder(tmp_path / "x").labels == ["control", "test"]


def test_files_that_are_left_out_are_counted(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "._c/3.png", "__MACOSX/d/4.png", ".hidden/5.png", "a/._1.png", "a/.2.png"):
        image(tmp_path / name)
    for name in ("a/notes.txt", "a/.DS_Store", "b/Thumbs.db", "readme.md", "empty/x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    image(tmp_path / "loose.png")
    dataset = folder(tmp_path)
    assert [sample.id for sample in dataset.samples] == ["a/1.png", "b/2.png"]
    assert dataset.notes == (
        "left out: 5 files outside the class folders or that are no images, as notes.txt, Thumbs.db, x.csv",
        "left out: 1 folders without images, as empty",
    )


def test_folders_without_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in folders of classes \(ROOT/CLASS/IMAGE\); it is empty"):
        folder(tmp_path)
    image(tmp_path / "loose.png")
    with pytest.raises(DataError, match=r"no images in folders of classes .*; there is loose.png"):
        folder(tmp_path)
    with pytest.raises(DataError, match=r"nothing: no such folder"):
        folder(tmp_path / "nothing")
    image(tmp_path / "a" / "1.png")
    dataset = folder(tmp_path)
    with pytest.raises(DataError, match=r"one class alone, a: nothing to tell apart"):
        check_classes(dataset, dataset.samples)


def test_links_to_folders(tmp_path: Path) -> None:
    """They are followed, and one to a folder that holds it does not go on forever."""
    image(tmp_path / "elsewhere" / "1.png")
    image(tmp_path / "root" / "b" / "2.png")
    (tmp_path / "root" / "a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert [sample.id for sample in folder(tmp_path / "root").samples] == ["a/1.png", "b/2.png"]


@pytest.mark.parametrize("name", ["scan.dcm", "scan.DCM", "scan.dicom", "IM000001", "1.2.840.113619.2.55", "scan.img"])
def test_dicom_is_refused_with_how_to_convert_it(name: str, tmp_path: Path) -> None:
    advice = rf"{name}: DICOM is not read; convert it to PNG first, for example with dcmj2pnm"
    image(tmp_path / "f" / "a" / "1.png")
    path = dicom(tmp_path / "f" / "a" / name)
    with pytest.raises(DataError, match=advice):
        folder(tmp_path / "f")
    path.rename(tmp_path / "f" / name)
    with pytest.raises(DataError, match=advice):
        folder(tmp_path / "f")
    image(tmp_path / "m" / "images" / "1.png"), mask(tmp_path / "m" / "masks" / "1.png")
    dicom(tmp_path / "m" / "images" / name)
    with pytest.raises(DataError, match=advice):
        masks(tmp_path / "m")
    dicom(tmp_path / "t" / name)
    with pytest.raises(DataError, match=advice):
        table(tmp_path / "t", f"image,label\na.png,x\n{name},y\n")
    # Originals may lie beside what the table lists.
    assert len(table(tmp_path / "t", "image,label\na.png,x\nb.png,y\n").samples) == 2


def test_dicom_under_another_suffix(tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.png")
    dicom(tmp_path / "a" / "2.png")
    with pytest.raises(DataError, match=r"1 of 2 images cannot be used.*\n.*2\.png: .*DICOM is not read; convert it"):
        check_files(folder(tmp_path).samples)


# Tables


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_tables(separator: str, newline: str, encoding: str, tmp_path: Path) -> None:
    rows = ["image,label,group,notes", "a.png,nevus,p1,é", 'b,"nevus",p2,', "", " c.png , mel ,p1,x", "d.png,mel,p3,y"]
    text = newline.join(rows).replace(",", separator).encode(encoding)
    more = {} if encoding.startswith("utf-8") else {"encoding": encoding}
    dataset = table(tmp_path, text, **more)
    assert dataset.labels == ["mel", "nevus"] and [sample.label for sample in dataset.samples] == [1, 1, 0, 0]
    assert groups_of(dataset) == {"a.png": "p1", "b": "p2", "c.png": "p1", "d.png": "p3"}
    assert [sample.image.name for sample in dataset.samples] == ["a.png", "b.png", "c.png", "d.png"]
    assert dataset.group_kind == "group" and dataset.notes == () and not dataset.multi_label


def test_columns_of_other_names(tmp_path: Path) -> None:
    for name in "abcd":
        mask(tmp_path / "truth" / f"{name}.bmp")
        image(tmp_path / "depth" / f"{name}1.png"), image(tmp_path / "depth" / f"{name}2.png")
    header = "file;dx;patient_id;part;truth;z1;z2"
    parts = {"a": "training", "b": "Train", "c": "valid", "d": "test"}
    lines = [f"{n}.png;{n > 'b'};p{n};{part};truth/{n}.bmp;{n}1;{n}2" for n, part in parts.items()]
    dataset = table(
        tmp_path,
        "\n".join([header, *lines]),
        image_column="file",
        label_column="dx",
        group_column="patient_id",
        split_column="part",
        mask_column="truth",
        stack_columns=["z2", "z1"],
    )
    assert dataset.labels == ["False", "True"] and dataset.group_kind == "patient"
    assert list(splits_of(dataset).values()) == ["train", "train", "val", "test"]
    assert dataset.has_masks and dataset.has_stacks and dataset.num_slices == 2
    first = dataset.samples[0]
    assert first.mask == tmp_path / "truth" / "a.bmp" and [path.name for path in first.stack] == ["a2.png", "a1.png"]


def test_usual_columns_and_columns_that_are_left_out(tmp_path: Path) -> None:
    for name in "abcd":
        mask(tmp_path / f"{name}_mask.png"), image(tmp_path / f"{name}_1.png"), image(tmp_path / f"{name}_2.png")
    text = "image,label,mask,stack1,stack2,split\n" + "".join(
        f"{n}.png,x{n > 'b'},{n}_mask.png,{n}_1.png,{n}_2.png,{'train' if n < 'd' else 'test'}\n" for n in "abcd"
    )
    dataset = table(tmp_path, text)
    assert dataset.has_masks and dataset.num_slices == 2 and dataset.samples[3].split == "test"
    assert dataset.group_kind == "image" and dataset.samples[0].stack[1].name == "a_2.png"
    check_files(dataset.samples)
    partly = table(tmp_path, text.replace("b_mask.png", "").replace("c_1.png,c_2.png", ",nan").replace("test", ""))
    assert not partly.has_masks and not partly.has_stacks and partly.samples[0].mask and not partly.samples[1].mask
    assert partly.notes[-2:] == ("1 of 4 images have no mask", "1 of 4 images have no stack")
    with pytest.raises(DataError, match=r"table: 1 of 4 images have no mask, as b.png"):
        read_dataset(Data("table", str(tmp_path)), masks=True)
    with pytest.raises(DataError, match=r"3 images have a split and others, as d.png, have none"):
        make_split(partly)
    with pytest.raises(DataError, match=r"1 images have some slices and lack others, the first are c.png"):
        table(tmp_path, text.replace("c_1.png", ""))
    with pytest.raises(DataError, match=r"1 of 4 slices of the column stack2 are missing from .*, the first are z.png"):
        table(tmp_path, text.replace("c_2.png", "z.png"))
    empty = table(tmp_path, "image,label,mask,split\n" + "".join(f"{n}.png,x{n > 'b'},,\n" for n in "abcd"))
    assert not empty.has_masks and set(splits_of(empty).values()) == {None}
    with pytest.raises(DataError, match=r"table has no masks: use"):
        read_dataset(Data("table", str(tmp_path)), masks=True)


def test_several_labels_at_once(tmp_path: Path) -> None:
    text = "image,age,edema,mass,group\na.png,40,1,0,p\nb.png,1,0.0,1.0,p\nc.png,0,1,1,q\nd.png,0,0,0,r\n"
    dataset = table(tmp_path, text)
    assert dataset.multi_label and dataset.labels == ["edema", "mass"]
    assert [sample.labels for sample in dataset.samples] == [(1, 0), (0, 1), (1, 1), (0, 0)]
    assert [sample.classes for sample in dataset.samples] == [[0], [1], [0, 1], []]
    assert all(sample.label is None for sample in dataset.samples)
    chosen = table(tmp_path, text, label_column=["mass"])
    assert chosen.multi_label and chosen.labels == ["mass"] and chosen.samples[1].labels == (1,)
    # One column as a name is one of classes.
    single = table(tmp_path, text, label_column="mass")
    assert (not single.multi_label and single.labels == ["0", "1.0", "1"]) or single.labels == ["0", "1", "1.0"]
    exclusive = table(tmp_path, "image,x,y\na.png,1,0\nb.png,0,1\nc.png,1,0\nd.png,1,0\n")
    assert exclusive.notes == (
        "every image has exactly one of x, y: if they exclude each other, use one column of names",
    )


def test_labels_that_are_missing_or_uncertain_are_not_dropped(tmp_path: Path) -> None:
    for value in ("", "nan", "-1", "NA"):
        text = f"image,edema,mass\na.png,1,0\nb.png,{value},1\nc.png,1,1\nd.png,0,0\n"
        with pytest.raises(DataError, match=rf"b.png has '{value}' in column edema, expected 0 or 1; to use other col"):
            table(tmp_path, text)
        assert table(tmp_path, text, label_column=["mass"]).labels == ["mass"]
    for value in ("", "nan", "NA", "?", "N/A"):
        with pytest.raises(DataError, match=r"1 images have no label, the first are b.png"):
            table(tmp_path, f"image,label\na.png,x\nb.png,{value}\nc.png,y\n")
    assert table(tmp_path, "image,label\na.png,none\nb.png,-\nc.png,+\n").labels == ["+", "-", "none"]
    with pytest.raises(DataError, match=r"c.png has '2' in column grade, expected 0 or 1"):
        table(tmp_path, "image,grade\na.png,0\nb.png,1\nc.png,2\n", label_column=["grade"])
    with pytest.raises(DataError, match=r"names a column twice"):
        table(tmp_path, "image,grade\na.png,0\nb.png,1\n", label_column=["grade", "grade"])


def test_tables_without_labels(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no column label, and none of 0 and 1; it has image, dx: give --data.label_co"
    ):
        table(tmp_path, "image,dx\na.png,x\nb.png,y\n")
    for name in "ab":
        mask(tmp_path / f"{name}_mask.png")
    text = "image,mask,dx\na.png,a_mask.png,x\nb.png,b_mask.png,y\n"
    assert table(tmp_path, text).labels == []
    flags = text.replace(",x", ",0").replace(",y", ",1")
    assert table(tmp_path, flags).labels == ["dx"] and table(tmp_path, flags, label_column=[]).labels == []


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "NA", "n/a", "?", "None", "null", " "])
def test_images_of_unknown_groups_are_groups_of_their_own(missing: str, tmp_path: Path) -> None:
    dataset = table(
        tmp_path, f"image,label,lesion_id\na,x,l1\nb,y,{missing}\nc,x,{missing}\nd,y,l1\n", group_column="lesion_id"
    )
    assert groups_of(dataset) == {"a": "l1", "b": "b", "c": "c", "d": "l1"} and dataset.group_kind == "lesion"
    assert dataset.notes == ("2 images have no lesion_id and are groups of their own, as b",)
    # Even where a group is called like an image.
    named = table(tmp_path, f"image,label,group\na,x,b\nb,y,{missing}\nc,x,b\nd,y,e\n")
    assert groups_of(named) == {"a": "b", "b": "image b", "c": "b", "d": "e"}
    alone = table(tmp_path, f"image,label,group\na,x,{missing}\nb,y,{missing}\n")
    assert alone.group_kind == "image" and groups_of(alone) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\na.png,x\nb.png\n", "labels.csv, line 3: 1 values for 2 columns"),
        ("image,label\na.png,x,\nb.png,y\n", "labels.csv, line 2: 3 values for 2 columns"),
        ('image,label,notes\na.png,x,"two\nlines"\nb.png,y\n', "labels.csv, line 4: 2 values for 3 columns"),
        ("image,label,label\na.png,x,y\n", "labels.csv, line 1: more than one column is called 'label'"),
        ("image, label,label \na.png,x,y\n", "more than one column is called 'label'"),
        ("", "labels.csv: no rows"),
        ("image,label\n\n", "labels.csv: no rows"),
        ("file,label\na.png,x\n", "labels.csv, line 1: no column image; it has file, label"),
        ('image,label\na.png,x\nb.png,"y\nc.png,x\nd.png,y\n', "row from line 3 on: not CSV .*is a quote unclosed"),
        ('image,label\na.png,"x"z\nb.png,y\n', "row from line 2 on: not CSV"),
        ("image,label\na.png,x\nb.\0png,y\n", "labels.csv, line 3: a zero byte, read as utf-8"),
        ("image,label\na.png,né\n".encode("latin-1"), r"line 2: byte 0xe9 is not utf-8; .*--data\.encoding latin-1"),
        (b"\xef\xbb\xbfimage,label\na.png,n\xe9\n", r"line 2: byte 0xe9 is not utf-8"),
        ("image,label\na.png,x\n".encode("utf-16"), r"is UTF-16, not utf-8; .*--data\.encoding utf-16"),
        ("image,label\na.png,x\n".encode("utf-16-be"), r"line 1: a zero byte.*\(--data\.encoding utf-16-le\)"),
        ("image,label\na.png,x\na.png,y\n", "1 images are listed more than once, the first are a.png"),
        ("image,label\na.png,x\na,y\n", "1 images are listed more than once, the first are .*a.png"),
        ("image,label\na.png,x\n,y\n", "1 rows have no image"),
        ("image,label\na.png,x\nz.png,y\nq,x\n", "2 of 3 images are missing from .*, the first are z.png, q"),
        ("image,label,split\na.png,x,train\nb.png,y,holdout\n", "b.png has the split 'holdout'; known are train, tr"),
    ],
)
def test_broken_tables(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, text)


def test_other_encodings_and_the_table_to_use(tmp_path: Path) -> None:
    latin = "image,label\na.png,naevus é\nb.png,ü\n".encode("latin-1")
    assert table(tmp_path, latin, encoding="latin-1").labels == ["naevus é", "ü"]
    with pytest.raises(DataError, match=r"--data.encoding klingon: no such encoding"):
        table(tmp_path, latin, encoding="klingon")
    with pytest.raises(DataError, match=r"labels.csv: the file is UTF-16, not latin-1"):
        table(tmp_path, "image,label\na.png,x\n".encode("utf-16"), encoding="latin-1")
    (tmp_path / "more.CSV").write_text("image,label\na.png,x\nb.png,z\n")
    with pytest.raises(DataError, match=r"2 files end in .csv; give --data.table FILE"):
        table(tmp_path, latin, encoding="latin-1")
    for path in ("more.CSV", tmp_path / "more.CSV"):
        assert table(tmp_path, latin, table=str(path)).labels == ["x", "z"]
    with pytest.raises(DataError, match=r"other.csv: no such file"):
        table(tmp_path, latin, table="other.csv")


def test_separators_in_names_of_columns(tmp_path: Path) -> None:
    dataset = table(tmp_path, "image;label;size (w, h, d);x,y,z\na.png;p;1;2\nb.png;q;1;2\n")
    assert dataset.labels == ["p", "q"]


def test_names_mean_one_file(tmp_path: Path) -> None:
    for name in ("one/1.png", "two/1.png", "two/2.JPG", "two/3.tar.png", "1.jpg", "x.png", "X.png"):
        image(tmp_path / name)
    index = FileIndex(tmp_path)

    def find(name: str) -> str:
        return index.find_all([name], "images")[0].relative_to(tmp_path).as_posix()

    for name, expected in [
        ("one/1.png", "one/1.png"),
        ("one/1", "one/1.png"),
        ("two\\1.png", "two/1.png"),
        ("./one/1.png", "one/1.png"),
        ("2.JPG", "two/2.JPG"),
        ("2.jpg", "two/2.JPG"),
        ("2", "two/2.JPG"),
        ("TWO/2.jpg", "two/2.JPG"),
        ("3.tar", "two/3.tar.png"),
        ("1.jpg", "1.jpg"),
        ("x.png", "x.png"),
        ("X.png", "X.png"),
        (str(tmp_path / "one" / "1.png"), "one/1.png"),
    ]:
        assert find(name) == expected, name
    for name in ("1.png", "1"):
        with pytest.raises(DataError, match=rf"{name} may be .* or .*; give its folder and suffix"):
            find(name)
    for name in ("4", "one", "one/2", "", "../nothing"):
        with pytest.raises(DataError, match=r"1 of 1 images are missing"):
            find(name)


def test_images_that_no_table_lists(tmp_path: Path) -> None:
    dataset = table(tmp_path, "image,label\na.png,x\nb.png,y\n")
    assert dataset.notes == ("left out: 2 images that labels.csv does not list",)


# Images with masks


@pytest.mark.parametrize(
    ("of_image", "of_mask"),
    [
        ("1.jpg", "1.png"),
        ("1.JPG", "1.PNG"),
        ("1.Tif", "1_mask.png"),
        ("1.png", "1_segmentation.bmp"),
        ("a.b.jpg", "a.b_mask.gif"),
        ("scan 1.jpeg", "scan 1.TIFF"),
        ("case/1.png", "case/1_mask.png"),
        ("IMG1.jpg", "img1_Mask.png"),
        ("1_mask.png", "1_mask.png"),
    ],
)
@pytest.mark.parametrize(("images", "of_masks"), [("images", "masks"), ("Images", "MASKS")])
def test_masks_are_found_by_name(of_image: str, of_mask: str, images: str, of_masks: str, tmp_path: Path) -> None:
    image(tmp_path / images / of_image), mask(tmp_path / of_masks / of_mask)
    image(tmp_path / images / "other.png"), mask(tmp_path / of_masks / "other.png")
    dataset = masks(tmp_path)
    assert {s.id: s.mask for s in dataset.samples} == {
        f"{images}/{of_image}": tmp_path / of_masks / of_mask,
        f"{images}/other.png": tmp_path / of_masks / "other.png",
    }
    assert dataset.labels == [] and dataset.mask_format.num_classes == 1
    check_files(dataset.samples)


def test_masks_of_several_classes(tmp_path: Path) -> None:
    image(tmp_path / "images" / "1.png"), mask(tmp_path / "masks" / "1.png", value=2)
    dataset = masks(tmp_path, mask_names=["background", "skin", "lesion"], ignore_index=9)
    assert dataset.mask_format.names == ("background", "skin", "lesion") and dataset.mask_format.ignore_index == 9
    assert dataset.mask_format.num_classes == 3 and dataset.mask_format.foregrounds == ["skin", "lesion"]
    for names in (["lesion"], ["a", "a"], []):
        with pytest.raises(DataError, match=r"must be 2 to 255 different names, the background first"):
            masks(tmp_path, mask_names=names)
    for value in (-1, 70000):
        with pytest.raises(DataError, match=f"data.ignore_index={value} must be from 0 to 65535"):
            masks(tmp_path, ignore_index=value)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("names", ["train val test", "Training valid", "train testing"])
def test_division_of_masks_is_kept(inside: bool, names: str, tmp_path: Path) -> None:
    expected = {}
    for name, split in zip(names.split(), ["train", "test" if "testing" in names else "val", "test"]):
        for number in range(3):
            place = [f"{kind}/{name}" if inside else f"{name}/{kind}" for kind in ("images", "masks")]
            image(tmp_path / place[0] / f"{number}.png"), mask(tmp_path / place[1] / f"{number}.png")
            expected[f"{place[0]}/{number}.png"] = split
    assert splits_of(masks(tmp_path)) == expected


def test_masks_that_are_missing_or_too_many(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / "images" / f"{number}.jpg"), mask(tmp_path / "masks" / f"{number}_mask.png")
    for name in ("extra.png", "._0_mask.png"):
        mask(tmp_path / "masks" / name)
    (tmp_path / "images" / "notes.txt").touch()
    dataset = masks(tmp_path)
    assert len(dataset.samples) == 5
    assert dataset.notes == (
        "left out: 1 files that are no images, as notes.txt",
        "left out: 1 masks without an image, as extra.png",
    )
    mask(tmp_path / "masks" / "3.tif")
    with pytest.raises(DataError, match=r"3\.tif and .*3_mask\.png may both be the mask of .*3\.jpg"):
        masks(tmp_path)
    (tmp_path / "masks" / "3.tif").unlink()
    image(tmp_path / "images" / "2.png")
    with pytest.raises(DataError, match=r"2_mask.png would be the mask of both .*2\.jpg and .*2\.png"):
        masks(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    for number in (1, 4):
        (tmp_path / "masks" / f"{number}_mask.png").unlink()
    with pytest.raises(
        DataError, match=r"2 of 5 masks are missing, the first are 1, 4; known are NAME, NAME_mask, NAME_s"
    ):
        masks(tmp_path)
    for path in (tmp_path / "masks").iterdir():
        path.unlink()
    (tmp_path / "masks").rmdir()
    with pytest.raises(
        DataError, match=r"is not a folder of images/NAME and masks/NAME: masks missing; there is images"
    ):
        masks(tmp_path)
    with pytest.raises(DataError, match=r"nothing: no such folder"):
        masks(tmp_path / "nothing")


# Groups


def test_groups_by_regular_expression(tmp_path: Path) -> None:
    for name in ("nevus/p1_a.png", "nevus/p1_b.png", "mel/p2_1.png", "mel/p10_1.png"):
        image(tmp_path / name)
    expected = {"mel/p10_1.png": "10", "mel/p2_1.png": "2", "nevus/p1_a.png": "1", "nevus/p1_b.png": "1"}
    for text in (r"p(\d+)", r"^p(\d+)_", r"(?<=p)\d+", r"/p(\d+)_"):
        dataset = folder(tmp_path, group_regex=text)
        assert groups_of(dataset) == expected and dataset.group_kind == "group"
    assert set(groups_of(folder(tmp_path, group_regex=r"^\w+/")).values()) == {"mel/", "nevus/"}
    for text in (r"q\d+", r"_(\d)", r"p1(_z)?"):
        with pytest.raises(DataError, match=r"data\.group_regex=.* finds nothing in \w+/p\d+_\w\.png"):
            folder(tmp_path, group_regex=text)
    for text in ("(", "[a", "*"):
        with pytest.raises(DataError, match=r"data\.group_regex=.* is not a regular expression"):
            folder(tmp_path, group_regex=text)


def test_initials_are_no_missing_groups(tmp_path: Path) -> None:
    for name in ("a/NA_1.png", "a/NA_2.png", "b/XY_1.png"):
        image(tmp_path / name)
    dataset = folder(tmp_path, group_regex=r"^(\w\w)_")
    assert list(groups_of(dataset).values()) == ["NA", "NA", "XY"] and dataset.notes == ()


@pytest.mark.parametrize("style", ["{0}/{1}.png", "{1}.png", "{1}", "{0}/{1}", ".\\{0}\\{1}.png"])
def test_groups_by_another_table(style: str, tmp_path: Path) -> None:
    pairs = [("nevus", "1"), ("nevus", "2"), ("mel", "3"), ("mel", "4")]
    for of_class, name in pairs:
        image(tmp_path / "data" / of_class / f"{name}.png")
    listed = {style.format(*pair): f"p{int(pair[1]) // 2}" for pair in pairs}
    path = tmp_path / "groups.csv"
    path.write_text("file;patient\n" + "".join(f"{name};{group}\n" for name, group in listed.items()) + "else;p9\n")
    more = {"group_table": str(path), "group_column": "patient", "image_column": "file"}
    dataset = folder(tmp_path / "data", **more)
    assert groups_of(dataset) == {"mel/3.png": "p1", "mel/4.png": "p2", "nevus/1.png": "p0", "nevus/2.png": "p1"}
    path.write_text(path.read_text().replace("p2", "NA"))
    dataset = folder(tmp_path / "data", **more)
    assert groups_of(dataset)["mel/4.png"] == "mel/4.png"
    assert dataset.notes == ("1 images have no group and are groups of their own, as mel/4.png",)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:]]))
    assert folder(tmp_path / "data", **more).notes[0].startswith("2 images have no group")
    path.write_text("\n".join([*lines, lines[1].split(";")[0] + ";p7"]))
    with pytest.raises(DataError, match=r"groups.csv: nevus/1.png is in the groups 'p0' and 'p7'"):
        folder(tmp_path / "data", **more)


def test_tables_of_groups_that_do_not_fit(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png"):
        image(tmp_path / "data" / name)
    path = tmp_path / "groups.csv"
    for text, message in [
        ("image,group\nx.png,p\n", "groups.csv: none of its images is one of these, as a/1.png"),
        ("image,group\n1.png,p\n", "groups.csv: 1.png may be a/1.png or b/1.png; give its folder and suffix"),
        ("image,patient\na/1.png,p\n", "groups.csv, line 1: no column group; it has image, patient"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            folder(tmp_path / "data", group_table=str(path))
    with pytest.raises(DataError, match=r"none.csv: no such file"):
        folder(tmp_path / "data", group_table=str(tmp_path / "none.csv"))


def test_groups_of_tables_may_come_from_elsewhere(tmp_path: Path) -> None:
    text = "image,label,group\na.png,x,g1\nb.png,y,g1\nc.png,x,g2\nd.png,y,\n"
    assert list(groups_of(table(tmp_path, text)).values()) == ["g1", "g1", "g2", "d.png"]
    assert list(groups_of(table(tmp_path, text, group_regex="^.")).values()) == list("abcd")
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups" / "g.csv").write_text("image,p\na,1\nb.png,2\nc,2\nd,1\n")
    dataset = table(tmp_path, text, group_table=str(tmp_path / "groups" / "g.csv"), group_column="p")
    assert list(groups_of(dataset).values()) == ["1", "2", "2", "1"] and dataset.notes == ()


# Options that say nothing


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("folder", {"label_column": "dx"}, "data.label_column is for table, not for folder"),
        ("masks", {"mask_column": "m"}, "data.mask_column is for table, not for masks"),
        ("folder", {"mask_names": ["a", "b"]}, "data.mask_names is for table, masks, not for folder"),
        ("kvasir", {"ignore_index": 255}, "data.ignore_index is for table, masks, not for kvasir"),
        ("ham10000", {"group_regex": "x"}, "data.group_regex is for folder, table, masks, not for ham10000"),
        ("folder", {"image_column": "file"}, "data.image_column is for table, not for folder"),
        ("folder", {"group_column": "p"}, "data.group_column for folder needs data.group_table"),
        ("masks", {"group_column": "p"}, "data.group_column for masks needs data.group_table"),
        (
            "folder",
            {"group_regex": "x", "group_table": "t"},
            "data.group_regex and data.group_table exclude each other",
        ),
        ("table", {"group_regex": "x", "group_column": "t"}, "data.group_regex and data.group_column exclude each o"),
    ],
)
def test_options_that_say_nothing_are_refused(name: Any, more: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_dataset(Data(name, str(tmp_path), **more))


# Splits


def test_groups_across_a_given_division_are_refused(tmp_path: Path) -> None:
    text = "image,label,group,split\na.png,x,p1,train\nb.png,y,p2,train\nc.png,x,p3,val\nd.png,y,{},test\n"
    assert [len(part) for part in make_split(table(tmp_path, text.format("p4"))).values()] == [2, 1, 1]
    for group, split, name in (("p1", "train", "a.png"), ("p3", "val", "c.png")):
        message = f"table: {group} is in both {split} and test, with {name} and d.png; keep each group in one split"
        for more in ({}, {"folds": 3}):
            with pytest.raises(DataError, match=message):
                make_split(table(tmp_path, text.format(group)), **more)


def test_val_is_carved_out_of_train_by_group(tmp_path: Path) -> None:
    for split, number in (("train", 40), ("test", 6)):
        for index in range(number):
            image(tmp_path / split / "ab"[index % 2] / f"{split}{index // 4}_{index}.png")
    dataset = folder(tmp_path, group_regex=r"^([a-z]+\d+)_")
    made = make_split(dataset, seed=3)
    assert {sample.split for sample in made["test"]} == {"test"} and len(made["test"]) == 6
    assert len(made["val"]) == 4 and len(made["train"]) == 36
    assert not {sample.group for sample in made["val"]} & {sample.group for sample in made["train"]}
    assert make_split(dataset, seed=3) == made != make_split(dataset, seed=4)


def read_synthetic(name: str, root: Path, lesions: int, **more: Any) -> Dataset:
    return read_dataset(Data(name, str(write_dataset(name, root / name, lesions)), **more))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["folder", "table", "masks", "ham10000"])
def test_split_files_of_own_data(name: str, tmp_path: Path) -> None:
    dataset = read_synthetic(name, tmp_path, 4)
    made = make_split(dataset, 1)
    (tmp_path / "split.json").write_text(split_text(dataset, made))
    assert load_split(tmp_path / "split.json", dataset) == (made, 0)


@pytest.mark.parametrize(
    ("name", "images", "groups", "classes", "has_masks", "slices", "kind"),
    [
        ("folder", 12, 12, 3, False, 0, "image"),
        ("table", 12, 6, 3, True, 2, "group"),
        ("masks", 20, 20, 0, True, 0, "image"),
    ],
)
def test_synthetic_layouts(
    name: str, images: int, groups: int, classes: int, has_masks: bool, slices: int, kind: str, tmp_path: Path
) -> None:
    dataset = read_synthetic(name, tmp_path, 4)
    assert len(dataset.samples) == images and len(set(groups_of(dataset).values())) == groups
    assert len(dataset.labels) == classes and dataset.has_masks == has_masks and dataset.num_slices == slices
    assert dataset.group_kind == kind and dataset.name == name and not dataset.has_public_ids
    check_files(dataset.samples)
    if name == "folder":
        by_patient = read_dataset(Data("folder", str(tmp_path / name), group_regex=r"^p\d+"))
        assert len(set(groups_of(by_patient).values())) == 6


@pytest.mark.parametrize("make", [lambda path: path.write_bytes(b""), lambda path: path.write_text("not an image")])
def test_broken_images(make: Callable[[Path], Any], tmp_path: Path) -> None:
    image(tmp_path / "a" / "1.png")
    make(tmp_path / "a" / "2.png")
    with pytest.raises(
        DataError, match=r"1 of 2 images cannot be used.*\n.*2\.png: not a readable image \(cannot identif"
    ):
        check_files(folder(tmp_path).samples)


def test_suffixes_and_files_that_are_none(tmp_path: Path) -> None:
    names = ["1.jpg", "2.JPEG", "3.jpe", "4.png", "5.TIF", "6.tiff", "7.bmp", "8.webp", "9.gif", "10.ppm", "11.jp2"]
    for name in names:
        image(tmp_path / name)
    for name in ("x.txt", "y.xml", "png", "z.png.part"):
        (tmp_path / name).write_text("x")
    images, others = find_files(tmp_path)
    assert {path.name for path in images} == set(names)
    assert {path.name for path in others} == {"x.txt", "y.xml", "png", "z.png.part"}
