"""Write a trained network the way in which one comes with the package.

    python examples/release.py --checkpoint runs/tiny/best --data ham10000 --folder HAM10000 \
        --split examples/splits/ham10000.json --out mfsf2/weights/ham10000

Weights are rounded to half precision, but for vectors (biases, norms and their statistics), which take no room. The
configuration receives descriptions of the classes and the temperature, fitted on the validation part with the rounded
weights.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from engine.checkpoint import check_folder
from engine.inference import predict_records
from engine.network import load_network
from evaluate import check_labels, set_input_size, temperature_of
from jsonargparse import auto_cli
from readers import DataError, load_split, read_dataset

import mfsf2


def release(
    checkpoint: str,
    data: Literal["ham10000"],
    folder: str,
    split: str,
    out: str,
    input_size: int | None = None,
) -> dict[str, Any]:
    """Write a trained network of classes and masks the way in which one comes with the package.

    Args:
        checkpoint: folder of the network, ``best`` of a run.
        data: the data set that it was trained on.
        folder: where it lies.
        split: the split of the run.
        out: folder for the weights and the configuration.
        input_size: height and width to use it at; None for what it was trained at.
    """
    try:
        check_folder(Path(out))
        network = load_network(checkpoint)
        dataset = read_dataset(data, folder, masks=False)
        check_labels(network, dataset)
        round_matrices(network)
        cfg = network.pretrained_cfg
        set_input_size(network, input_size)
        records = load_split(split, dataset)["val"]
        cfg["temperature"] = round(temperature_of(predict_records(network, records, Accelerator()), records), 4)
        cfg["label_descriptions"] = dataset.classes
        cfg["description"] = f"Trained on {dataset.name}. Research only, not a diagnostic device."
        return write(network, Path(out))
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


def round_matrices(network: Any) -> None:
    """Round matrices and filters to half precision, but calculate in single precision."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half().float()


def write(network: Any, out: Path) -> dict[str, Any]:
    """The files; returns the configuration."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()
    mfsf2.save_pretrained(network.cpu(), out)
    content: dict[str, Any] = json.loads((out / "config.json").read_text(encoding="utf-8"))
    size = (out / "model.safetensors").stat().st_size / 1e6
    print(f"{out}: {size:.1f} MB, sha256 {content['sha256']}")
    return content


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    content: dict[str, Any] = auto_cli(release, args=None if argv is None else list(argv), as_positional=False)
    return content


if __name__ == "__main__":
    main()
