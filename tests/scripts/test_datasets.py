"""The published data sets on synthetic data in each layout; splits, overlap, checks, and mistakes a folder can hold."""

import hashlib
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import (
    PUBLISHED,
    Data,
    DataError,
    Dataset,
    Sample,
    check_classes,
    check_files,
    hashes_of,
    isic2019,
    load_split,
    make_split,
    psinkd,
    read_dataset,
    split_text,
    synthetic,
    without_seen,
)
from datasets.overlap import hash_id
from datasets.synthetic import WRITERS, write_dataset
from PIL import Image
from synthesize import main as write


def read(name: str, folder: Path, masks: bool = False) -> Dataset:
    return read_dataset(Data(name, str(folder)), masks=masks)  # type: ignore[arg-type]


@pytest.fixture
def ham(tmp_path: Path) -> Path:
    return write_dataset("ham10000", tmp_path / "ham", lesions=3)


# Layouts


@pytest.mark.parametrize(
    ("name", "images", "groups", "classes", "masks", "stacks", "kind", "public"),
    [
        ("ham10000", 42, 28, 7, True, False, "lesion", True),
        ("isic2019", 48, 32, 8, False, False, "lesion", True),
        ("isic2018", 20, 20, 0, True, False, "image", True),
        ("kvasir", 20, 20, 0, True, False, "image", True),
        ("psinkd", 48, 24, 8, False, True, "patient", False),
    ],
)
def test_layouts(
    folders: dict[str, Path],
    name: str,
    images: int,
    groups: int,
    classes: int,
    masks: bool,
    stacks: bool,
    kind: str,
    public: bool,
) -> None:
    dataset = read(name, folders[name], masks=masks)
    samples = dataset.samples
    assert dataset.name == name and len(samples) == images and len(dataset.classes) == classes
    assert len({sample.group for sample in samples}) == groups and dataset.group_kind == kind
    assert dataset.has_masks == masks and dataset.has_stacks == stacks and dataset.has_public_ids == public
    assert {sample.label for sample in samples} == (set(range(classes)) or {None})
    files = [path for s in samples for path in (s.image, *s.stack, *([s.mask] if s.mask else []))]
    assert all(path.is_file() for path in files) and len(set(files)) == len(files)
    assert all(len(sample.stack) == (4 if stacks else 0) for sample in samples)
    assert dataset.license and not dataset.multi_label and all(sample.split is None for sample in samples)
    check_files(samples)


def test_ham10000_without_masks(folders: dict[str, Path]) -> None:
    assert not read("ham10000", folders["ham10000"]).has_masks


def test_psinkd_layout(tmp_path: Path) -> None:
    folder = write_dataset("psinkd", tmp_path / "p", lesions=2)
    dataset = read("psinkd", folder)
    assert [path.name for path in dataset.samples[0].stack] == [f"L0000_{n}.png" for n in range(1, 5)]
    assert dataset.labels == list(isic2019.CLASSES) and dataset.num_slices == 4
    table = folder / psinkd.TABLE
    table.write_text(table.read_text().replace(",MEL", ",Melanoma"))
    with pytest.raises(DataError, match=r"unknown labels Melanoma"):
        read("psinkd", folder)


def test_metadata_under_its_other_name(ham: Path) -> None:
    (ham / "HAM10000_metadata.csv").rename(ham / "HAM10000_metadata")
    assert len(read("ham10000", ham).samples) == 28


