"""Trained networks on records: sharded over processes, the same result as in one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from readers import DataError, Record
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

import mfsf2
from mfsf2.layers import foreground_probability

from .build import normalize
from .data import read_image, read_mask
from .validation import dice_and_iou

__all__ = ["Prediction", "load_network", "predict_records", "prepare_image", "task_of"]


@dataclass
class Prediction:
    """What a network says of one record.

    Attributes:
        id: the record's.
        logits: of the classes; empty without.
        dice, iou: against the record's mask on the mask's own grid; None without.
        foreground: share of the image that is predicted foreground; None where masks were not asked for.
    """

    id: str
    logits: list[float]
    dice: float | None = None
    iou: float | None = None
    foreground: float | None = None


UseMask = Callable[[Record, Tensor], None]
"""Given a record and its predicted foreground on the image's own grid, bool ``(H, W)``."""


def load_network(folder: str) -> Any:
    """The network of a saved folder, for evaluation.

    Raises:
        DataError: no such folder, not a saved network, or one that takes no images of three channels.
    """
    source = folder if folder.startswith(("local-dir:", "hf-hub:")) else f"local-dir:{folder}"
    try:
        network: Any = mfsf2.create_model(source).eval()
    except (OSError, TypeError, ValueError) as error:
        raise DataError(f"checkpoint {folder}: {error}") from error
    channels = network.pretrained_cfg["input_size"][0]
    if channels != 3:
        raise DataError(f"checkpoint {folder}: its network takes {channels} channels, images here have 3")
    return network


def task_of(network: Any) -> str:
    """``cls``, ``seg``, ``clsseg`` or ``rcm_cls``."""
    architecture: str = network.pretrained_cfg["architecture"]
    return "rcm_cls" if architecture.endswith("rcm_cls") else architecture.rpartition("_")[2]


def prepare_image(path: Path, network: Any) -> Tensor:
    """An image as the network takes it, ``(1, 3, S, S)``: the whole frame squeezed to its input size."""
    size = list(network.pretrained_cfg["input_size"][1:])
    image = v2.functional.resize(tv_tensors.Image(read_image(path)), size, antialias=True)
    return normalize(image.as_subclass(Tensor).float() / 255, network.pretrained_cfg).unsqueeze(0)


def predict_records(
    network: Any, records: Sequence[Record], accelerator: Accelerator, use_mask: UseMask | None = None
) -> list[Prediction]:
    """Predictions for all records, in their order, in every process.

    Each process takes every n-th record, one at a time, so that neither their number nor that of the processes changes
    a result; it gives the masks to ``use_mask`` as they come.
    """
    network.to(accelerator.device)
    mine = range(accelerator.process_index, len(records), accelerator.num_processes)
    bar = tqdm(mine, desc="predicting", leave=False, disable=None if accelerator.is_main_process else True)
    found = [(index, _predict(network, records[index], accelerator.device, use_mask)) for index in bar]
    return [prediction for _, prediction in sorted(gather_object(found), key=lambda pair: pair[0])]


@torch.inference_mode()
def _predict(network: Any, record: Record, device: torch.device, use_mask: UseMask | None) -> Prediction:
    x = prepare_image(record.image, network).to(device)
    task = task_of(network)
    prediction = Prediction(record.id, [])
    mask_logits = None
    if task == "seg":
        mask_logits = network(x)
    elif task == "clsseg":
        logits, mask_logits = network(x)
        prediction.logits = logits[0].tolist()
    elif task == "rcm_cls" and record.stack:
        stack = torch.stack([prepare_image(path, network)[0] for path in record.stack]).unsqueeze(0)
        prediction.logits = network(x, stack.to(device))[0].tolist()
    else:
        prediction.logits = network(x)[0].tolist()
    if mask_logits is not None and record.mask is not None:
        truth = read_mask(record.mask).unsqueeze(0) > 0
        dice, iou = dice_and_iou(_foreground(mask_logits, truth.shape[2:]), truth)
        prediction.dice, prediction.iou = dice.item(), iou.item()
    if mask_logits is not None and use_mask is not None:
        mask = _foreground(mask_logits, read_image(record.image).shape[1:])[0, 0]
        prediction.foreground = mask.float().mean().item()
        use_mask(record, mask)
    return prediction


def _foreground(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bool ``(1, 1, H, W)`` on another grid."""
    logits = F.interpolate(logits.float().cpu(), size=tuple(size), mode="bilinear")
    return foreground_probability(logits) > 0.5
