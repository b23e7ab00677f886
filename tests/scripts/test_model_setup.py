"""The model of a training: what it starts from, what its configuration says, its optimizer and schedule."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import micro
import pytest
import torch
from data import Images, normalize
from datasets import Data, DataError, Dataset, MaskFormat, TrainData, make_split, read_dataset
from datasets.own_table import read_own_table
from datasets.synthetic import write_dataset
from model_setup import Model, Optim, build_model, build_optimizer, describe_model, lr_factor
from paths import PathDropout, balance_paths, path_slices
from torch import nn
from train import Config
from train_from_cnn import Cnn, CnnConfig, first_images, make_optimizer

import mfsf2

MICRO = dict(micro.ENCODER, head_hidden_size=32)
MASKS = MaskFormat(("background", "spot", "hair"), 0)


def config(task: Any = "cls", name: Any = "ham10000", kind: type[Config] = Config, **more: Any) -> Any:
    return kind(TrainData(name, "unused"), task, **more)


def random_start(task: Any = "cls", **args: Any) -> Any:
    """The configuration of a micro model from random weights."""
    sizes = micro.sizes_of(f"_{task}")
    return config(task, model=Model(pretrained=False, args={**sizes, **args}))


@pytest.fixture(scope="module")
def lesions(folders: dict[str, Path]) -> Dataset:
    return read_dataset(Data("ham10000", str(folders["ham10000"])), masks=True)


@pytest.fixture(scope="module")
def bundled() -> Any:
    return mfsf2.create_model("mfsf2_tiny_clsseg.ham10000", pretrained=True)


def state_of(model: Any, *prefixes: str) -> dict[str, Any]:
    return {key: value for key, value in model.state_dict().items() if key.startswith(prefixes)}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and bool(one) and all(torch.equal(one[key], other[key]) for key in one)


def test_start_from_a_tag(folders: dict[str, Path], lesions: Dataset) -> None:
    """What is known of the images behind the weights that a training starts from is kept, and so is their license."""
    polyps = read_dataset(Data("kvasir", str(folders["kvasir"])))
    settings = config("seg", "kvasir", model=Model(tag="ham10000"), input_size=65)
    model = build_model(settings, polyps)
    tagged: Any = mfsf2.create_model("mfsf2_tiny_seg", pretrained=True)
    assert same(model.state_dict(), tagged.state_dict())
    cfg = model.pretrained_cfg
    assert cfg["trained_on"] == tagged.pretrained_cfg["trained_on"] and cfg["input_size"] == (3, 65, 65)
    assert cfg["pool_size"] == (3, 3) and cfg["interpolation"] == "bilinear"
    assert cfg["license"] == "cc-by-nc-4.0 and research-and-education"
    cfg = build_model(config("clsseg", model=Model(tag="ham10000")), lesions).pretrained_cfg
    assert not cfg.keys() & {"temperature", "description"} and cfg["license"] == "cc-by-nc-4.0"
    with pytest.raises(DataError, match="model: mfsf2_tiny_cls has no pretrained tag 'imagenet'"):
        build_model(config(model=Model(tag="imagenet")), lesions)


def test_a_tag_and_other_classes(folders: dict[str, Path], lesions: Dataset, bundled: Any) -> None:
    challenge = read_dataset(Data("isic2019", str(folders["isic2019"])))
    model = build_model(config("cls", "isic2019", model=Model(tag="ham10000")), challenge).eval()
    assert model.num_classes == len(challenge.classes) == 8 and model(torch.randn(2, 3, 64, 64)).shape == (2, 8)
    assert same(state_of(model, "encoder.", "head.hidden."), state_of(bundled, "encoder.", "head.hidden."))
    cfg = model.pretrained_cfg
    assert not cfg.keys() & {"label_names", "label_descriptions", "temperature", "metrics", "training"}
    assert cfg["num_classes"] == 8 and cfg["trained_on"] == bundled.pretrained_cfg["trained_on"]
    # As many classes, which may be other ones: the classifier is a start, its names are not.
    alike = build_model(config(model=Model(tag="ham10000")), lesions)
    assert same(state_of(alike, "head."), state_of(bundled, "head.")) and "label_names" not in alike.pretrained_cfg


@pytest.mark.parametrize("pretrained", [False, True])
@pytest.mark.parametrize("task", ["seg", "clsseg"])
def test_several_mask_classes(task: Any, pretrained: bool, lesions: Dataset, bundled: Any) -> None:
    settings = config(task, model=Model(tag="ham10000")) if pretrained else random_start(task)
    model = build_model(settings, replace(lesions, mask_format=MASKS)).eval()
    assert model.mask_classes == 3
    outputs = model(torch.randn(1, 3, 64, 64))
    masks = outputs if task == "seg" else outputs.masks
    assert masks.shape == (1, 3, 64, 64)
    assert task == "seg" or outputs.logits.shape == (1, 7)
    assert model.pretrained_cfg["mask_names"] == list(MASKS.names) and model.pretrained_cfg["ignore_index"] == 0
    if pretrained:
        assert same(state_of(model, "encoder."), state_of(bundled, "encoder."))


def test_one_foreground(lesions: Dataset) -> None:
    model = build_model(random_start("clsseg"), lesions)
    assert model.mask_classes == 1 and not model.pretrained_cfg.keys() & {"mask_names", "ignore_index", "multi_label"}


@pytest.mark.parametrize("source", ["folder", "name"])
def test_two_modalities_start_from_one(
    source: str, folders: dict[str, Path], lesions: Dataset, bundled: Any, tmp_path: Path
) -> None:
    """With the number of classes and slices of their own data."""
    pairs = read_dataset(Data("psinkd", str(folders["psinkd"])))
    pairs = replace(pairs, samples=[replace(sample, stack=sample.stack[:3]) for sample in pairs.samples])
    start, checkpoint = bundled, "mfsf2_tiny_clsseg.ham10000"
    if source == "folder":
        start, checkpoint = build_model(config(model=Model(pretrained=False)), lesions), str(tmp_path)
        start.pretrained_cfg.update(trained_on=["a"], chosen_on=["b"])
        mfsf2.save_pretrained(start, tmp_path, lesions.labels)
    model = build_model(config("rcm_cls", "psinkd", model=Model(checkpoint=checkpoint)), pairs)
    assert model.num_classes == len(pairs.classes) == 8 and model.stem.slices.num_slices == 3
    assert same(state_of(model, "encoder."), state_of(start, "encoder."))
    assert model(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 1, 64, 64)).shape == (2, 8)
    cfg = model.pretrained_cfg
    assert cfg["trained_on"] == start.pretrained_cfg["trained_on"]
    assert cfg["license"].startswith("cc-by-nc-4.0") and "label_names" not in cfg


@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_checkpoint_file(kind: str, lesions: Dataset, tmp_path: Path) -> None:
    start = build_model(random_start(), lesions)
    path = tmp_path / f"weights.{kind}"
    if kind == "pt":
        torch.save({"model": start.state_dict(), "optimizer": {}}, path)
    else:
        mfsf2.save_pretrained(start, tmp_path)
        (tmp_path / "model.safetensors").rename(path)
    torch.manual_seed(1)
    settings = replace(random_start(), model=Model(checkpoint=str(path), args=MICRO))
    model = build_model(settings, lesions)
    assert same(model.state_dict(), start.state_dict())
    # For another task, what fits.
    both = replace(random_start("clsseg"), model=Model(checkpoint=str(path), args=MICRO))
    assert same(state_of(build_model(both, lesions), "encoder."), state_of(start, "encoder."))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Model(checkpoint="absent"), "absent"),
        (Model(checkpoint="mfsf2_tiny_cls.absent"), "no pretrained tag 'absent'"),
        (Model(pretrained=False, args={"droprate": 1}), "droprate"),
        (Model(pretrained=False, args={"drop_rate": 2.0}), "dropout probability"),
        (Model(pretrained=False, args={"cnn": "none"}), "none"),
    ],
)
def test_weights_that_are_not_there(model: Model, message: str, lesions: Dataset) -> None:
    with pytest.raises(DataError, match=f"^model: .*{message}"):
        build_model(config(model=model), lesions)


def test_weights_that_do_not_fit(lesions: Dataset, tmp_path: Path) -> None:
    """The message is that of all weights, not that of the second try with the encoder alone."""
    start = micro.build("cls", channels=32, head_hidden_size=16)
    mfsf2.save_pretrained(start, tmp_path)
    state = build_model(random_start(), lesions).state_dict()
    wrong = [key for key, value in start.state_dict().items() if value.shape != state[key].shape]
    assert len([key for key in wrong if key.startswith("encoder.")]) < len(wrong)
    for checkpoint in (tmp_path, tmp_path / "model.safetensors"):
        settings = replace(random_start(), model=Model(checkpoint=str(checkpoint), args=MICRO))
        with pytest.raises(DataError, match=rf"model: .* does not fit the model[^\n]*\nwrong shape \({len(wrong)}\)"):
            build_model(settings, lesions)


LICENSES = [
    (None, None, None),
    (None, "CC BY-NC 4.0", "cc-by-nc-4.0"),
    ("apache-2.0", None, "apache-2.0"),
    ("apache-2.0", "CC BY-NC 4.0", "cc-by-nc-4.0"),
    ("cc-by-nc-4.0", "Apache-2.0", "cc-by-nc-4.0"),
    ("apache-2.0", "apache-2.0", "apache-2.0"),
    ("cc-by-nc-4.0", "CC BY-NC 4.0", "cc-by-nc-4.0"),
    ("other", "CC BY 4.0", "cc-by-4.0 and other"),
]


@pytest.mark.parametrize(("of_weights", "of_data", "expected"), LICENSES)
def test_license(of_weights: str | None, of_data: str | None, expected: str | None) -> None:
    cfg: dict[str, Any] = {"license": of_weights}
    describe_model(cfg, config(), Dataset("folder", [], {"a": ""}, license=of_data))
    assert cfg.get("license") == expected and ("license" in cfg) == (expected is not None)


STALE = {
    "label_names": ["x", "y"],
    "label_descriptions": {"x": "X"},
    "temperature": 2.0,
    "description": "old",
    "metrics": {"classification": {"auc": 1.0}},
    "training": {"data": "old"},
    "multi_label": True,
    "mask_names": ["old", "older"],
    "ignore_index": 7,
}


@pytest.mark.parametrize("task", ["cls", "seg", "clsseg", "rcm_clsseg"])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("names", "ignore"), [((), None), ((), 0), (("bg", "a"), 255), (("bg", "a", "b"), 0)])
def test_description_survives_saving(
    task: Any, multi_label: bool, names: tuple[str, ...], ignore: int | None, tmp_path: Path
) -> None:
    """What masks and classes mean is there again in the saved model, and nothing of what it started from."""
    data = Dataset("folder", [], {"a": "", "b": ""}, multi_label, MaskFormat(names, ignore))
    sizes = micro.sizes_of(f"_{task}")
    classes = {"num_classes": data.mask_format.num_classes} if task == "seg" else {"num_classes": 2}
    masks = {"mask_classes": data.mask_format.num_classes} if "clsseg" in task else {}
    model: Any = mfsf2.create_model(f"mfsf2_tiny_{task}", **sizes, **classes, **masks)
    model.pretrained_cfg.update(STALE, trained_on=["a"], chosen_on=["b"], license="other")
    describe_model(model.pretrained_cfg, config(task, "folder", input_size=33), data)
    expected: dict[str, Any] = {"trained_on": ["a"], "chosen_on": ["b"], "license": "other"}
    if "cls" in task and multi_label:
        expected["multi_label"] = True
    if "seg" in task and names:
        expected["mask_names"] = list(names)
    if "seg" in task and ignore is not None:
        expected["ignore_index"] = ignore
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}")
    for cfg in (model.pretrained_cfg, loaded.pretrained_cfg):
        assert {key: cfg[key] for key in {*STALE, *expected} if key in cfg} == expected
        assert [list(cfg[key]) for key in ("input_size", "pool_size")] == [[3, 33, 33], [2, 2]]
        assert (cfg["crop_pct"], cfg["crop_mode"], cfg["interpolation"]) == (1.0, "squash", "bilinear")


def test_own_table_of_several_classes(tmp_path: Path) -> None:
    """From the options to the model: classes of which several may hold, masks of several classes, stacks."""
    folder = write_dataset("table", tmp_path / "data", lesions=2)
    rows = (folder / "labels.csv").read_text().splitlines()
    (folder / "labels.csv").write_text("\n".join([rows[0] + ",x,y", *(f"{row},1,0" for row in rows[1:])]))
    data = Data("table", str(folder), label_column=["x", "y"], mask_names=["skin", "spot"], ignore_index=255)
    dataset = read_own_table(data)
    model = build_model(random_start("rcm_clsseg"), dataset)
    assert (model.num_classes, model.mask_classes, model.stem.slices.num_slices) == (2, 2, 2)
    cfg = model.pretrained_cfg
    assert (cfg["multi_label"], cfg["mask_names"], cfg["ignore_index"]) == (True, ["skin", "spot"], 255)


def test_learning_rate() -> None:
    settings = config(optim=Optim(epochs=10, warmup_epochs=2))
    rates = [lr_factor(step / 100, settings) for step in range(1001)]
    assert rates[100] == pytest.approx(0.5) and rates[200] == 1 == max(rates) and rates[1000] == pytest.approx(0)
    assert rates[600] == pytest.approx(0.5)
    assert rates[:201] == sorted(rates[:201]) and rates[200:] == sorted(rates[200:], reverse=True)
    assert lr_factor(0, config(optim=Optim(warmup_epochs=0))) == 1


def test_optimizer_groups(lesions: Dataset) -> None:
    settings = config(kind=CnnConfig, optim=Optim(layer_decay=0.8, weight_decay=0.1), cnn=Cnn(lr_scale=0.25))
    model = build_model(random_start(), lesions)
    groups = make_optimizer(model, settings).param_groups
    found = {id(p): group for group in groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert len(found) == sum(len(group["params"]) for group in groups) == len(named)
    spared = model.no_weight_decay()
    for name, parameter in named.items():
        decays = parameter.ndim > 1 and name not in spared
        assert found[id(parameter)]["weight_decay"] == (0.1 if decays else 0), name
    scale = {name: found[id(parameter)]["scale"] for name, parameter in named.items()}
    assert scale["head.fc.weight"] == 1
    stages = [scale[f"encoder.transformer.stages.{stage}.blocks.0.norm1.weight"] for stage in range(4)]
    assert stages == sorted(stages) and stages[0] < stages[-1] < 1
    plain = build_optimizer(model, settings).param_groups
    unscaled = {id(p): group for group in plain for p in group["params"]}
    assert len(unscaled) == sum(len(group["params"]) for group in plain) == len(named)
    for name, parameter in named.items():
        factor = 0.25 if name.startswith("encoder.cnn.") else 1
        assert scale[name] == unscaled[id(parameter)]["scale"] * factor, name
        assert found[id(parameter)]["weight_decay"] == unscaled[id(parameter)]["weight_decay"], name
    assert {group["scale"] for group in build_optimizer(model, config()).param_groups} == {1}


def test_paths_are_balanced_and_dropped(lesions: Dataset) -> None:
    model = build_model(config(model=Model(pretrained=False, args={"drop_rate": 0.0})), lesions)
    x = torch.randn(6, 3, 64, 64)
    balance_paths(model, x)
    slices = path_slices(model)
    pooled = model.forward_features(x).mean((2, 3))
    weight = model.head.hidden[0].weight
    spread = {name: (weight[:, at].std() * pooled[:, at].std(0).mean()).item() for name, at in slices.items()}
    assert max(spread.values()) < 1.3 * min(spread.values())
    assert slices["P"].stop is None and pooled.shape[1] == model.head.hidden[0].in_features
    head = nn.Identity()
    inputs = torch.ones(400, pooled.shape[1], 1, 1)
    (masked,) = PathDropout(model, 0.25)(head, (inputs,)) or (None,)
    assert masked is not None
    shares = {name: masked[:, at].flatten(1).mean(1) for name, at in slices.items()}
    assert set(shares["r4"].tolist()) == set(shares["P"].tolist()) == {0.0, 1.0} and shares["p4"].min() == 1
    assert shares["r4"].mean() == pytest.approx(0.75, abs=0.08)
    assert PathDropout(model, 0.25)(head.eval(), (inputs,)) is None


def test_paths_are_balanced_on_training_images_of_the_fold(lesions: Dataset, folders: dict[str, Path]) -> None:
    data = TrainData("ham10000", str(folders["ham10000"]), folds=4, fold=1)
    settings = CnnConfig(data, "cls", input_size=32, seed=3)
    model = build_model(random_start(), lesions)
    train = make_split(lesions, 3, folds=4, fold=1)["train"]
    assert {sample.id for sample in train} != {sample.id for sample in make_split(lesions, 3)["train"]}
    expected, batch = Images(train, 32), first_images(model, settings, lesions)
    assert len(batch) == min(64, len(expected))
    for x, index in zip(batch, range(64)):
        image = expected[index, 0]["image"].float() / 255
        torch.testing.assert_close(x, normalize(image, model.pretrained_cfg))
