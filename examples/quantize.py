"""Quantize a trained network to int8 with ONNX Runtime, and measure what that gains and costs.

    python examples/quantize.py --checkpoint mfsf2_tiny_clsseg.ham10000 --data ham10000 --folder HAM10000 \
        --split examples/splits/ham10000.json --out runs/int8

``--out`` receives ``float32.onnx``, ``dynamic.onnx`` (weights of matrix products as int8, activations quantized in
every call), ``static.onnx`` (also convolutions, with ranges of the activations from images of the training part) and
``results.json`` with size, time, balanced accuracy and Dice of each on the test part. Needs the extras ``train`` and
``onnx``. Research only.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

from accelerate import Accelerator
from benchmarks.sessions import open_onnx
from benchmarks.timing import rounds_of
from engine.checkpoint import check_folder
from engine.inference import predict_records, prepare_image
from engine.measures import summary
from engine.network import load_network
from evaluate import check_labels, left_over, logits_and_labels
from jsonargparse import auto_cli
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from readers import DataError, Record, check_files, load_split, read_dataset
from torch import Tensor, nn

from mfsf2.deploy import export_onnx, export_program, fold_batch_norm

PRODUCTS = ["MatMul", "Gemm"]


def quantize(
    checkpoint: str,
    data: Literal["ham10000", "isic2018", "isic2019", "kvasir", "psinkd"],
    folder: str,
    split: str,
    out: str,
    calibration: int = 100,
    rounds: int = 15,
) -> dict[str, Any]:
    """Quantize a trained network of one modality, and measure it. Research only.

    Args:
        checkpoint: folder of the network, or a name with its pretrained tag.
        data: the data set.
        folder: where it lies.
        split: the split of the training, ``split.json``.
        out: folder for the results.
        calibration: number of images of the training part for the ranges of the activations.
        rounds: how often a single image is timed.
    """
    try:
        for name, value in (("calibration", calibration), ("rounds", rounds)):
            if value < 1:
                raise DataError(f"{name}={value} must be at least 1")
        check_folder(Path(out))
        network = load_network(checkpoint)
        dataset = read_dataset(data, folder, masks=network.mask_head is not None)
        parts = load_split(split, dataset)
        check_labels(network, dataset)
        records = left_over(network, parts, "test", report=True)
        # Evenly from the whole part, because its classes may come one after the other.
        chosen = parts["train"][:: max(1, len(parts["train"]) // calibration)][:calibration]
        check_files([*records, *chosen])
        Path(out).mkdir(parents=True, exist_ok=True)
        images = [prepare_image(record.image, network) for record in chosen]
        sessions = {path.stem: Session(path, network) for path in write_files(network, images, Path(out))}
        results = measure(sessions, records, images[0], rounds)
        (Path(out) / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        return results
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


def write_files(network: Any, images: Sequence[Tensor], folder: Path) -> list[Path]:
    """The three files, all for one image at a time of the size of ``images``."""
    paths = [folder / f"{name}.onnx" for name in ("float32", "dynamic", "static")]
    plain, dynamic, static = paths
    height, width = images[0].shape[2:]
    program = export_program(fold_batch_norm(network))
    export_onnx(program, plain, sizes={"batch": 1, "height": height, "width": width})
    prepared = folder / "prepared.onnx"
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, dynamic, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8)
    quantize_static(
        prepared,
        static,
        Images(images),
        op_types_to_quantize=[*PRODUCTS, "Conv"],
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        per_channel=True,
        # Seven bits for weights: without VNNI, processors saturate sums of products of eight bits.
        reduce_range=True,
    )
    prepared.unlink()
    return paths


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Feeds images to the calibration, one at a time."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image.numpy()}


class Session(nn.Module):
    """An ONNX file in the place of a network."""

    def __init__(self, path: Path, network: Any) -> None:
        super().__init__()
        self.run = open_onnx(path)
        self.path = path
        self.pretrained_cfg = network.pretrained_cfg
        self.head, self.mask_head = network.head, network.mask_head

    def forward(self, image: Tensor) -> Any:
        return self.run(image)


def measure(sessions: dict[str, Session], records: list[Record], image: Tensor, rounds: int) -> dict[str, Any]:
    """Size, time and measures of each file."""
    times = rounds_of({name: partial(session, image) for name, session in sessions.items()}, rounds)
    results: dict[str, Any] = {"images": len(records)}
    for name, session in sessions.items():
        predictions = predict_records(session, records, Accelerator(cpu=True))
        row = {
            "mib": session.path.stat().st_size / 2**20,
            "ms": median(times[name]),
            "time_over_float32": median(a / b for a, b in zip(times[name], times["float32"])),
        }
        if predictions[0].logits:
            logits, labels = logits_and_labels(predictions, records)
            row["balanced_accuracy"] = summary(logits.softmax(1), labels)["balanced_accuracy"]
        if predictions[0].dice is not None:
            row["dice"] = sum(prediction.dice or 0.0 for prediction in predictions) / len(predictions)
        results[name] = row
        print(f"{name:<8}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)
    return results


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    results: dict[str, Any] = auto_cli(quantize, args=None if argv is None else list(argv), as_positional=False)
    return results


if __name__ == "__main__":
    main()
