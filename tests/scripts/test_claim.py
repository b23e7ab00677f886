"""The comparison of the network with its parts: the networks, what is inside of them, the trainings, the tables."""

import json
import re
from pathlib import Path
from typing import Any

import claim
import claim_tables
import inside
import pytest
import torch
from datasets import Data, make_split, read_dataset, split_text
from datasets.synthetic import write_dataset
from losses import Loss, ModelWithLoss
from metrics import summary
from runs import forget_accelerator
from safetensors.torch import load_file, save_file
from timm import create_model
from torch import Tensor, nn
from variants import VARIANTS, build_variant

BOTH = ("concat", "fusion", "mfsf2")


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {variant: build_variant(variant, 1, 7).eval() for variant in VARIANTS}


def images(number: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


# The networks


def test_networks_of_a_seed_share_their_first_weights(networks: dict[str, Any]) -> None:
    whole = networks["mfsf2"].state_dict()
    for variant in ("cnn", "transformer", "concat", "fusion"):
        state = {key: value for key, value in networks[variant].state_dict().items() if key.startswith("encoder.")}
        assert state and all(torch.equal(value, whole[key]) for key, value in state.items()), variant
    other = build_variant("mfsf2", 2, 7).state_dict()
    assert not torch.equal(other["encoder.cnn.conv1.weight"], whole["encoder.cnn.conv1.weight"])


def test_networks_of_branches_by_hand(networks: dict[str, Any]) -> None:
    """The head on the means of the last maps."""
    x, whole = images(), networks["mfsf2"]
    with torch.no_grad():
        cnn_maps, transformer_maps = whole.encoder(x)
        means = {"cnn": cnn_maps[-1].mean((2, 3)), "transformer": transformer_maps[-1].mean((2, 3))}
        for variant, names in (("cnn", ["cnn"]), ("transformer", ["transformer"]), ("concat", ["cnn", "transformer"])):
            head = networks[variant].head
            expected = head.fc(head.hidden(torch.cat([means[name] for name in names], 1)))
            torch.testing.assert_close(networks[variant](x), expected)
            assert head.hidden_size == whole.head.hidden_size and head.drop.p == whole.head.drop.p


def test_network_without_mffe(networks: dict[str, Any]) -> None:
    whole, without = networks["mfsf2"], networks["fusion"]
    gone = whole.state_dict().keys() - without.state_dict().keys()
    assert gone and all(".mffe_" in key for key in gone) and not without.state_dict().keys() - whole.state_dict().keys()
    rest = {key: value for key, value in whole.state_dict().items() if key not in gone}
    without.load_state_dict(rest)
    # The whole network, with gates that let everything through.
    for stage in whole.encoder.fusion.stages:
        for mffe in (stage.mffe_cnn, stage.mffe_transformer):
            mffe.gate = lambda x: torch.ones(x.shape[:2])
    x = images()
    with torch.no_grad():
        torch.testing.assert_close(without(x), whole(x))
    for stage in whole.encoder.fusion.stages:
        for mffe in (stage.mffe_cnn, stage.mffe_transformer):
            del mffe.gate


def test_cnn_weights(tmp_path: Path) -> None:
    state = create_model("resnet18", num_classes=0).state_dict()
    save_file(state, tmp_path / "resnet18.safetensors")
    for variant in ("cnn", "concat", "fusion", "mfsf2"):
        found = build_variant(variant, 0, 7, str(tmp_path / "resnet18.safetensors")).encoder.cnn.state_dict()
        assert all(torch.equal(found[key], value) for key, value in state.items())


# Inside of them


@pytest.mark.parametrize("variant", BOTH)
def test_without_a_branch(variant: str, networks: dict[str, Any]) -> None:
    """The mean of its maps in their place."""
    model, batches = networks[variant], [images(3), images(2, seed=1)]
    every = torch.cat(batches)
    with torch.no_grad():
        means = inside.mean_maps(model, batches)
        for branch in inside.BRANCHES:
            backbone = getattr(model.encoder, branch)
            maps = backbone.forward_intermediates(every, intermediates_only=True)[-len(means[branch]) :]
            for one, mean in zip(maps, means[branch]):
                torch.testing.assert_close(mean, one.mean(0, keepdim=True))
            before = model(every)
            with inside.only_means(backbone, means[branch]):
                left_out = model(every)
            assert torch.equal(model(every), before) and not torch.allclose(left_out, before)
            other = getattr(model.encoder, {"cnn": "transformer", "transformer": "cnn"}[branch])
            other_means = means[{"cnn": "transformer", "transformer": "cnn"}[branch]]
            with inside.only_means(backbone, means[branch]), inside.only_means(other, other_means):
                both = model(every)
            # Nothing is known of any image any more.
            assert (both - both[:1]).abs().max() < 1e-6


def test_hooks_are_gone_after_an_error(networks: dict[str, Any]) -> None:
    model = networks["mfsf2"]
    with pytest.raises(ValueError, match="image"):
        inside.look_inside(model, [images(), torch.zeros(1, 5, 64, 64)], torch.zeros(6))
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all("forward_intermediates" not in vars(getattr(model.encoder, name)) for name in inside.BRANCHES)


@pytest.mark.parametrize("variant", BOTH)
def test_look_inside(variant: str, networks: dict[str, Any]) -> None:
    model, batches = networks[variant], [images(4), images(3, seed=1)]
    labels = torch.tensor([0, 1, 2, 3, 4, 5, 6])
    found = inside.look_inside(model, batches, labels)
    with torch.no_grad():
        logits = torch.cat([model(x) for x in batches])
    expected = summary(logits.softmax(1), labels)
    assert found["without"]["nothing"]["auc"] == pytest.approx(expected["auc"])
    of_head = [] if variant == "concat" else ["r4", "p4", "P"]
    assert list(found["without"]) == ["nothing", "cnn", "transformer", *of_head]
    kinds = {"concat": [], "fusion": ["gate"], "mfsf2": ["mffe_cnn", "mffe_transformer", "gate"]}[variant]
    assert list(found["gates"]) == [f"{stage}.{kind}" for stage in range(4) for kind in kinds]
    if variant == "mfsf2":
        stage = model.encoder.fusion.stages[2]
        with torch.no_grad():
            r, p = stage.align(*(maps[2] for maps in model.encoder(torch.cat(batches))))
            gates = stage.mffe_cnn.gate(r)
            weights = stage.gate.weight(stage.mffe_cnn(r), stage.mffe_transformer(p))
        statistics = found["gates"]["2.mffe_cnn"]
        assert statistics["mean"] == pytest.approx(gates.mean().item())
        assert statistics["between_channels"] == pytest.approx(gates.mean(0).std().item(), rel=1e-3)
        assert statistics["between_images"] == pytest.approx(gates.std(0).mean().item(), rel=1e-3)
        assert found["gates"]["2.gate"]["mean"] == pytest.approx(weights.mean().item())


def test_gradient_shares() -> None:
    model: Any = nn.Module()
    model.encoder = nn.ModuleDict({"cnn": nn.Linear(3, 4, bias=False), "transformer": nn.Linear(3, 4, bias=False)})
    model.head = nn.Linear(4, 2, bias=False)
    model.forward = lambda x: model.head(model.encoder.cnn(x) + 0 * model.encoder.transformer(x))
    learner = ModelWithLoss(model, Loss())
    x, labels = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 1, 0])
    shares = inside.gradient_shares(learner, [({"image": x}, labels)] * 2)
    loss = nn.functional.cross_entropy(model(x), labels)
    (gradient,) = torch.autograd.grad(loss, model.encoder.cnn.weight)
    assert shares["cnn"] == pytest.approx((gradient.norm() / model.encoder.cnn.weight.norm()).item(), rel=1e-4)
    assert list(shares) == ["cnn", "transformer", "head"] and shares["transformer"] == 0
    assert all(parameter.grad is None for parameter in model.parameters())


