"""Trained models on samples: sharded over processes, the same result as in one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from data import normalize, read_image, read_mask
from datasets import MaskFormat, Sample
from datasets.masks import IGNORE, ONE_FOREGROUND
from metrics import dice_and_iou
from models import mask_indices, outputs_of
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["Prediction", "predict_samples", "prepare_image"]


@dataclass
class Prediction:
    """What a model says of one sample.

    Attributes:
        id: the sample's.
        logits: of the classes; empty without.
        dice, iou: of each foreground against the sample's mask on the mask's own grid; NaN for one of several that is
            in neither; empty without a mask.
        shares: of the image that is predicted to be each foreground; empty where masks were not asked for.
        error: why the sample's files could not be read.
    """

    id: str
    logits: Sequence[float] = ()
    dice: Sequence[float] = ()
    iou: Sequence[float] = ()
    shares: Sequence[float] = ()
    error: str | None = None


UseMask = Callable[[Sample, Tensor], None]
"""Given a sample and its predicted class indices on the image's own grid, uint8 ``(H, W)``."""


FLIPS: tuple[tuple[int, ...], ...] = ((), (3,), (2,), (2, 3))
"""Dimensions along which an image is mirrored: none, across, down, both."""


def prepare_image(path: Path, model: Any) -> Tensor:
    """An image as the model takes it, ``(1, 3, S, S)``: the whole frame squeezed to its input size."""
    from torchvision.transforms.v2 import functional

    size = list(model.pretrained_cfg["input_size"][1:])
    image = functional.resize(read_image(path), size, antialias=True)
    return normalize(image.float() / 255, model.pretrained_cfg).unsqueeze(0)


def predict_samples(
    model: Any,
    samples: Sequence[Sample],
    accelerator: "Accelerator",
    mask_format: MaskFormat = ONE_FOREGROUND,
    use_mask: UseMask | None = None,
    tta: bool = False,
    skip_unreadable: bool = False,
) -> list[Prediction]:
    """Predictions for all samples, in their order, in every process.

    Each process takes every n-th sample, one at a time, so that neither their number nor that of the processes changes
    a result; it gives the masks to ``use_mask`` as they come.

    Args:
        model: the model.
        samples: the images.
        accelerator: of this process.
        mask_format: how the samples' masks are read, if they have any.
        use_mask: what to do with predicted masks.
        tta: test-time augmentation: logits are means over the image and its three mirror images.
        skip_unreadable: note files that cannot be read in the prediction, instead of raising.
    """
    from accelerate.utils import gather_object

    model.to(accelerator.device)
    mine = range(accelerator.process_index, len(samples), accelerator.num_processes)
    bar = tqdm(mine, desc="predicting", leave=False, disable=None if accelerator.is_main_process else True)
    found = []
    for index in bar:
        try:
            inputs = _inputs(model, samples[index], accelerator.device)
        except (OSError, SyntaxError, ValueError) as error:
            if not skip_unreadable:
                raise
            found.append((index, Prediction(samples[index].id, error=str(error))))
        else:
            found.append((index, _predict(model, samples[index], inputs, mask_format, use_mask, tta)))
    return [prediction for _, prediction in sorted(gather_object(found), key=lambda pair: pair[0])]


def _inputs(model: Any, sample: Sample, device: torch.device) -> list[Tensor]:
    """The image and, of a model of two modalities, the stack, if there is one."""
    inputs = [prepare_image(sample.image, model)]
    if hasattr(model, "stem") and sample.stack:
        inputs.append(torch.stack([prepare_image(path, model)[0] for path in sample.stack]).unsqueeze(0))
    return [x.to(device) for x in inputs]


@torch.inference_mode()
def _predict(
    model: Any, sample: Sample, inputs: list[Tensor], mask_format: MaskFormat, use_mask: UseMask | None, tta: bool
) -> Prediction:
    views = [_forward(model, inputs, dims) for dims in (FLIPS if tta else FLIPS[:1])]
    logits, mask_logits = (_mean([view[part] for view in views]) for part in (0, 1))
    prediction = Prediction(sample.id, [] if logits is None else logits[0].tolist())
    if mask_logits is not None and sample.mask is not None:
        truth = read_mask(sample, mask_format)
        overlap = dice_and_iou(_indices(mask_logits, truth.shape[1:]), truth, mask_logits.shape[1], IGNORE)
        prediction.dice, prediction.iou = (values[0].tolist() for values in overlap)
    if mask_logits is not None and use_mask is not None:
        mask = _indices(mask_logits, read_image(sample.image).shape[1:])[0]
        prediction.shares = [(mask == k).float().mean().item() for k in range(1, max(2, mask_logits.shape[1]))]
        use_mask(sample, mask)
    return prediction


def _forward(model: Any, inputs: list[Tensor], dims: tuple[int, ...]) -> tuple[Tensor | None, Tensor | None]:
    """Logits of classes and of masks for inputs mirrored along ``dims`` of an image; masks are mirrored back."""
    mirrored = [x.flip([dim - 4 for dim in dims]) for x in inputs]
    logits, masks = outputs_of(model, *mirrored)
    return logits, None if masks is None else masks.flip(dims)


def _mean(values: list[Any]) -> Any:
    return None if values[0] is None else torch.stack(values).mean(0)


def _indices(logits: Tensor, size: Sequence[int]) -> Tensor:
    """Class indices on another grid, uint8 ``(1, H, W)``."""
    logits = F.interpolate(logits.float().cpu(), size=tuple(size), mode="bilinear")
    return mask_indices(logits)