@pytest.mark.parametrize(
    ("name", "table", "column", "empty"),
    [
        ("ham10000", "HAM10000_metadata.csv", 0, ["", "nan", "NA", "?"]),
        ("isic2019", isic2019.METADATA, 2, ["", "NaN", "n/a", "None"]),
        ("psinkd", psinkd.TABLE, 1, ["", "nan", "null", "-"]),
    ],
)
def test_unknown_groups_are_groups_of_their_own(
    name: str, table: str, column: int, empty: list[str], folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(folders[name], folder)
    before = {sample.id: sample.group for sample in read(name, folder).samples}
    rows = [line.split(",") for line in (folder / table).read_text().splitlines()]
    changed = [row for row in rows[1:] if row[column]][::5]
    for number, row in enumerate(changed):
        row[column] = empty[number % len(empty)]
    (folder / table).write_text("\n".join(",".join(row) for row in rows))
    dataset = read(name, folder)
    alone = {sample.id for sample in dataset.samples if sample.group == sample.id}
    expected = {identity for identity, group in before.items() if group == identity}
    assert len(changed) > 4 and len(alone) == len(expected) + len(changed)
    assert all(sample.group == before[sample.id] for sample in dataset.samples if sample.id not in alone)
    assert dataset.notes[-1].startswith(f"{len(alone)} images have no {rows[0][column]} and are groups of their own")


def test_isic2019_has_lesions_without_an_id(folders: dict[str, Path]) -> None:
    dataset = read("isic2019", folders["isic2019"])
    assert sum(sample.group == sample.id for sample in dataset.samples) == 8
    assert any(sample.id.endswith("_downsampled") for sample in dataset.samples)


# Splits


SPLITS = {
    "ham10000": ["908cb090fb3a46e8", "2610f3a1dd186c4a"],
    "isic2018": ["6a7833f447103e42", "9a5a599dcd50de2e"],
    "isic2019": ["c4d5fad6ddfe755a", "4a0d5811b24235d8"],
    "kvasir": ["a4cbe92a6078fd1c", "628c2e6863cd5069"],
    "psinkd": ["3046f71ad529f810", "97b34cf958af7777"],
}
"""Hashes of the splits for the seeds 0 and 7 that releases before made, of which there are trained weights."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_splits_of_a_seed_stay_what_they_were(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Image.new("RGB", (1, 1))
    monkeypatch.setattr(synthetic, "spot", lambda *args: (tiny, tiny.convert("L")))
    monkeypatch.setattr(synthetic, "slices", lambda *args: [tiny] * 4)
    dataset = read(name, write_dataset(name, tmp_path / name, lesions=12))
    hashes = []
    for seed in (0, 7):
        ids = {split: [sample.id for sample in samples] for split, samples in make_split(dataset, seed).items()}
        hashes.append(hashlib.sha256(json.dumps(ids).encode()).hexdigest()[:16])
    assert hashes == SPLITS.get(name)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("seed", [0, 1])
def test_split_keeps_groups_together_and_classes_apart(folders: dict[str, Path], name: str, seed: int) -> None:
    dataset = read(name, folders[name])
    splits = make_split(dataset, seed)
    assert list(splits) == ["train", "val", "test"]
    groups = [{sample.group for sample in samples} for samples in splits.values()]
    assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
    assert sorted(s.id for samples in splits.values() for s in samples) == sorted(s.id for s in dataset.samples)
    assert make_split(dataset, seed) == splits and make_split(dataset, seed + 2) != splits
    check_classes(dataset, splits["train"])
    for label in range(len(dataset.labels)):
        of_class = {sample.group for sample in dataset.samples if sample.label == label}
        if len(of_class) > 2:
            assert all(any(sample.label == label for sample in samples) for samples in splits.values())


def dataset_of(groups: list[str], classes: list[Any], split: str | None = None, **more: Any) -> Dataset:
    """Images without files; classes are indices, or 0 and 1 of several."""
    samples = []
    for number, (group, label) in enumerate(zip(groups, classes)):
        several = isinstance(label, tuple)
        labels = {"labels": label} if several else {"label": label}
        samples.append(Sample(f"i{number}", Path(f"{number}.jpg"), group, split=split, **labels))
    several = bool(samples[0].labels)
    number = len(classes[0]) if several else 1 + max(-1 if label is None else label for label in classes)
    return Dataset("made", samples, {"abcdefgh"[k]: "" for k in range(number)}, multi_label=several, **more)


def test_split_of_many_groups_is_8_1_1() -> None:
    splits = make_split(dataset_of([f"g{n // 2}" for n in range(400)], [n % 4 // 2 for n in range(400)]))
    assert {name: len(samples) for name, samples in splits.items()} == {"train": 320, "val": 40, "test": 40}
    for samples in splits.values():
        assert sum(sample.label or 0 for sample in samples) * 2 == len(samples)


def test_a_group_counts_for_its_rarest_class() -> None:
    groups = [f"g{n}" for n in range(50)]
    splits = make_split(dataset_of([*groups, *groups[40:]], [0] * 40 + [1] * 10 + [0] * 10))
    assert all(any(sample.label == 1 for sample in samples) for samples in splits.values())
    # Of several labels at once too, and images with none of them are divided as well.
    labels = [(1, 0)] * 40 + [(1, 1)] * 10 + [(0, 0)] * 30
    splits = make_split(dataset_of([f"g{n}" for n in range(80)], labels))
    for samples in splits.values():
        assert {sample.labels for sample in samples} == {(1, 0), (1, 1), (0, 0)}
    assert [len(samples) for samples in splits.values()] == [64, 8, 8]


@pytest.mark.parametrize("folds", [3, 5, 10])
@pytest.mark.parametrize("kind", ["classes", "several labels", "no classes"])
def test_cross_validation(folds: int, kind: str) -> None:
    """Every image is tested exactly once, by group, with each class's groups spread evenly."""
    numbers = range(300)
    labels: list[Any] = {
        "classes": [0 if n % 10 else 1 for n in (m // 3 for m in numbers)],
        "several labels": [(int(n % 10 > 0), int(n % 4 == 0)) for n in (m // 3 for m in numbers)],
        "no classes": [None] * 300,
    }[kind]
    dataset = dataset_of([f"g{n // 3}" for n in numbers], labels)
    all_splits = [make_split(dataset, 5, folds, fold) for fold in range(folds)]
    tested = Counter(sample.id for splits in all_splits for sample in splits["test"])
    validated = Counter(sample.id for splits in all_splits for sample in splits["val"])
    assert set(tested.values()) == set(validated.values()) == {1} and len(tested) == len(validated) == 300
    for splits, following in zip(all_splits, [*all_splits[1:], all_splits[0]]):
        assert splits["val"] == following["test"]
        groups = [{sample.group for sample in samples} for samples in splits.values()]
        assert sum(map(len, groups)) == len(set().union(*groups)) == 100
        assert sum(map(len, splits.values())) == 300
        assert len(splits["test"]) in (300 // folds // 3 * 3, 300 // folds // 3 * 3 + 3)
    for index in range(len(dataset.labels)):
        of_class = [len({s.group for s in splits["test"] if index in s.classes}) for splits in all_splits]
        # A group counts for its rarest class alone.
        assert max(of_class) - min(of_class) <= (4 if (kind, index) == ("several labels", 0) else 1), of_class
    assert make_split(dataset, 5, folds, 1) == all_splits[1] != make_split(dataset, 6, folds, 1)


def test_cross_validation_of_small_classes_fills_all_folds() -> None:
    """Classes of two groups each do not all go to the first folds."""
    dataset = dataset_of([f"g{n}" for n in range(16)], [n // 2 for n in range(16)])
    sizes = [len(make_split(dataset, 0, 8, fold)["test"]) for fold in range(8)]
    assert sizes == [2] * 8


def test_cross_validation_beside_a_given_test_split() -> None:
    given = dataset_of([f"t{n}" for n in range(10)], [0, 1] * 5, split="test").samples
    given = [Sample(f"t{s.id}", s.image, s.group, s.label, split="test") for s in given]
    rest = [
        Sample(s.id, s.image, s.group, s.label, split="train" if n % 3 else "val")
        for n, s in enumerate(dataset_of([f"g{n}" for n in range(40)], [0, 1] * 20).samples)
    ]
    dataset = Dataset("made", [*rest, *given], {"a": "", "b": ""})
    all_splits = [make_split(dataset, 0, 4, fold) for fold in range(4)]
    assert all(splits["test"] == given for splits in all_splits)
    assert Counter(s.id for splits in all_splits for s in splits["val"]) == Counter(s.id for s in rest)
    for splits in all_splits:
        assert len(splits["val"]) == 10 and not {s.id for s in splits["train"]} & {s.id for s in splits["val"]}
        assert len(splits["train"]) == 30
    # Nothing of a test split is trained on, not even where there is nothing else.
    with pytest.raises(DataError, match=r"folds=4: made has 0 groups"):
        make_split(Dataset("made", given, {"a": "", "b": ""}), 0, 4, 0)


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (1, 0), (-3, 0), (5, 5), (5, -1), (0, 2)])
def test_folds_that_there_are_none(folds: int, fold: int) -> None:
    dataset = dataset_of([f"g{n}" for n in range(40)], [0, 1] * 20)
    with pytest.raises(DataError, match=rf"fold={fold} of folds={folds}: at least 3 folds, numbered from 0"):
        make_split(dataset, 0, folds, fold)


def test_more_folds_than_groups() -> None:
    dataset = dataset_of([f"g{n % 4}" for n in range(40)], [0, 1] * 20, group_kind="patient")
    with pytest.raises(DataError, match=r"folds=5: made has 4 groups \(patients\) to divide, fewer than that"):
        make_split(dataset, 0, 5, 0)
    assert [len(make_split(dataset, 0, 4, fold)["test"]) for fold in range(4)] == [10] * 4


def test_given_divisions_are_whole() -> None:
    one, other = dataset_of(["a", "b"], [0, 1], split="train").samples, dataset_of(["c", "d"], [0, 1]).samples
    with pytest.raises(DataError, match=r"made: 2 images have a split and others, as i0, have none"):
        make_split(Dataset("made", [*one, *other], {"a": "", "b": ""}))


def test_description(folders: dict[str, Path]) -> None:
    dataset = read("ham10000", folders["ham10000"])
    lines = dataset.describe(make_split(dataset)).splitlines()
    assert lines[0] == "ham10000: groups (lesions) / images of each class"
    assert lines[1].split() == ["train", "val", "test"]
    assert len(lines) == 2 + 7 + 1 and lines[2].startswith("akiec") and lines[-1].startswith("total")
    counts = [cell for cell in lines[-1].split()[1:] if cell != "/"]
    assert sum(map(int, counts[::2])) == 28 and sum(map(int, counts[1::2])) == 42
    polyps = read("kvasir", folders["kvasir"])
    assert len(polyps.describe({"all": polyps.samples}).splitlines()) == 3
    several = dataset_of(["p", "p", "q"], [(1, 0), (1, 1), (0, 0)])
    rows = [line.split() for line in several.describe({"all": several.samples}).splitlines()[2:]]
    assert rows == [["a", "1", "/", "2"], ["b", "1", "/", "1"], ["total", "2", "/", "3"]]


# Split files


def test_split_file(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read("isic2018", folders["isic2018"])
    splits = make_split(dataset, 5)
    (tmp_path / "split.json").write_text(split_text(dataset, splits))
    assert load_split(tmp_path / "split.json", dataset) == (splits, 0)
    content = json.loads((tmp_path / "split.json").read_text())
    assert content["dataset"] == "isic2018" and set(content["splits"]) == {"train", "val", "test"}
    polyps = read("kvasir", folders["kvasir"])
    with pytest.raises(DataError, match=r"splits the data set isic2018, these images are kvasir"):
        load_split(tmp_path / "split.json", polyps)
    fewer = Dataset("isic2018", dataset.samples[2:])
    with pytest.raises(DataError, match=r"of other images: 2 of its 20 are not here, the first is ISIC_000000[01]"):
        load_split(tmp_path / "split.json", fewer)
    with pytest.raises(DataError, match=r"no such split file"):
        load_split(tmp_path / "none.json", dataset)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        '{"dataset": "isic2018", "splits": {}}',
        '{"splits": {"train": [], "val": [], "test": []}}',
        '{"dataset": "isic2018", "splits": {"train": [["x"]], "val": [], "test": []}}',
        '{"dataset": "isic2018", "splits": {"train": 3, "val": [], "test": []}}',
        '{"dataset": "isic2018", "splits": {"train": [], "val": []}}',
    ],
)
def test_files_that_are_no_split_files(text: str, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match=r"is not a split file"):
        load_split(tmp_path / "bad.json", read("isic2018", folders["isic2018"]))


def test_split_file_of_some_of_the_images(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read("isic2018", folders["isic2018"])
    some = Dataset("isic2018", dataset.samples[3:])
    splits = make_split(some, 5)
    (tmp_path / "some.json").write_text(split_text(some, splits))
    assert load_split(tmp_path / "some.json", dataset) == (splits, 3)
    assert load_split(tmp_path / "some.json", some) == (splits, 0)
    with pytest.raises(DataError, match=r"of other images: 2 of its 17 are not here"):
        load_split(tmp_path / "some.json", Dataset("isic2018", dataset.samples[5:]))
    twice = {**splits, "test": [*splits["test"], splits["train"][0]]}
    (tmp_path / "twice.json").write_text(split_text(some, twice))
    with pytest.raises(DataError, match=r"0 of its 18 are not here; 1 are listed twice"):
        load_split(tmp_path / "twice.json", dataset)


def test_split_file_with_a_group_in_two_splits(folders: dict[str, Path], tmp_path: Path) -> None:
    dataset = read("ham10000", folders["ham10000"])
    splits = make_split(dataset)
    by_group = defaultdict(list)
    for sample in splits["train"]:
        by_group[sample.group].append(sample)
    twice = next(samples for samples in by_group.values() if len(samples) == 2)
    splits["train"].remove(twice[0])
    splits["test"].append(twice[0])
    (tmp_path / "split.json").write_text(split_text(dataset, splits))
    with pytest.raises(
        DataError, match=f"{twice[0].group} is in both train and test, with {twice[1].id} and {twice[0].id}"
    ):
        load_split(tmp_path / "split.json", dataset)


# Overlap


def test_public_images_are_told_by_name_and_by_content(folders: dict[str, Path]) -> None:
    lesions, challenge = (read(name, folders[name]) for name in ("ham10000", "isic2019"))
    trained_on = [code for sample in lesions.samples for code in hashes_of(lesions, sample)]
    names = {sample.id for sample in lesions.samples}
    left = without_seen(challenge, challenge.samples, trained_on)
    assert left == [s for s in challenge.samples if s.id.removesuffix("_downsampled") not in names]
    assert 0 < len(left) < len(challenge.samples)
    assert without_seen(lesions, lesions.samples, trained_on) == []
    assert without_seen(lesions, lesions.samples, []) == lesions.samples
    # Names alone are what older weights carry.
    assert without_seen(challenge, challenge.samples, [hash_id(name) for name in names]) == left


def test_own_images_are_told_by_content_alone(tmp_path: Path) -> None:
    """Two hospitals' img_001.png are two images, and a renamed copy is the same one."""
    rng = np.random.default_rng(0)
    datasets = []
    for hospital in ("one", "two"):
        for of_class in ("a", "b"):
            folder = tmp_path / hospital / of_class
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"img_{number:03d}.png")
    shutil.copy(tmp_path / "one" / "a" / "img_000.png", tmp_path / "two" / "b" / "copy.png")
    datasets = [read("folder", tmp_path / hospital) for hospital in ("one", "two")]
    seen = [code for sample in datasets[0].samples for code in hashes_of(datasets[0], sample)]
    left = without_seen(datasets[1], datasets[1].samples, seen)
    assert [sample.id for sample in datasets[1].samples if sample not in left] == ["b/copy.png"] and len(left) == 6
    assert without_seen(datasets[0], datasets[0].samples, seen) == []


# Mistakes


def test_empty_class(ham: Path) -> None:
    table = ham / "HAM10000_metadata.csv"
    kept = [line for line in table.read_text().splitlines() if not line.endswith(",df")]
    table.write_text("\n".join(kept) + "\n")
    dataset = read("ham10000", ham)
    with pytest.raises(DataError, match=r"ham10000: no image to train on of df"):
        check_classes(dataset, make_split(dataset)["train"])


def test_classes_that_nothing_can_be_learned_of() -> None:
    for labels, message in [
        ([(1, 0), (0, 0)], "no image to train on of b"),
        ([(1, 1), (1, 0)], "every image to train on has a, so there is nothing to tell apart"),
        ([(1,), (1,)], "every image to train on has a"),
        ([(0,), (0,)], "no image to train on of a"),
        ([0, 0], "one class alone, a: nothing to tell apart"),
    ]:
        dataset = dataset_of(["p", "q"], labels)
        with pytest.raises(DataError, match=message):
            check_classes(dataset, dataset.samples)
    for labels in ([(1, 0), (0, 1)], [(1,), (0,)], [0, 1]):
        dataset = dataset_of(["p", "q"], labels)
        check_classes(dataset, dataset.samples)


@pytest.mark.parametrize("name", PUBLISHED)
def test_wrong_folders(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not the folder of .* missing; it does not exist or is empty"):
        read(name, tmp_path / "absent")
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(DataError, match=r"missing; there is holiday\.jpg"):
        read(name, tmp_path)


def test_masks_that_are_not_there(folders: dict[str, Path]) -> None:
    with pytest.raises(DataError, match=r"psinkd has no masks"):
        read("psinkd", folders["psinkd"], masks=True)


def test_missing_column_and_wrong_values(ham: Path, tmp_path: Path) -> None:
    table = ham / "HAM10000_metadata.csv"
    text = table.read_text()
    for change, message in [
        (text.replace("dx", "diagnosis", 1), r"no column dx; it has lesion_id, image_id, diagnosis"),
        (text.replace(",akiec", ",wart"), r"unknown labels wart; known are akiec"),
        (
            text.replace(",akiec", ","),
            r"4 images have no label, the first are ISIC_0000000, ISIC_0000001, ISIC_0000002",
        ),
        (text.splitlines()[0] + "\n", "no rows"),
        (text + "L1,I1\n", "line 30: 2 values for 3 columns"),
        (text + text.splitlines()[1] + "\n", "1 images are listed more than once"),
        (text + "L1,I1,nv\n", "1 of 29 images are missing from .*HAM10000_images_part_1 and .* I1"),
    ]:
        table.write_text(change)
        with pytest.raises(DataError, match=message):
            read("ham10000", ham)
    challenge = write_dataset("isic2019", tmp_path / "isic", lesions=1)
    truth = challenge / isic2019.TRUTH
    text = truth.read_text()
    for new, message in [
        ("1.0,1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "a single 1 among MEL, .* has 2"),
        ("0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "a single 1 among MEL, .* has 0"),
        ("0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,1.0", "class UNK"),
        ("yes,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", "could not convert"),
    ]:
        truth.write_text(text.replace("1.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0", new))
        with pytest.raises(DataError, match=message):
            read("isic2019", challenge)
    truth.write_text(text)
    metadata = challenge / isic2019.METADATA
    metadata.write_text("\n".join(metadata.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DataError, match=r"1 images of ISIC_2019_Training_GroundTruth\.csv are not in it"):
        read("isic2019", challenge)


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
    with pytest.raises(DataError, match=rf"{message} from {path.parent}.*, the first are {path.stem}"):
        read(name, folder, masks=name in ("ham10000", "isic2018", "kvasir"))


@pytest.mark.parametrize("name", ["isic2018", "kvasir"])
def test_images_of_one_name(name: str, tmp_path: Path) -> None:
    folder = write_dataset(name, tmp_path / name, lesions=1)
    path = next(folder.glob("images/*.jpg" if name == "kvasir" else "*_Input/*.jpg"))
    Image.open(path).save(path.with_suffix(".png"))
    with pytest.raises(DataError, match=rf"1 images are listed more than once, the first are {path.stem}"):
        read(name, folder)


def test_files_of_macos_and_subfolders(tmp_path: Path) -> None:
    """Copies that macOS leaves in archives have the names of images, but are none."""
    for name, image in (("isic2018", "ISIC2018_Task1-2_Training_Input"), ("kvasir", "images")):
        folder = write_dataset(name, tmp_path / name, lesions=1)
        for path in sorted((folder / image).iterdir()):
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
        (folder / image / "__MACOSX").mkdir()
        (folder / image / "__MACOSX" / "other.jpg").write_bytes(b"\0\5\26\7")
        dataset = read(name, folder, masks=True)
        assert len(dataset.samples) == 5
        check_files(dataset.samples)


def test_unreadable_files_and_masks_of_another_size(ham: Path) -> None:
    dataset = read("ham10000", ham, masks=True)
    first, second, third = dataset.samples[:3]
    assert first.mask and second.mask and third.mask
    first.image.write_bytes(first.image.read_bytes()[:200])
    content = bytearray(second.mask.read_bytes())
    content[30:60] = bytes(30)
    second.mask.write_bytes(content)
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(third.mask)
    with pytest.raises(DataError, match=r"3 of 28 images cannot be used") as caught:
        check_files(dataset.samples)
    message = str(caught.value)
    assert f"{first.image}: not a readable image" in message and f"{second.mask}: not a usable mask" in message
    assert f"{third.mask}: not a usable mask (mask of 12x10 pixels for an image of 120x90)" in message


# Synthetic data


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_synthetic_data_is_reproducible(name: str, tmp_path: Path) -> None:
    a, b, c = (write_dataset(name, tmp_path / f"{k}", lesions=1, seed=seed) for k, seed in enumerate((3, 3, 4)))
    files = [path.relative_to(a) for path in a.rglob("*.*")]
    assert all((a / path).read_bytes() == (b / path).read_bytes() for path in files)
    assert any((a / path).read_bytes() != (c / path).read_bytes() for path in files)


def test_synthetic_data_never_overwrites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(["kvasir", str(tmp_path / "k"), "--lesions", "1"])
    assert str(tmp_path / "k") in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"is not empty"):
        write(["kvasir", str(tmp_path / "k")])
    with pytest.raises(SystemExit, match=r"lesions=0 must be at least 1"):
        write(["kvasir", str(tmp_path / "l"), "--lesions", "0"])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match=r"file"):
        write(["kvasir", str(tmp_path / "file")])
    for arguments in (["kvasri", "x"], ["kvasir", "x", "--lesion", "1"], ["kvasir"]):
        with pytest.raises(SystemExit, match=r"2"):
            write(arguments)
        error = capsys.readouterr().err
        assert "error: " in error and "usage" not in error