# The trainings


def test_plan() -> None:
    planned = list(claim.plan((0, 5)))
    assert len(planned) == len(set(planned)) == 18
    assert [seed for seed, _, _ in planned] == [0] * 9 + [5] * 9
    assert (0, "cnn_start", "transformer") not in planned


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with claim.alone(tmp_path / "run") as first, claim.alone(tmp_path / "run") as second:
        assert first and not second
    with claim.alone(tmp_path / "run") as third:
        assert third


@pytest.mark.training
def test_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed and goes on ends as one that is not; what is done is not done again."""
    ham = write_dataset("ham10000", tmp_path / "ham", lesions=4)
    dataset = read_dataset(Data("ham10000", str(ham)))
    splits = make_split(dataset)
    (tmp_path / "split.json").write_text(split_text(dataset, splits))
    save_file(create_model("resnet18", num_classes=0).state_dict(), tmp_path / "cnn.safetensors")
    monkeypatch.setattr(claim, "plan", lambda seeds: [(0, "cnn_start", "concat"), (0, "scratch", "mfsf2")])
    monkeypatch.setattr(claim, "GRADIENT_BATCHES", 1)

    def run(name: str, *more: str) -> None:
        forget_accelerator()
        given = ["--folder", str(ham), "--cnn_weights", str(tmp_path / "cnn.safetensors"), "--device", "cpu"]
        given += ["--split_file", str(tmp_path / "split.json"), "--epochs", "2", "--input_size", "64"]
        given += ["--batch_size", "8", "--out", str(tmp_path / f"{name}_runs"), "--results", str(tmp_path / name)]
        claim.main([*given, *more])

    run("one")
    train_one_epoch = claim.train_one_epoch

    def killed(run: Any, epoch: int) -> float:
        if epoch == 1:
            raise KeyboardInterrupt
        return train_one_epoch(run, epoch)

    monkeypatch.setattr(claim, "train_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run("two")
    monkeypatch.setattr(claim, "train_one_epoch", train_one_epoch)
    run("two")
    for name in ("cnn_start-concat-0", "scratch-mfsf2-0"):
        one, two = (json.loads((tmp_path / folder / f"{name}.json").read_text()) for folder in ("one", "two"))
        assert one | {"minutes": 0} == two | {"minutes": 0}
        tensors = [load_file(tmp_path / folder / f"{name}.safetensors") for folder in ("one", "two")]
        assert all(torch.equal(value, tensors[1][key]) for key, value in tensors[0].items())
        assert one["images"] == {split: len(samples) for split, samples in splits.items()}
        assert len(tensors[0]["logits"]) == len(splits["val"]) + len(splits["test"])
        assert len(one["loss"]) == 2 and one["steps"] == 2 * (len(splits["train"]) // 8)
        assert list(one["gradients"]) == ["before", "after"]
        assert one["without"]["nothing"]["auc"] is not None
    # What a training goes on from is of no use once it has ended.
    assert not list((tmp_path / "one_runs").glob("*/*last.pt"))
    monkeypatch.setattr(claim, "train_network", lambda *_: pytest.fail("trained again"))
    run("two")
    for option, value, message in (
        ("--epochs", "3", "with epochs 2, and here it is 3; give another --results"),
        ("--input_size", "96", "with input_size 64, and here it is 96"),
        ("--batch_size", "4", "with steps .*, and here it is"),
        ("--precision", "bf16", "with precision no, and here it is bf16"),
        ("--input_size", "20", "input_size=20 must be"),
    ):
        with pytest.raises(SystemExit, match=message):
            run("two", option, value)
    tables = claim_tables.load_trainings(tmp_path / "two")
    assert [training.facts["variant"] for training in tables] == ["concat", "mfsf2"]
    assert tables[0].metrics()["balanced_accuracy"] == pytest.approx(tables[0].facts["balanced_accuracy"], abs=0.02)


# The tables


def write_training(folder: Path, start: str, variant: str, seed: int, quality: float, noise: int = 0) -> None:
    """A made-up training: the more ``quality``, the more often right."""
    generator = torch.Generator().manual_seed(seed + noise)
    labels = torch.arange(210) % 7
    logits = torch.randn(210, 7, generator=generator) + quality * nn.functional.one_hot(labels, 7)
    facts = {"variant": variant, "start": start, "seed": seed, "epochs": 2, "loss": [2.0, 1.0 / quality]}
    name = f"{start}-{variant}-{seed}"
    (folder / f"{name}.json").write_text(json.dumps(facts))
    tensors = {"labels": labels.to(torch.uint8), "lesions": (torch.arange(210) // 2).short(), "logits": logits.half()}
    save_file(tensors, folder / f"{name}.safetensors")


def rows_of(table: str, keys: int = 1) -> dict[str, list[str]]:
    """The rows by the text of their first columns."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {" minus ".join(line[:keys]): line[keys:] for line in lines[2:]}


