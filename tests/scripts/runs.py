"""What the tests of the training's scripts share."""

from collections.abc import Callable
from pathlib import Path

import train
import yaml
from accelerate.state import AcceleratorState, GradientState

EXAMPLES = Path(train.__file__).parent
CONFIGS = sorted(path.stem for path in (EXAMPLES / "configs").glob("*.yaml"))
SETTINGS = {name: yaml.safe_load((EXAMPLES / "configs" / f"{name}.yaml").read_text()) for name in CONFIGS}
SMALL = "--model.pretrained false --input_size 32 --optim.batch_size 8 --optim.epochs 1 --data.workers 0 --device cpu"
Run = Callable[[str], Path]


def forget_accelerator() -> None:
    """accelerate keeps one state a process; each script is meant to be its own."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


def data_of(config: str) -> str:
    """The data set of a configuration."""
    return str(SETTINGS[config]["data"]["name"])


def arguments(config: str, data: Path, out: Path, *more: str) -> list[str]:
    fixed = ["--config", str(EXAMPLES / "configs" / f"{config}.yaml"), "--data.folder", str(data), "--out", str(out)]
    return [*fixed, *SMALL.split(), *more]
