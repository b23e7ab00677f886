"""Trained networks on records: sharded over processes, the same result as in one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from readers import Record
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from tqdm import tqdm

import mfsf2
from mfsf2.layers import foreground_probability

from .build import normalize
from .data import read_image, read_mask
from .network import outputs_of
from .validation import dice_and_iou

__all__ = ["Prediction", "predict_records", "prepare_image"]


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


FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Dimensions along which an image is mirrored: none, across, down, both."""


def prepare_image(path: Path, network: Any) -> Tensor:
    """An image as the network takes it, ``(1, 3, S, S)``: the whole frame squeezed to its input size."""
    size = list(network.pretrained_cfg["input_size"][1:])
    image = v2.functional.resize(tv_tensors.Image(read_image(path)), size, antialias=True)
    return normalize(image.as_subclass(Tensor).float() / 255, network.pretrained_cfg).unsqueeze(0)


def predict_records(
    network: Any,
    records: Sequence[Record],
    accelerator: Accelerator,
    use_mask: UseMask | None = None,
    flips: bool = False,
) -> list[Prediction]:
    """Predictions for all records, in their order, in every process.

    Each process takes every n-th record, one at a time, so that neither their number nor that of the processes changes
    a result; it gives the masks to ``use_mask`` as they come. With ``flips`` the logits are means over the image and
    its three mirror images.
    """
    network.to(accelerator.device)
    mine = range(accelerator.process_index, len(records), accelerator.num_processes)
    bar = tqdm(mine, desc="predicting", leave=False, disable=None if accelerator.is_main_process else True)
    found = [(index, _predict(network, records[index], accelerator.device, use_mask, flips)) for index in bar]
    return [prediction for _, prediction in sorted(gather_object(found), key=lambda pair: pair[0])]


@torch.inference_mode()
def _predict(network: Any, record: Record, device: torch.device, use_mask: UseMask | None, flips: bool) -> Prediction:
    x = prepare_image(record.image, network).to(device)
    views = [_forward(network, record, x, dims) for dims in (FLIPS if flips else FLIPS[:1])]
    logits, mask_logits = (_mean([view[part] for view in views]) for part in (0, 1))
    prediction = Prediction(record.id, [] if logits is None else logits[0].tolist())
    if mask_logits is not None and record.mask is not None:
        truth = read_mask(record.mask).unsqueeze(0) > 0
        dice, iou = dice_and_iou(_foreground(mask_logits, truth.shape[2:]), truth)
        prediction.dice, prediction.iou = dice.item(), iou.item()
    if mask_logits is not None and use_mask is not None:
        mask = _foreground(mask_logits, read_image(record.image).shape[1:])[0, 0]
        prediction.foreground = mask.float().mean().item()
        use_mask(record, mask)
    return prediction


def _forward(network: Any, record: Record, x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Logits of classes and of masks for an image mirrored along ``dims``; masks are mirrored back."""
    inputs = [x.flip(dims)]
    if isinstance(network, mfsf2.MFSF2TwoModality) and record.stack:
        stack = torch.stack([prepare_image(path, network)[0] for path in record.stack])
        inputs.append(stack.flip(dims).unsqueeze(0).to(x.device))
    logits, masks = outputs_of(network, *inputs)
    return logits, None if masks is None else masks.flip(dims)


def _mean(values: list[Any]) -> Any:
    return None if values[0] is None else torch.stack(values).mean(0)


def _foreground(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Bool ``(1, 1, H, W)`` on another grid."""
    logits = F.interpolate(logits.float().cpu(), size=tuple(size), mode="bilinear")
    return foreground_probability(logits) > 0.5