def test_tables(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_training(tmp_path, "cnn_start", "mfsf2", seed, 3.0)
        write_training(tmp_path, "cnn_start", "concat", seed, 1.0)
        write_training(tmp_path, "scratch", "transformer", seed, 3.0, noise=9)
    write_training(tmp_path, "cnn_start", "cnn", 1, 3.0)
    trainings = claim_tables.load_trainings(tmp_path)
    rows = rows_of(claim_tables.results_table(trainings, "cnn_start"))
    assert list(rows) == [
        f"{name}{' (from random weights)' if variant == 'transformer' else ''}" for variant, name in VARIANTS.items()
    ]
    values = [training.metrics()["auc"] for training in trainings if training.facts["variant"] == "concat"]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert rows[VARIANTS["concat"]][1] == f"{mean:.3f} ± {deviation:.3f}"
    assert rows[VARIANTS["fusion"]] == ["—"] * 4 + ["0"]
    assert rows[VARIANTS["cnn"]][3:] == ["0.333", "1"]
    rows = rows_of(claim_tables.trainings_table(trainings, "cnn_start"))
    assert rows[VARIANTS["cnn"]][0] == "—" and rows[VARIANTS["fusion"]] == ["—", "—"]
    assert [float(cell.split(", ")[1]) for cell in rows[VARIANTS["concat"]]] == pytest.approx(values, abs=6e-4)
    rows = rows_of(claim_tables.differences_table(trainings, "cnn_start", n_bootstrap=50), keys=2)
    transformer = f"{VARIANTS['transformer']} (from random weights)"
    of_ours = {name.removeprefix("MFSF2-NET minus "): row for name, row in rows.items()}
    assert {name: row[-1] for name, row in of_ours.items()} == {
        VARIANTS["cnn"]: "1",
        transformer: "2",
        VARIANTS["concat"]: "2",
        f"{VARIANTS['concat']} minus {VARIANTS['cnn']}": "1",
    }
    # The same logits of the same seed: no difference, and no interval around it.
    assert of_ours[VARIANTS["cnn"]][0] == "+0.000 (+0.000 to +0.000)"
    assert of_ours[VARIANTS["concat"]][0].startswith("**+0.") and "**" not in of_ours[transformer][0]
    empty = claim_tables.differences_table(trainings, "scratch", n_bootstrap=5)
    assert empty == "No pair of trainings yet."


@pytest.mark.parametrize(
    ("values", "low", "high", "bold"),
    [
        ([0.2, 0.1], 0.05, 0.2, True),
        ([0.4, -0.1], 0.05, 0.2, False),
        ([-0.2, -0.1], -0.2, -0.05, True),
        ([-0.4, 0.1], -0.2, -0.05, False),
        ([0.2, 0.1], -0.05, 0.2, False),
    ],
)
def test_bold_needs_all_trainings(values: list[float], low: float, high: float, bold: bool) -> None:
    assert ("**" in claim_tables.interval(values, low, high)) == bold


def test_no_table_of_different_trainings(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no results"):
        claim_tables.load_trainings(tmp_path)
    for seed in (0, 1):
        write_training(tmp_path, "scratch", "cnn", seed, 3.0)
    assert len(claim_tables.load_trainings(tmp_path)) == 2
    path = tmp_path / "scratch-cnn-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"epochs": 10}))
    with pytest.raises(ValueError, match="different settings or images"):
        claim_tables.load_trainings(tmp_path)
    write_training(tmp_path, "scratch", "cnn", 1, 3.0)
    tensors = load_file(tmp_path / "scratch-cnn-1.safetensors")
    save_file(tensors | {"labels": tensors["labels"].flip(0)}, tmp_path / "scratch-cnn-1.safetensors")
    with pytest.raises(ValueError, match="different settings or images"):
        claim_tables.load_trainings(tmp_path)


def test_paired_interval_is_that_of_the_difference() -> None:
    """Against a bootstrap by hand, of one metric and one pair."""
    labels = torch.arange(60) % 3
    lesions = torch.arange(60) // 3
    pair = []
    for seed, variant in enumerate(("mfsf2", "cnn")):
        logits = torch.randn(60, 3, generator=torch.Generator().manual_seed(seed)) + nn.functional.one_hot(labels, 3)
        pair.append(claim_tables.Training({"variant": variant, "start": "scratch", "seed": 0}, logits, labels, lesions))
    (row,) = rows_of(claim_tables.differences_table(pair, "scratch", n_bootstrap=200), keys=2).values()
    accuracy, low, high = (float(number) for number in re.findall(r"[+-][\d.]+", row[0]))
    generator, differences = torch.Generator().manual_seed(1), []
    right = [(one.logits.argmax(1) == labels).float() for one in pair]
    for _ in range(2000):
        drawn = torch.randint(20, (20,), generator=generator)
        at = (drawn[:, None] * 3 + torch.arange(3)).flatten()
        # Each lesion has one image of each class here: the balanced accuracy is the accuracy.
        differences.append((right[0][at].mean() - right[1][at].mean()).item())
    quantiles = torch.tensor(differences).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert accuracy == pytest.approx((right[0].mean() - right[1].mean()).item(), abs=6e-4)
    assert [low, high] == pytest.approx(quantiles, abs=0.04)
