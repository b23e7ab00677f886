"""The folder of a run: what a training writes beside its state, and what it must find there to go on."""

import copy
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from cli import as_dict
from datasets import OWN, DataError, split_text
from files import OutputFolder, to_json

if TYPE_CHECKING:
    from train import Config, Run

__all__ = ["FORMAT", "begin", "check_run", "check_same", "load_state", "log", "save_best"]

FORMAT = "mfsf2-training-1"
FILES = [
    "config.yaml",
    "split.json",
    "environment.json",
    "log.txt",
    "history.json",
    "curves.png",
    "results.json",
    "last.pt",
]
MODEL_FILES = ["best/model.safetensors", "best/config.json"]
FREE_TO_CHANGE = {"resume", "out", "device", "tensorboard"} | {
    f"data.{name}" for name in ("workers", "folder", "check", "split_file", "table", "group_table")
}


def log(run: "Run", line: str) -> None:
    """Print a line and add it to ``log.txt``, in the main process."""
    if run.accelerator.is_main_process:
        print(line, flush=True)
        with (run.out.folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def begin(run: "Run", notes: Sequence[str]) -> None:
    """Write what a run begins with."""
    if run.accelerator.is_main_process:
        run.out.claim([*FILES, *MODEL_FILES, "tensorboard"])
        run.out.write("config.yaml", yaml.safe_dump(as_dict(run.config), sort_keys=False))
        run.out.write("split.json", split_text(run.dataset, run.splits))
        run.out.write("environment.json", to_json(environment()))
        for line in [run.dataset.describe(run.splits), *notes, plan_of(run)]:
            log(run, line)


def plan_of(run: "Run") -> str:
    """How long the training is, and what it starts from."""
    config, cfg = run.config, run.model.pretrained_cfg
    tag = f"{cfg['architecture']}.{cfg.get('tag')}" if config.model.pretrained else "random weights"
    terms = f"; license of the model: {cfg['license']}" if cfg.get("license") else ""
    start = config.model.checkpoint or tag
    return f"{config.optim.epochs} epochs of {run.sampler.steps} steps, starting from {start}{terms}"


def environment() -> dict[str, str]:
    """What a run depends on beyond its configuration."""
    import accelerate
    import monai
    import timm
    import torchvision

    import mfsf2

    versions = {m.__name__: str(m.__version__) for m in (mfsf2, torch, torchvision, timm, accelerate, monai)}
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"python": sys.version.split()[0], "platform": platform.platform(), "accelerator": accelerator, **versions}


def save_best(run: "Run") -> None:
    """Write the best model, with its classes, and with what it has seen."""
    from safetensors import SafetensorError

    import mfsf2

    model = copy.deepcopy(run.averaged).cpu()
    cfg = model.pretrained_cfg = dict(model.pretrained_cfg)
    for key, split in (("trained_on", "train"), ("chosen_on", "val")):
        cfg[key] = sorted(run.hashes[split].union(cfg.get(key, ())))
    data = run.dataset.name if run.dataset.name not in OWN else Path(run.config.data.folder).absolute().name
    cfg["training"] = {"data": data, "epoch": int(run.best["epoch"]), "input size": run.config.input_size} | {
        f"validation {name}": round(value, 4) for name, value in run.best.items() if name != "epoch"
    }
    descriptions = {name: text for name, text in run.dataset.classes.items() if text}
    if run.config.has_classes and descriptions:
        cfg["label_descriptions"] = descriptions
    names = run.dataset.labels if run.config.has_classes else list(run.dataset.mask_format.names) or None
    try:
        mfsf2.save_pretrained(model, run.out.folder / "best", names)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{run.out.folder / 'best'} could not be written: {error}") from error


def check_run(config: "Config") -> OutputFolder:
    """Check, before anything slow, that a run can begin in its folder or go on.

    Raises:
        DataError: the folder holds a run already or other files, or no run to go on with.
    """
    out = OutputFolder(config.out)
    if config.resume:
        absent = [name for name in ("last.pt", "config.yaml", "split.json") if not (out.folder / name).is_file()]
        if absent:
            raise DataError(f"resume: no {', '.join(absent)} in {out.folder}; start the run without resume")
    elif (out.folder / "last.pt").exists():
        raise DataError(f"{out.folder} holds a run already: give another --out, or --resume true to go on with it")
    else:
        out.check([*FILES, *MODEL_FILES])
    return out


def check_same(out: OutputFolder, config: "Config") -> None:
    """Check that a run is resumed with the configuration that it began with.

    Raises:
        DataError: names each field that differs, with both values.
    """
    old, new = (flat(values) for values in (yaml.safe_load((out.folder / "config.yaml").read_text()), as_dict(config)))
    differ = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key) and key not in FREE_TO_CHANGE]
    if differ:
        changes = ", ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in differ)
        raise DataError(f"resume: the configuration is another one: {changes}")


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by names with dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save` wrote; tensors and plain values only, no code is run.

    Raises:
        DataError: not a checkpoint.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise DataError(f"resume: {path} cannot be read: {error}") from error
    if state.get("format") != FORMAT:
        raise DataError(f"resume: {path} has the format {state.get('format')!r}, expected {FORMAT!r}: start a new run")
    return state
