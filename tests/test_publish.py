"""Publishing: one call, and what it writes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard
from micro import TASKS, build

import mfsf2
import mfsf2.timm_models

X = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
REPO = "someone/published"
NAMES = ["benign", "malignant"]


@pytest.fixture
def server(hub_server: HubServer) -> Iterator[HubServer]:
    yield hub_server
    shutil.rmtree(hub_server.root / REPO, ignore_errors=True)


def push(model: Any, **kwargs: Any) -> str:
    return mfsf2.push_to_hub(model, REPO, **{"license": "cc-by-4.0", "label_names": NAMES, "token": "hf_x", **kwargs})


def test_published_models_load(server: HubServer, tmp_path: Path) -> None:
    model = build(num_classes=2)
    url = push(model)
    assert url == f"{server.endpoint}/{REPO}/commit/{server.commit_of(REPO)}"
    assert sorted(path.name for path in (server.root / REPO).iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert not list((server.root / REPO).glob("**/cache"))
    for create in (mfsf2.create_model, lambda name, **kw: timm.create_model(name, pretrained=True, **kw)):
        loaded = create(f"hf-hub:{REPO}", cache_dir=str(tmp_path)).eval()
        assert torch.equal(loaded(X), model(X))
        assert list(loaded.pretrained_cfg["label_names"]) == NAMES and loaded.pretrained_cfg["license"] == "cc-by-4.0"


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str, server: HubServer, tmp_path: Path) -> None:
    model = build(task)
    names = [f"class {index}" for index in range(model.num_classes)]
    push(torch.compile(model, backend="eager"), label_names=names)
    loaded: Any = mfsf2.create_model(f"hf-hub:{REPO}", cache_dir=str(tmp_path))
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    text = (server.root / REPO / "README.md").read_text()
    assert ("reconstruction" in text) == (task != "cls")
    assert ("timm.create_model" in text) == (task == "cls")


def test_the_model_card(server: HubServer) -> None:
    model = build("clsseg", num_classes=2)
    model.pretrained_cfg.update(
        label_descriptions={"benign": "Harmless | really"},
        training={"data": "my lesions", "epochs": 3},
        metrics={"classification": {"balanced_accuracy": 0.75}},
        trained_on=["a", "b", "c"],
        temperature=1.25,
    )
    push(model, description="Two sentences. On the data.")
    text = (server.root / REPO / "README.md").read_text()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("cc-by-4.0", "mfsf2", "image-classification")
    assert {"image-classification", "image-segmentation"} <= set(data.tags)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for part in (
        "# published\n",
        "Research only. Not a diagnostic device.",
        f"`mfsf2_tiny_clsseg` of the library `mfsf2`: MFSF2-NET with the branches `micro_resnet` and `micro_pvt_v2`, "
        f"{parameters:,} parameters",
        'model = mfsf2.create_model("hf-hub:someone/published").eval()',
        "| 0 | benign | Harmless \\| really |\n| 1 | malignant |  |",
        "| input_size | 3, 128, 128 |",
        "| crop_mode | squash |",
        "| mean | 0.485, 0.456, 0.406 |",
        "Divide the logits by 1.25 (temperature scaling) before the softmax.",
        "| data | my lesions |\n| epochs | 3 |\n| images trained on | 3 |",
        "| classification | balanced_accuracy | 0.75 |",
        "Two sentences. On the data.",
        "`cc-by-4.0`",
    ):
        assert part in text, part


def test_the_card_of_several_labels_at_once(tmp_path: Path) -> None:
    """What the training script writes beside the weights is there again, and the card says what a logit means."""
    model = build("clsseg", num_classes=2)
    entries = {"multi_label": True, "mask_names": ["background", "a"], "ignore_index": 255}
    model.pretrained_cfg.update(entries, temperature=1.25)
    mfsf2.save_pretrained(model, tmp_path, NAMES)
    text = (tmp_path / "README.md").read_text()
    assert "Several classes may hold at once: the sigmoid of a logit is its probability." in text
    assert "Divide the logits by 1.25 (temperature scaling) before the sigmoid." in text and "softmax" not in text
    loaded = mfsf2.create_model(f"local-dir:{tmp_path}").pretrained_cfg
    assert {key: loaded[key] for key in entries} == entries


def test_the_card_s_code_runs(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = build(num_classes=2)
    push(model)
    mfsf2.save_pretrained(model, "local", NAMES)
    for path in (server.root / REPO / "README.md", Path("local/README.md")):
        assert str(tmp_path) not in path.read_text()
        scope: dict[str, Any] = {}
        exec(path.read_text().split("```python\n")[1].split("```")[0], scope)  # noqa: S102
        assert torch.equal(scope["model"](X), model(X))


def test_cards_that_were_written_by_hand(server: HubServer, tmp_path: Path) -> None:
    model = build(num_classes=2)
    for folder, write in ((server.root / REPO, push), (tmp_path, lambda m: mfsf2.save_pretrained(m, tmp_path, NAMES))):
        write(model)
        generated = (folder / "README.md").read_text()
        model.pretrained_cfg["training"] = {"data": str(folder)}
        write(model)
        again = (folder / "README.md").read_text()
        assert str(folder) in again and again != generated
        mine = again.replace("<!-- Generated by mfsf2", "<!-- Mine")
        (folder / "README.md").write_text(mine)
        config = (folder / "config.json").read_text()
        write(model)
        assert (folder / "README.md").read_text() == mine and (folder / "config.json").read_text() != config


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"license": None}, "license=None is not a license identifier"),
        ({"license": "Apache 2.0"}, "license='Apache 2.0' is not a license identifier"),
        ({"label_names": None}, "needs label_names=.*the names of the 2 classes"),
        ({"label_names": ["a"]}, "label_names has 1 name, but the model has 2 classes"),
        ({"label_names": ["a", "a"]}, "label_names has 'a' twice"),
    ],
)
def test_what_must_be_given(kwargs: dict[str, Any], message: str, server: HubServer) -> None:
    with pytest.raises(ValueError, match=message):
        push(build(num_classes=2), **kwargs)
    assert not server.requests
    with pytest.raises(TypeError, match="license"):
        mfsf2.push_to_hub(build(), REPO)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="could not be loaded again"):
        push(build(num_classes=2).to("meta"))
    with pytest.raises(ValueError, match="no owner and name"):
        mfsf2.push_to_hub(build(), "no owner and name", "mit")
    with pytest.raises(TypeError, match="Linear is not a model of this library"):
        push(torch.nn.Linear(2, 2))


def test_names_and_licenses_that_are_known(server: HubServer) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_clsseg", pretrained=True)
    with pytest.warns(UserWarning, match=r"license='mit', but the model .* under 'cc-by-nc-4\.0'"):
        push(model, license="mit", label_names=None)
    config = json.loads((server.root / REPO / "config.json").read_text())
    assert config["label_names"][0] == "akiec" and config["pretrained_cfg"]["temperature"] == 1.1658
    text = (server.root / REPO / "README.md").read_text()
    assert "| segmentation | dice | 0.934 |" in text
    assert f"| images trained on | {len(model.pretrained_cfg['trained_on'])} |" in text


def test_other_branches_and_messages(server: HubServer, tmp_path: Path) -> None:
    push(build(num_classes=2))
    shutil.copytree(server.root / REPO, tmp_path / "v2")
    server.branches[REPO, "v2"] = tmp_path / "v2"
    push(build(num_classes=2, seed=3), revision="v2", commit_message="Second", private=True)
    a, b = ((folder / "model.safetensors").read_bytes() for folder in (server.root / REPO, tmp_path / "v2"))
    assert a != b


def test_details() -> None:
    details = mfsf2.list_pretrained(["mfsf2_tiny_*cls*", "mfsf2_cls"], details=True)
    assert list(details) == mfsf2.list_pretrained(["mfsf2_tiny_*cls*", "mfsf2_cls"])
    both = details["mfsf2_tiny_clsseg.ham10000"]
    assert both.size == (Path(mfsf2.__file__).parent / "weights/ham10000/model.safetensors").stat().st_size
    assert (both.license, both.data, both.source) == ("cc-by-nc-4.0", "HAM10000", "package")
    assert both.metrics == {
        "classification": {"balanced_accuracy": 0.746, "roc_auc": 0.964},
        "segmentation": {"dice": 0.934},
    }
    assert details["mfsf2_tiny_cls.ham10000"].metrics.keys() == {"classification"}
    start = details["mfsf2_cls.in1k_backbones"]
    assert start.size is None and start.license == "apache-2.0" and "ImageNet-1k" in start.data and not start.metrics
    assert start.source == "timm/resnet50.a1_in1k and timm/pvt_v2_b2.in1k"
    assert not mfsf2.list_pretrained("nothing", details=True)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("metrics", 0.9, "metrics=0.9 must be a mapping"),
        ("training", "my data", "training='my data' must be a mapping"),
        ("label_names", ["a", " "], "label_names has the empty name ' '"),
        ("std", [0, 1, 1], "must be positive"),
        ("temperature", float("nan"), "temperature=nan"),
        ("note", {"x": [float("inf")]}, r"pretrained_cfg\.note\.x\[0\]=inf cannot be saved"),
        ("note", object(), r"pretrained_cfg\.note=.* cannot be saved"),
    ],
)
def test_metadata_that_is_none(entry: str, value: Any, message: str, tmp_path: Path) -> None:
    model = build(num_classes=2)
    model.pretrained_cfg[entry] = value
    with pytest.raises((TypeError, ValueError), match=message):
        mfsf2.save_pretrained(model, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_metrics_by_name_alone(tmp_path: Path) -> None:
    model = build(num_classes=2)
    model.pretrained_cfg["metrics"] = {"accuracy": 0.9}
    mfsf2.save_pretrained(model, tmp_path)
    assert "|  | accuracy | 0.9 |" in (tmp_path / "README.md").read_text()
