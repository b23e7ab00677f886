"""train.py: resuming, several processes, options, early stopping, and that it learns."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evaluate
import predict
import pytest
import torch
import train
import train_from_cnn
from datasets import ham10000
from datasets.overlap import hash_file, hash_id
from datasets.synthetic import write_dataset
from runs import EXAMPLES, Run, arguments, forget_accelerator
from safetensors.torch import load_file, save_file
from timm import create_model

import mfsf2

pytestmark = pytest.mark.training


def test_a_second_training_keeps_the_names_of_the_first(run: Run, folders: dict[str, Path], tmp_path: Path) -> None:
    """Lesions first, then polyps: the model still knows what it saw, and the stricter terms stay."""
    first = run("ham10000_seg")
    train.main(arguments("kvasir_seg", folders["kvasir"], tmp_path / "out", "--model.checkpoint", str(first / "best")))
    model: Any = mfsf2.create_model(f"local-dir:{tmp_path / 'out' / 'best'}")
    both = [json.loads((folder / "split.json").read_text())["splits"] for folder in (first, tmp_path / "out")]
    files = {path.stem: path for name in ("ham10000", "kvasir") for path in folders[name].rglob("*.jpg")}
    files |= {path.stem: path for path in (folders["kvasir"] / "images").iterdir()}
    for key, split in (("trained_on", "train"), ("chosen_on", "val")):
        names = [name for splits in both for name in splits[split]]
        expected = {code for name in names for code in (hash_id(name), hash_file(files[name]))}
        assert model.pretrained_cfg[key] == sorted(expected)
    assert model.pretrained_cfg["license"] == "cc-by-nc-4.0 and research-and-education"


def same_state(a: Path, b: Path) -> bool:
    one, other = load_file(a / "best" / "model.safetensors"), load_file(b / "best" / "model.safetensors")
    return all(torch.equal(one[key], other[key]) for key in one) and set(one) == set(other)


def test_killed_run_resumes_to_the_same_result(folders: dict[str, Path], tmp_path: Path) -> None:
    """Killed outright in its third epoch of four, in the middle of whatever it is doing."""
    more = ["--optim.epochs", "4", "--optim.ema_decay", "0.9", "--data.check", "false"]
    whole = train.main(arguments("ham10000_clsseg", folders["ham10000"], tmp_path / "whole", *more))
    broken = arguments("ham10000_clsseg", folders["ham10000"], tmp_path / "broken", *more)
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, str(EXAMPLES / "train.py"), *broken], env=environment)
    history = tmp_path / "broken" / "history.json"
    deadline = time.monotonic() + 240
    while not (history.is_file() and len(json.loads(history.read_text())) >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert len(json.loads(history.read_text())) < 4
    forget_accelerator()
    resumed = train.main([*broken, "--resume", "true"])
    assert resumed == whole
    assert same_state(tmp_path / "whole", tmp_path / "broken")
    last = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "broken")]
    assert last[0]["history"] == last[1]["history"]
    for part in ("model", "model_ema"):
        assert all(torch.equal(last[0][part][key], value) for key, value in last[1][part].items())
        loaded = mfsf2.create_model("mfsf2_tiny_clsseg")
        mfsf2.load_checkpoint(loaded, tmp_path / "whole" / "last.pt", entry=part)
        assert all(torch.equal(loaded.state_dict()[key], value) for key, value in last[0][part].items())
    averaged = mfsf2.create_model("mfsf2_tiny_clsseg", checkpoint_path=tmp_path / "whole" / "last.pt")
    assert all(torch.equal(averaged.state_dict()[key], value) for key, value in last[0]["model_ema"].items())


def test_two_processes_do_what_one_does(folders: dict[str, Path], run: Run, tmp_path: Path) -> None:
    """Training, evaluation and prediction under one launcher; of two processes each takes half a step's batches."""
    still = ["--model.args", "{drop_rate: 0, drop_path_rate: 0}", "--optim.epochs", "2", "--optim.batch_size", "4"]
    data = folders["ham10000"]
    source = str(data / ham10000.IMAGE_FOLDERS[1])
    model = run("ham10000_clsseg")

    def jobs(out: Path) -> dict[str, list[str]]:
        trained = ["--checkpoint", str(model / "best"), "--device", "cpu"]
        measured = [
            "--data.name",
            "ham10000",
            "--data.folder",
            str(data),
            "--out",
            str(out / "test"),
            "--n_bootstrap",
            "5",
        ]
        return {
            "train": arguments("ham10000_clsseg", data, out / "run", *still),
            "predict": [*trained, "--images", source, "--out", str(out)],
            "evaluate": [*trained, *measured, "--out", str(out / "test")],
        }

    two, one = tmp_path / "two", tmp_path / "one"
    jobs_file = tmp_path / "jobs.json"
    jobs_file.write_text(json.dumps(jobs(two)))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    environment = {**os.environ, "PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES}", "OMP_NUM_THREADS": "1"}
    driver = str(Path(__file__).with_name("run_scripts.py"))
    done = subprocess.run([*launcher, driver, str(jobs_file)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # Sums over another number of threads round in another way.
    torch.set_num_threads(1)
    train.main([*jobs(one)["train"], "--optim.accumulate", "2"])
    forget_accelerator()
    predict.main(jobs(one)["predict"])
    evaluate.main(jobs(one)["evaluate"])

    losses = [[e["loss"] for e in json.loads((out / "run" / "history.json").read_text())] for out in (two, one)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name in ("predictions.csv", "test/predictions.csv", "test/results.json"):
        assert (two / name).read_text() == (one / name).read_text(), name
    masks = sorted(path.name for path in one.glob("*_mask.png"))
    assert masks == sorted(path.name for path in two.glob("*_mask.png"))
    assert all((two / name).read_bytes() == (one / name).read_bytes() for name in masks)


def test_options(folders: dict[str, Path], tmp_path: Path) -> None:
    """Everything that no configuration turns on: memory, weighted loss, smoothing, bf16, TensorBoard, CNN weights."""
    weights = tmp_path / "resnet18.safetensors"
    save_file(create_model("resnet18", num_classes=0).state_dict(), weights)
    more = "--data.memory device --loss.balance loss --loss.smoothing 0.1 --optim.precision bf16 --tensorboard true"
    more += f" --cnn.weights {weights} --cnn.path_dropout 0.5 --augment.rotate false --cnn.lr_scale 0.2"
    train_from_cnn.main(arguments("ham10000_cls", folders["ham10000"], tmp_path / "out", *more.split()))
    assert list((tmp_path / "out" / "tensorboard").iterdir())
    forget_accelerator()
    again = [
        "--model.checkpoint",
        str(tmp_path / "out" / "best"),
        "--data.split_file",
        str(tmp_path / "out" / "split.json"),
    ]
    results = train.main(arguments("ham10000_cls", folders["ham10000"], tmp_path / "again", *again, "--seed", "5"))
    assert (tmp_path / "again" / "split.json").read_text() == (tmp_path / "out" / "split.json").read_text()
    assert results["epochs"] == 1


def test_early_stopping(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.3, 0.5, 0.4, 0.4, 0.9])
    monkeypatch.setattr("train.validate", lambda _: {"dice": next(scores)})
    more = ["--optim.epochs", "5", "--optim.patience", "2"]
    results = train.main(arguments("kvasir_seg", folders["kvasir"], tmp_path / "out", *more))
    assert results["epochs"] == 4 and results["best"]["epoch"] == 2


def test_training_learns(tmp_path: Path) -> None:
    """A few dozen steps on synthetic spots must leave the fixed mask behind."""
    data = write_dataset("isic2018", tmp_path / "data", lesions=16)
    more = ["--optim.epochs", "12", "--optim.lr", "2e-3", "--data.memory", "cpu", "--optim.layer_decay", "1"]
    more += ["--optim.ema_decay", "0", "--input_size", "64"]
    train.main(arguments("isic2018_seg", data, tmp_path / "out", *more))
    fixed = ["--checkpoint", str(tmp_path / "out" / "best"), "--data.name", "isic2018", "--data.folder", str(data)]
    fixed += ["--split_file", str(tmp_path / "out" / "split.json"), "--n_bootstrap", "5", "--device", "cpu"]
    results = evaluate.main([*fixed, "--out", str(tmp_path / "test")])
    assert results["dice"] > max(0.85, results["fixed_mask_dice"])
