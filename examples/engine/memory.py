"""The whole data set in memory as uint8, on the CPU or the training device, augmented there a batch at a time."""

from collections.abc import Sequence
from typing import Any

import torch
from readers import Record
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

from .augment import draw, random_grid, recolour, sample, stored_size
from .config import Augment
from .data import Batch, read_image, read_mask

__all__ = ["MemorySamples"]


class MemorySamples:
    """Records read once, at a quarter more than the input's size where they are to be augmented.

    Args:
        records: the images.
        size: height and width of the network's input.
        masks, stacks: whether these are wanted.
        augment: augmentation; None for none.
        device: where the images are kept.
    """

    def __init__(
        self,
        records: Sequence[Record],
        size: int,
        masks: bool,
        stacks: bool,
        augment: Augment | None,
        device: torch.device,
    ) -> None:
        stored = stored_size(size, augment)
        self.augment = augment
        self.size = size
        bar = tqdm(records, desc="reading images", leave=False, disable=None)
        images, masks_read, stacks_read = [], [], []
        for record in bar:
            images.append(_resize(read_image(record.image), stored, v2.InterpolationMode.BILINEAR))
            if masks:
                masks_read.append(_resize(read_mask(record.mask), stored, v2.InterpolationMode.NEAREST))
            if stacks:
                slices = [_resize(read_image(path), stored, v2.InterpolationMode.BILINEAR) for path in record.stack]
                stacks_read.append(torch.stack(slices))
        self.images = torch.stack(images).to(device)
        self.masks = torch.stack(masks_read).to(device) if masks else None
        self.stacks = torch.stack(stacks_read).to(device) if stacks else None
        labels = [record.label for record in records]
        self.labels = None if None in labels else torch.tensor(labels, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of some ``(index, seed)``."""
        index = torch.tensor([key[0] for key in keys], device=self.images.device)
        draws = torch.stack([draw(seed) for _, seed in keys]).to(self.images.device)
        batch = {"index": index, "image": self.images[index]}
        if self.labels is not None:
            batch["label"] = self.labels[index]
        if self.masks is not None:
            batch["mask"] = self.masks[index].float()
        if self.augment is None:
            batch["image"] = batch["image"].float() / 255
            if self.stacks is not None:
                batch["stack"] = self.stacks[index].float() / 255
            return batch
        grid = random_grid(draws[:, :6], self.augment, self.size)
        batch["image"] = recolour(sample(batch["image"].float() / 255, grid), draws[:, 6:], self.augment.colour)
        if "mask" in batch:
            batch["mask"] = sample(batch["mask"], grid, mode="nearest")
        if self.stacks is not None:
            # The same numbers in another order: a geometry of its own, one for all slices of a stack.
            batch["stack"] = self._augment_stacks(self.stacks[index], draws.flip(1))
        return batch

    def _augment_stacks(self, stacks: Tensor, draws: Tensor) -> Tensor:
        number = stacks.shape[1]
        grid = random_grid(draws[:, :6], self.augment, self.size).repeat_interleave(number, 0)  # type: ignore[arg-type]
        return sample(stacks.flatten(0, 1).float() / 255, grid).unflatten(0, (-1, number))


def _resize(x: Tensor, size: int, interpolation: Any) -> Tensor:
    return v2.functional.resize(x, [size, size], interpolation=interpolation, antialias=True)
