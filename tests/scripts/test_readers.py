"""The readers on synthetic data in each layout, splits, checks, and every mistake a folder can hold."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from readers import (
    READERS,
    DataError,
    Dataset,
    check_files,
    ham10000,
    hash_id,
    isic2019,
    load_split,
    make_split,
    psinkd,
    read_dataset,
    save_split,
    without_overlap,
)
from readers.split import check_classes
from readers.synthetic import write_dataset
from synthesize import main as write


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("synthetic")
    return {name: write_dataset(name, root / name, lesions=4) for name in READERS}


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    return write_dataset("ham10000", tmp_path / "ham", lesions=3)


@pytest.mark.parametrize(
    ("name", "images", "groups", "classes", "masks", "stacks"),
    [
        ("ham10000", 42, 28, 7, True, False),
        ("isic2019", 48, 32, 8, False, False),
        ("isic2018", 20, 20, 0, True, False),
        ("kvasir", 20, 20, 0, True, False),
        ("psinkd", 32, 16, 8, False, True),
    ],
)
def test_readers(
    folders: dict[str, Path], name: str, images: int, groups: int, classes: int, masks: bool, stacks: bool
) -> None:
    dataset = read_dataset(name, folders[name], masks=masks)
    assert dataset.name == name and len(dataset.records) == images and len(dataset.classes) == classes
    assert len({record.group for record in dataset.records}) == groups
    assert dataset.has_masks == masks and dataset.has_stacks == stacks
    assert {record.label for record in dataset.records} == (set(range(classes)) or {None})
    assert all(path.is_file() for record in dataset.records for path in record.files)
    assert all(len(record.stack) == (4 if stacks else 0) for record in dataset.records)
    check_files(dataset.records)


def test_ham10000_without_masks(folders: dict[str, Path]) -> None:
    assert not read_dataset("ham10000", folders["ham10000"]).has_masks


def test_isic2019_lesions_without_an_id_are_groups_of_their_own(folders: dict[str, Path]) -> None:
    dataset = read_dataset("isic2019", folders["isic2019"])
    alone = [record for record in dataset.records if record.group == record.id]
    assert len(alone) == 8
    assert any(record.id.endswith("_downsampled") for record in dataset.records)


@pytest.mark.parametrize("name", sorted(READERS))
@pytest.mark.parametrize("seed", [0, 1])
def test_split_keeps_groups_together_and_classes_apart(folders: dict[str, Path], name: str, seed: int) -> None:
    dataset = read_dataset(name, folders[name])
    parts = make_split(dataset, seed)
    assert list(parts) == ["train", "val", "test"]
    groups = [{record.group for record in records} for records in parts.values()]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert sorted(r.id for records in parts.values() for r in records) == sorted(r.id for r in dataset.records)
    assert make_split(dataset, seed) == parts and make_split(dataset, seed + 2) != parts
    check_classes(dataset, parts["train"])
    for label in range(len(dataset.labels)):
        of_class = {record.group for record in dataset.records if record.label == label}
        if len(of_class) > 2:
            assert all(any(r.label == label for r in records) for records in parts.values())


def test_split_of_many_groups_is_8_1_1() -> None:
    records = [ham10000.Record(f"i{n}", Path(f"{n}.jpg"), f"g{n // 2}", label=n % 4 // 2) for n in range(400)]
    parts = make_split(Dataset("many", {"a": "", "b": ""}, "lesion", "", records))
    assert {name: len(part) for name, part in parts.items()} == {"train": 320, "val": 40, "test": 40}
    for part in parts.values():
        assert sum(record.label or 0 for record in part) * 2 == len(part)


def test_a_group_counts_for_its_rarest_class() -> None:
    labels = [0] * 40 + [1] * 10
    records = [ham10000.Record(f"i{n}", Path(f"{n}.jpg"), f"g{n}", label) for n, label in enumerate(labels)]
    mixed = [ham10000.Record(f"m{n}", Path(f"m{n}.jpg"), f"g{40 + n}", 0) for n in range(10)]
    parts = make_split(Dataset("mixed", {"a": "", "b": ""}, "patient", "", records + mixed))
    assert all(any(record.label == 1 for record in part) for part in parts.values())


def test_description(folders: dict[str, Path]) -> None:
    dataset = read_dataset("ham10000", folders["ham10000"])
    lines = dataset.describe(make_split(dataset)).splitlines()
    assert lines[0] == "ham10000: groups (lesions) / images of each class"
    assert lines[1].split() == ["train", "val", "test"]
    assert len(lines) == 2 + 7 + 1 and lines[2].startswith("akiec") and lines[-1].startswith("total")
    counts = [cell for cell in lines[-1].split()[1:] if cell != "/"]
    assert sum(map(int, counts[::2])) == 28 and sum(map(int, counts[1::2])) == 42
    polyps = read_dataset("kvasir", folders["kvasir"])
    assert len(polyps.describe({"all": polyps.records}).splitlines()) == 3


def test_split_file(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read_dataset("isic2018", folders["isic2018"])
    parts = make_split(dataset, 5)
    save_split(tmp_path / "split.json", dataset, parts)
    assert load_split(tmp_path / "split.json", dataset) == parts
    polyps = read_dataset("kvasir", folders["kvasir"])
    with pytest.raises(DataError, match="splits the data set isic2018, these images are kvasir"):
        load_split(tmp_path / "split.json", polyps)
    fewer = Dataset("isic2018", {}, "image", "", dataset.records[2:])
    with pytest.raises(DataError, match=r"of other images: 2 of its 20 are not here, 0 of these 18"):
        load_split(tmp_path / "split.json", fewer)
    with pytest.raises(DataError, match="no such split file"):
        load_split(tmp_path / "none.json", dataset)
    for text in ("", "[]", '{"dataset": "isic2018", "parts": {}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="is not a split file"):
            load_split(tmp_path / "bad.json", dataset)


def test_split_file_of_a_part_of_the_images(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read_dataset("isic2018", folders["isic2018"])
    some = Dataset("isic2018", {}, "image", "", dataset.records[3:])
    parts = make_split(some, 5)
    save_split(tmp_path / "whole.json", some, parts)
    with pytest.raises(DataError, match=r"0 of its 17 are not here, 3 of these 20 are not in it"):
        load_split(tmp_path / "whole.json", dataset)
    save_split(tmp_path / "some.json", dataset, parts)
    assert load_split(tmp_path / "some.json", dataset) == parts == load_split(tmp_path / "some.json", some)
    fewer = Dataset("isic2018", {}, "image", "", dataset.records[5:])
    with pytest.raises(DataError, match=r"of other images: 2 of its 17 are not here"):
        load_split(tmp_path / "some.json", fewer)


def test_split_file_with_a_group_in_two_parts(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read_dataset("ham10000", folders["ham10000"])
    parts = make_split(dataset)
    by_group = defaultdict(list)
    for record in parts["train"]:
        by_group[record.group].append(record)
    twice = next(records for records in by_group.values() if len(records) == 2)
    parts["train"].remove(twice[0])
    parts["test"].append(twice[0])
    save_split(tmp_path / "split.json", dataset, parts)
    with pytest.raises(DataError, match=f"{twice[0].group} is in both train and test"):
        load_split(tmp_path / "split.json", dataset)


def test_overlap_of_data_sets(folders: dict[str, Path]) -> None:
    lesions = read_dataset("ham10000", folders["ham10000"])
    challenge = read_dataset("isic2019", folders["isic2019"])
    trained_on = [hash_id(record.id) for record in lesions.records]
    names = {record.id for record in lesions.records}
    left = without_overlap(challenge.records, trained_on)
    assert left == [r for r in challenge.records if r.id.removesuffix("_downsampled") not in names]
    assert 0 < len(left) < len(challenge.records)
    assert without_overlap(lesions.records, trained_on) == []


def test_empty_class(ham: Path) -> None:
    table = ham / "HAM10000_metadata.csv"
    kept = [line for line in table.read_text().splitlines() if not line.endswith(",df")]
    table.write_text("\n".join(kept) + "\n")
    dataset = read_dataset("ham10000", ham)
    with pytest.raises(DataError, match="ham10000: no image to train on of df"):
        check_classes(dataset, make_split(dataset)["train"])


@pytest.mark.parametrize("name", sorted(READERS))
def test_wrong_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not the folder of .* missing; it does not exist or is empty"):
        read_dataset(name, tmp_path / "absent")
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataError, match=r"missing; there is holiday\.jpg"):
        read_dataset(name, tmp_path)


def test_unknown_data_set_and_masks_that_are_not_there(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"unknown data set 'isic2020': known are ham10000, isic2018"):
        read_dataset("isic2020", ".")
    with pytest.raises(DataError, match="psinkd has no masks"):
        read_dataset("psinkd", folders["psinkd"], masks=True)


def test_metadata_under_its_other_name(ham: Path) -> None:
    (ham / "HAM10000_metadata.csv").rename(ham / "HAM10000_metadata")
    assert len(read_dataset("ham10000", ham).records) == 28


def test_missing_column_and_wrong_values(ham: Path, tmp_path: Path) -> None:
    table = ham / "HAM10000_metadata.csv"
    text = table.read_text()
    for change, message in [
        (text.replace("dx", "diagnosis", 1), r"no column dx; it has lesion_id, image_id, diagnosis"),
        (text.replace(",akiec", ",wart"), r"unknown labels wart; known are akiec"),
        (text.splitlines()[0] + "\n", "no rows"),
        (text + "L1,I1\n", "line 30: fewer values than columns"),
        (text + text.splitlines()[1] + "\n", "1 images are listed more than once"),
        (text + "L1,I1,nv\n", "1 of 29 images are missing from HAM10000_images_part_1 and .* I1"),
    ]:
        table.write_text(change)
        with pytest.raises(DataError, match=message):
            read_dataset("ham10000", ham)
    challenge = write_dataset("isic2019", tmp_path / "isic", lesions=1)
    truth = challenge / isic2019.TRUTH
    text = truth.read_text()
    for old, new, message in [
        (
            "1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
            "1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0",
            "a single 1 among MEL, .* has 2",
        ),
        ("1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0", "class UNK"),
        ("1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "yes,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "could not convert"),
    ]:
        truth.write_text(text.replace(old, new))
        with pytest.raises(DataError, match=message):
            read_dataset("isic2019", challenge)
    truth.write_text(text)
    metadata = challenge / isic2019.METADATA
    metadata.write_text("\n".join(metadata.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"1 images of ISIC_2019_Training_GroundTruth\.csv are not in it"):
        read_dataset("isic2019", challenge)


@pytest.mark.parametrize(
    ("name", "pattern", "message"),
    [
        ("ham10000", "HAM10000_segmentations_lesion_tschandl/*.png", "1 of 7 masks are missing"),
        ("isic2018", "ISIC2018_Task1_Training_GroundTruth/*.png", "1 of 5 masks are missing"),
        ("kvasir", "masks/*.jpg", "1 of 5 masks are missing"),
        ("isic2019", "ISIC_2019_Training_Input/*.jpg", "1 of 8 images are missing"),
        ("psinkd", "rcm/*_3.png", "1 of 8 slices are missing"),
        ("psinkd", "dermoscopy/*.jpg", "1 of 8 images are missing"),
    ],
)
def test_missing_files(name: str, pattern: str, message: str, tmp_path: Path) -> None:
    folder = write_dataset(name, tmp_path / name, lesions=1)
    path = sorted(folder.glob(pattern))[0]
    path.unlink()
    with pytest.raises(DataError, match=rf"{message}, the first are {path.name}"):
        read_dataset(name, folder, masks=name in ("ham10000", "isic2018", "kvasir"))


def test_unreadable_files_and_masks_of_another_size(ham: Path) -> None:
    dataset = read_dataset("ham10000", ham, masks=True)
    first, second, third = dataset.records[:3]
    assert first.mask and second.mask
    first.image.write_bytes(first.image.read_bytes()[:200])
    content = bytearray(second.mask.read_bytes())
    content[30:60] = bytes(30)
    second.mask.write_bytes(content)
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(third.mask)
    with pytest.raises(DataError, match=r"3 of 28 records cannot be used") as caught:
        check_files(dataset.records)
    message = str(caught.value)
    assert f"{first.image}: not a readable image" in message and f"{second.mask}: not a readable image" in message
    assert f"{third.mask}: mask of 12x10 pixels for an image of 120x90" in message


def test_psinkd_layout(tmp_path: Path) -> None:
    folder = write_dataset("psinkd", tmp_path / "p", lesions=2)
    dataset = read_dataset("psinkd", folder)
    assert [path.name for path in dataset.records[0].stack] == [f"L0000_{n}.png" for n in range(1, 5)]
    assert dataset.labels == list(isic2019.CLASSES) and dataset.group_kind == "patient"
    table = folder / psinkd.TABLE
    table.write_text(table.read_text().replace(",MEL", ",Melanoma"))
    with pytest.raises(DataError, match="unknown labels Melanoma"):
        read_dataset("psinkd", folder)


def test_synthetic_data_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(["kvasir", str(tmp_path / "k"), "--lesions", "1"])
    assert str(tmp_path / "k") in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not empty"):
        write(["kvasir", str(tmp_path / "k")])


def test_synthetic_data_is_reproducible(tmp_path: Path) -> None:
    a, b = (write_dataset("psinkd", tmp_path / name, lesions=1, seed=3) for name in "ab")
    for path in a.rglob("*.*"):
        assert path.read_bytes() == (b / path.relative_to(a)).read_bytes()


def test_split_file_is_plain(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read_dataset("psinkd", folders["psinkd"])
    save_split(tmp_path / "s.json", dataset, make_split(dataset))
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["dataset"] == "psinkd" and set(content["parts"]) == {"train", "val", "test"}
