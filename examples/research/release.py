"""Write a trained model the way one comes with the package.

    python examples/research/release.py --checkpoint runs/tiny/best --data.name ham10000 --data.folder HAM10000 \
        --split_file examples/splits/ham10000.json --out runs/released

Weights are rounded to half precision, except vectors (biases, norms and their statistics), which take no room. The
configuration receives descriptions of the classes and the temperature, fitted on the validation split with the rounded
weights.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cli import run_function
from datasets import OWN, Data, DataError, Dataset, Sample, check_files, read_dataset
from evaluate import find_splits, for_model, set_input_size, temperature_of
from files import OutputFolder
from inference import predict_samples
from models import load_model

FILES = ("model.safetensors", "config.json")


def release(checkpoint: str, data: Data, split_file: str, out: str, input_size: int | None = None) -> dict[str, Any]:
    """Write a trained model of classes the way one comes with the package. Research only.

    Args:
        checkpoint: folder of the model, ``best`` of a run.
        data: the data set that it was trained on.
        split_file: the split of the run, ``split.json``.
        out: new folder for the weights and the configuration.
        input_size: height and width to use it at; None for what it was trained at.

    Returns:
        The content of ``config.json``.
    """
    folder = OutputFolder(Path(out).expanduser())
    folder.check(FILES)
    model = load_model(checkpoint)
    if model.head is None:
        raise DataError(f"checkpoint {checkpoint}: {model.architecture} predicts no classes")
    if input_size is not None:
        set_input_size(model, input_size)
        model.pretrained_cfg["pool_size"] = (math.ceil(input_size / 32),) * 2
    dataset = for_model(read_dataset(data), model)
    splits, notes = find_splits(dataset, split_file, "val")
    check_files(splits["val"])
    for note in notes:
        print(note)
    round_matrices(model)
    describe(model, data, dataset, splits["val"])
    return write(model, folder)


def round_matrices(model: Any) -> None:
    """Round matrices and filters to half precision, but calculate in single precision."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()


def describe(model: Any, data: Data, dataset: Dataset, val: list[Sample]) -> None:
    """Add what users want to know to the configuration, and the temperature."""
    from accelerate import Accelerator

    cfg = model.pretrained_cfg
    cfg["temperature"] = round(temperature_of(predict_samples(model, val, Accelerator()), val), 4)
    descriptions = {name: text for name, text in dataset.classes.items() if text}
    if descriptions:
        cfg["label_descriptions"] = descriptions
    name = Path(data.folder).absolute().name if data.name in OWN else data.name
    cfg["description"] = f"Trained on {name}. Research only, not a diagnostic device."


def write(model: Any, folder: OutputFolder) -> dict[str, Any]:
    """The files; returns the configuration."""
    import mfsf2

    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()
    weights, config = (folder.folder / name for name in FILES)
    folder.claim(FILES)
    mfsf2.save_pretrained(model.cpu(), folder.folder)
    content: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    print(f"{folder.folder}: {weights.stat().st_size / 1e6:.1f} MB, sha256 {content['sha256']}")
    return content


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    return run_function(release, argv)


if __name__ == "__main__":
    main()
