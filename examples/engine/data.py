"""From records to batches: read from disk for each batch, or once into memory; augmented or not."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from readers import Record
from readers.images import open_mask, open_rgb
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import tv_tensors
from torchvision.transforms import v2

from .augment import Geometry, draw, recolour, stored_size
from .config import Augment

__all__ = ["Batch", "DiskSamples", "EpochSampler", "class_counts", "make_loader"]

Batch = dict[str, Tensor]
"""``image`` (B, 3, S, S) in [0, 1], ``index`` (B,) and where they are wanted ``label`` (B,), ``mask`` (B, 1, S, S),
``stack`` (B, slices, 3, S, S)."""


def class_counts(records: Sequence[Record], num_classes: int) -> Tensor:
    """Images of each class."""
    return torch.tensor([record.label for record in records]).bincount(minlength=num_classes)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(index, seed)`` for one epoch and one of several processes.

    The order and each sample's seed follow from seed and epoch alone. Consecutive batches go to the processes in turn,
    so that n processes see in one step what one process sees in n accumulated batches.

    Args:
        weights: how often to draw each record, relative to the others; None for every record once.
        length: records.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        weights: Tensor | None = None,
        process: int = 0,
        processes: int = 1,
        accumulate: int = 1,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.weights = weights
        self.process = process
        self.processes = processes
        # Whole optimiser steps only, the same number in each process; a set smaller than one step makes one step.
        self.per_step = batch_size * processes * accumulate
        self.steps = max(1, length // self.per_step)
        self.accumulate = accumulate
        self.epoch = 0

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        wanted = self.steps * self.per_step
        if self.weights is not None:
            order = torch.multinomial(self.weights, wanted, replacement=True, generator=generator)
        else:
            rounds = -(-wanted // self.length)
            order = torch.cat([torch.randperm(self.length, generator=generator) for _ in range(rounds)])[:wanted]
        seeds = torch.randint(2**62, (wanted,), generator=generator)
        pairs = list(zip(order.tolist(), seeds.tolist()))
        batches = [pairs[start : start + self.batch_size] for start in range(0, wanted, self.batch_size)]
        yield from batches[self.process :: self.processes]


class DiskSamples(Dataset[dict[str, Any]]):
    """Reads and, with ``augment``, augments one record at a time; whole frames squeezed to a square.

    Items are asked for by ``(index, seed)``, or by index where nothing is random.
    """

    def __init__(
        self, records: Sequence[Record], size: int, masks: bool, stacks: bool, augment: Augment | None = None
    ) -> None:
        self.records = records
        self.size = size
        self.masks = masks
        self.stacks = stacks
        self.augment = augment
        stored = stored_size(size, augment)
        self.resize = v2.Resize((stored, stored), antialias=True)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        index, seed = key if isinstance(key, tuple) else (key, 0)
        record = self.records[index]
        sample: dict[str, Any] = {"index": index}
        if record.label is not None:
            sample["label"] = record.label
        draws = draw(seed)
        inputs = {"image": tv_tensors.Image(read_image(record.image))}
        if self.masks:
            inputs["mask"] = tv_tensors.Mask(read_mask(record.mask))
        sample |= self._place(inputs, draws)
        if self.augment is not None:
            sample["image"] = recolour(sample["image"][None], draws[None, 6:], self.augment.colour)[0]
        if self.stacks:
            stack = tv_tensors.Image(torch.stack([read_image(path) for path in record.stack]))
            # The same numbers in another order: a geometry of its own, one for all slices of a stack.
            sample |= self._place({"stack": stack}, draws.flip(0))
        return sample

    def _place(self, inputs: dict[str, Any], draws: Tensor) -> dict[str, Tensor]:
        """Whole frames, or a part of them, at the network's size; float32."""
        inputs = self.resize(inputs)
        if self.augment is None:
            return {key: (x / 255 if key != "mask" else x.float()).as_subclass(Tensor) for key, x in inputs.items()}
        placed: dict[str, Tensor] = Geometry(draws[:6], self.augment, self.size)(inputs)
        return placed


def read_image(path: Any) -> Tensor:
    """uint8 ``(3, H, W)``."""
    return torch.from_numpy(np.array(open_rgb(path))).permute(2, 0, 1)


def read_mask(path: Any) -> Tensor:
    """uint8 ``(1, H, W)``, 1 where a pixel is above 127."""
    return torch.from_numpy((np.array(open_mask(path)) > 127).astype(np.uint8)).unsqueeze(0)


def make_loader(samples: DiskSamples, batch_sampler: Any, workers: int) -> DataLoader[Any]:
    """Batches of samples; with an :class:`EpochSampler` or any sampler of lists."""
    return DataLoader(samples, batch_sampler=batch_sampler, num_workers=workers, persistent_workers=False)
