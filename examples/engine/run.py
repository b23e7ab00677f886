"""The folder of a run: configuration, split, environment, log, curves, results."""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from readers import DataError, Dataset, Record, save_split

from .checkpoint import check_folder, write_text
from .config import Config, config_dict

__all__ = ["RunFolder", "check_run", "differing_fields", "draw_curves", "environment"]

_FREE_TO_CHANGE = {"resume", "out", "device", "tensorboard", "data.workers", "data.folder", "data.check", "data.split"}


def environment() -> dict[str, str]:
    """What a run depends on beyond its configuration."""
    import accelerate
    import monai
    import timm
    import torchvision

    import mfsf2

    modules = [mfsf2, torch, torchvision, timm, accelerate, monai]
    versions = {module.__name__: str(module.__version__) for module in modules}
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"python": sys.version.split()[0], "platform": platform.platform(), "accelerator": accelerator, **versions}


def differing_fields(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a run is resumed with the configuration that it began with.

    Raises:
        DataError: names each field that differs, with both values.
    """
    old, new = _flat(before), _flat(now)
    differ = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k) and k not in _FREE_TO_CHANGE]
    if differ:
        changes = ", ".join(f"{key} was {old.get(key)!r} and is {new.get(key)!r}" for key in differ)
        raise DataError(f"resume: the configuration is another one: {changes}")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_run(config: Config) -> None:
    """Check, before anything slow, that a run can begin in its folder or go on.

    Raises:
        DataError: the folder holds a run already, or none to go on with, or one of another configuration.
    """
    folder = Path(config.out)
    check_folder(folder)
    last = folder / "last.pt"
    if config.resume:
        absent = [name for name in ("last.pt", "config.yaml", "split.json") if not (folder / name).is_file()]
        if absent:
            raise DataError(f"resume: no {', '.join(absent)} in {folder}; start the run without resume")
        written = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        differing_fields(written, config_dict(config))
    elif last.exists():
        raise DataError(f"{folder} holds a run already: give another --out, or --resume true to go on with it")


class RunFolder:
    """Writes a run's files, in the main process alone."""

    def __init__(self, path: Path, is_main: bool, tensorboard: bool = False) -> None:
        self.path = path
        self.is_main = is_main
        self.writer = self._make_writer() if tensorboard and is_main else None

    def _make_writer(self) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise DataError("tensorboard=true needs tensorboard: pip install tensorboard") from error
        return SummaryWriter(self.path / "tensorboard")

    def begin(self, config: Config, dataset: Dataset, parts: dict[str, list[Record]]) -> None:
        """Write what a run begins with."""
        if not self.is_main:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "config.yaml", yaml.safe_dump(config_dict(config), sort_keys=False))
        save_split(self.path / "split.json", dataset, parts)
        write_text(self.path / "environment.json", json.dumps(environment(), indent=1) + "\n")
        self.log(dataset.describe(parts))

    def log(self, line: str) -> None:
        """Print a line and add it to ``log.txt``."""
        if self.is_main:
            print(line, flush=True)
            with (self.path / "log.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def keep_history(self, history: list[dict[str, float]]) -> None:
        """Write the epochs so far, as numbers and as curves."""
        entry = history[-1]
        self.log("  ".join(f"{name} {value:.4g}" for name, value in entry.items()))
        write_text(self.path / "history.json", json.dumps(history, indent=1) + "\n")
        draw_curves(history, ["balanced_accuracy", "dice"], self.path / "curves.png")
        if self.writer is not None:
            for name, value in entry.items():
                self.writer.add_scalar(name, value, entry["epoch"])
            self.writer.flush()

    def finish(self, results: dict[str, Any]) -> None:
        """Write the results."""
        if self.is_main:
            write_text(self.path / "results.json", json.dumps(results, indent=1) + "\n")


def draw_curves(history: list[dict[str, float]], measures: Sequence[str], path: Path, over: str = "epoch") -> None:
    """Training loss and the validation's measures, those of them that there are, over epochs or steps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    right = left.twinx()
    at = [entry[over] for entry in history]
    left.plot(at, [entry["loss"] for entry in history], "o-", markersize=3, color="C0")
    left.set(xlabel=over, ylim=(0, None))
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("training loss", color="C0")
    for index, name in enumerate((name for name in measures if name in history[-1]), start=1):
        label = name.replace("_", " ")
        right.plot(at, [entry[name] for entry in history], "o-", markersize=3, color=f"C{index}", label=label)
    right.set(ylabel="validation", ylim=(0, 1.02))
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    figure.savefig(path, dpi=120)
