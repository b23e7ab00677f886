"""Quantize a trained model to int8 with ONNX Runtime, and measure what that gains and costs.

    python examples/quantize.py --checkpoint mfsf2_tiny_clsseg.ham10000 --data.name ham10000 --data.folder HAM10000 \
        --split_file examples/splits/ham10000.json --out runs/int8

``--out`` receives ``float32.onnx``, ``dynamic.onnx`` (weights of matrix products as int8, activations quantized in
every call), ``static.onnx`` (also convolutions, with ranges of the activations from images of the training split) and
``results.json`` with size, time, balanced accuracy (macro AUC where several classes may hold) and Dice of each on the
test split. Needs the extras ``train`` and ``onnx``. Research only.
"""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from shutil import copyfile
from statistics import median
from typing import Any

import torch
from benchmarks.sessions import open_onnx
from benchmarks.timing import rounds_of
from cli import run_function
from data import targets_of
from datasets import Data, DataError, Dataset, Sample, check_files, read_dataset
from evaluate import find_splits, for_model, left_over
from files import OutputFolder, to_json
from inference import Prediction, predict_samples, prepare_image
from metrics import mean_dice, summary
from models import load_model
from torch import Tensor, nn

MODELS = ("float32.onnx", "dynamic.onnx", "static.onnx")
PRODUCTS = ["MatMul", "Gemm"]


def quantize(
    checkpoint: str, data: Data, split_file: str, out: str, calibration: int = 100, rounds: int = 15
) -> dict[str, Any]:
    """Quantize a trained model of one modality, and measure it. Research only.

    Args:
        checkpoint: folder of the model, or a name with its pretrained tag.
        data: the data set.
        split_file: the split of the training, ``split.json``.
        out: folder for the results.
        calibration: number of images of the training split for the ranges of the activations.
        rounds: how often a single image is timed.
    """
    for name, value in (("calibration", calibration), ("rounds", rounds)):
        if value < 1:
            raise DataError(f"{name}={value} must be at least 1")
    folder = OutputFolder(Path(out).expanduser())
    folder.check([*MODELS, "results.json"])
    model = load_model(checkpoint)
    if hasattr(model, "stem"):
        raise DataError(f"checkpoint {checkpoint}: {model.architecture} takes two modalities, give a model of one")
    dataset = for_model(read_dataset(data, masks=model.mask_head is not None), model)
    splits, notes = find_splits(dataset, split_file, "test")
    samples, left_out = left_over(model, dataset, splits, "test")
    for note in (*notes, left_out):
        print(note)
    chosen = spread(splits["train"], calibration)
    if not chosen:
        raise DataError(f"{split_file}: no image in train")
    check_files([*samples, *chosen], dataset.mask_format)
    images = [prepare_image(sample.image, model) for sample in chosen]
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_models(model, images, Path(scratch)):
            folder.write(path.name, partial(copyfile, path))
    sessions = {Path(name).stem: Session(folder.folder / name, model) for name in MODELS}
    results = {"images": len(samples), **measure(sessions, samples, dataset, images[0], rounds)}
    folder.write("results.json", to_json(results))
    return results


def spread(samples: Sequence[Sample], number: int) -> Sequence[Sample]:
    """So many samples, evenly from all of them, because classes may come one after the other."""
    return samples[:: max(1, len(samples) // number)][:number]


def write_models(model: Any, images: Sequence[Tensor], folder: Path) -> list[Path]:
    """The three files, all for one image at a time of the size of ``images``."""
    from onnxruntime.quantization import QuantType, quantize_dynamic, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from mfsf2.deploy import export_onnx, export_program, fold_batch_norm

    paths = [folder / name for name in MODELS]
    plain, dynamic, static = paths
    height, width = images[0].shape[2:]
    program = export_program(fold_batch_norm(model))
    export_onnx(program, plain, sizes={"batch": 1, "height": height, "width": width})
    prepared = folder / "prepared.onnx"
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    quantize_dynamic(prepared, dynamic, op_types_to_quantize=PRODUCTS, weight_type=QuantType.QInt8)
    quantize_static(
        prepared,
        static,
        Calibration(images),
        op_types_to_quantize=[*PRODUCTS, "Conv"],
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8,
        per_channel=True,
        # Seven bits for weights: without VNNI, processors saturate sums of products of eight bits.
        reduce_range=True,
    )
    return paths


class Calibration:
    """Images one at a time, as ONNX Runtime's ``CalibrationDataReader``."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self.images: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, Any] | None:
        image = next(self.images, None)
        return None if image is None else {"image": image.numpy()}


class Session(nn.Module):
    """An ONNX file in the place of a model."""

    def __init__(self, path: Path, model: Any) -> None:
        super().__init__()
        self.run = open_onnx(path)
        self.path = path
        self.pretrained_cfg = model.pretrained_cfg
        self.head, self.mask_head = model.head, model.mask_head

    def forward(self, image: Tensor) -> Any:
        return self.run(image)


def measure(
    sessions: dict[str, Session], samples: list[Sample], dataset: Dataset, image: Tensor, rounds: int
) -> dict[str, dict[str, float]]:
    """Size, time and metrics of each file."""
    from accelerate import Accelerator

    times = rounds_of({name: partial(session, image) for name, session in sessions.items()}, rounds)
    results = {}
    for name, session in sessions.items():
        predictions = predict_samples(session, samples, Accelerator(cpu=True), dataset.mask_format)
        row = {
            "mib": session.path.stat().st_size / 2**20,
            "ms": median(times[name]),
            "time_over_float32": median(a / b for a, b in zip(times[name], times["float32"])),
            **metrics_of(predictions, samples, dataset),
        }
        results[name] = row
        print(f"{name:<8}", "  ".join(f"{key} {value:.4f}" for key, value in row.items()), flush=True)
    return results


def metrics_of(predictions: Sequence[Prediction], samples: Sequence[Sample], dataset: Dataset) -> dict[str, float]:
    """Balanced accuracy, or macro AUC where several classes may hold, and mean Dice; those that apply."""
    found: dict[str, float] = {}
    if len(predictions[0].logits):
        logits = torch.tensor([prediction.logits for prediction in predictions])
        name = "auc" if dataset.multi_label else "balanced_accuracy"
        probabilities = logits.sigmoid() if dataset.multi_label else logits.softmax(1)
        value = summary(probabilities, targets_of(samples))[name]
        found |= {} if value is None else {name: value}
    if len(predictions[0].dice):
        found["dice"] = mean_dice(torch.tensor([prediction.dice for prediction in predictions]))
    return found


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    return run_function(quantize, argv)


if __name__ == "__main__":
    main()
