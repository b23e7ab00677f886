"""From samples to batches of uint8 tensors: read from disk for each batch, or once into memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import DataError, MaskFormat, Sample
from datasets.checks import find_problem
from datasets.images import open_rgb
from datasets.masks import ONE_FOREGROUND, open_mask
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from tqdm import tqdm

__all__ = [
    "EpochSampler",
    "Images",
    "class_counts",
    "class_weights",
    "make_loader",
    "normalize",
    "read_image",
    "read_mask",
    "targets_of",
]

Batch = dict[str, Tensor]
"""``image`` uint8 (B, 3, S, S), ``index`` and ``seed`` (B,) and, where they are wanted, ``label`` (B,), or (B, classes)
where several may hold, ``mask`` uint8 (B, 1, S, S), ``stack`` uint8 (B, slices, 3, S, S)."""


class Images(Dataset[Batch]):
    """Whole frames squeezed to a square. Items are asked for by ``(index, seed)``.

    Args:
        samples: the images.
        size: height and width.
        mask_format: how masks are read; None where they are not wanted.
        stacks: whether slices are wanted.
        memory: where all images are kept once they are read, as ``"cpu"``; None for nowhere.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        size: int,
        mask_format: MaskFormat | None = None,
        stacks: bool = False,
        memory: torch.device | None = None,
    ) -> None:
        self.samples = samples
        self.size = size
        self.mask_format = mask_format
        self.stacks = stacks
        self.kept: Batch | None = None
        if memory is not None:
            bar = tqdm(range(len(samples)), desc="reading images", leave=False, disable=None)
            kept = default_collate([self._read(index) for index in bar])
            self.kept = {key: value.to(memory) for key, value in kept.items()}

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        index, seed = key
        return {**self._read(index), "index": torch.tensor(index), "seed": torch.tensor(seed)}

    def from_memory(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of some ``(index, seed)``, of images that are kept in memory."""
        assert self.kept is not None
        index, seed = torch.tensor(keys).T
        kept = {key: value[index.to(value.device)] for key, value in self.kept.items()}
        return {**kept, "index": index, "seed": seed}

    def _read(self, index: int) -> Batch:
        sample = self.samples[index]
        try:
            return self._decode(sample)
        except (OSError, SyntaxError, ValueError) as error:
            problem = find_problem(sample, self.mask_format or ONE_FOREGROUND)
            raise DataError(problem or f"{sample.image}: {error}") from error

    def _decode(self, sample: Sample) -> Batch:
        item = {"image": _squeeze(read_image(sample.image), self.size)}
        if sample.classes or sample.labels:
            item["label"] = targets_of([sample])[0]
        if self.mask_format is not None:
            item["mask"] = _squeeze(read_mask(sample, self.mask_format), self.size, nearest=True)
        if self.stacks:
            item["stack"] = torch.stack([_squeeze(read_image(path), self.size) for path in sample.stack])
        return item


def read_image(path: str | Path) -> Tensor:
    """uint8 ``(3, H, W)``."""
    return torch.from_numpy(np.array(open_rgb(path))).permute(2, 0, 1)


def read_mask(sample: Sample, mask_format: MaskFormat) -> Tensor:
    """Class indices, uint8 ``(1, H, W)``."""
    assert sample.mask is not None
    return torch.from_numpy(open_mask(sample.mask, sample.image, mask_format).copy()).unsqueeze(0)


def _squeeze(x: Tensor, size: int, nearest: bool = False) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode, functional

    mode = InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR
    return functional.resize(x, [size, size], interpolation=mode, antialias=True)


def normalize(images: Tensor, cfg: dict[str, Sequence[float]]) -> Tensor:
    """Images in [0, 1], ``(..., 3, H, W)``, to the model's input."""
    mean, std = (images.new_tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


def targets_of(samples: Sequence[Sample]) -> Tensor:
    """Class indices ``(N,)``; where several classes may hold, 0 and 1 ``(N, classes)``, float32."""
    if samples[0].labels:
        return torch.tensor([sample.labels for sample in samples], dtype=torch.float32)
    return torch.tensor([sample.label for sample in samples])


def class_counts(samples: Sequence[Sample], num_classes: int) -> Tensor:
    """Images of each class."""
    return torch.tensor([index for s in samples for index in s.classes], dtype=torch.long).bincount(
        minlength=num_classes
    )


def class_weights(counts: Tensor) -> Tensor:
    """Weights inverse to the classes' frequencies, of mean 1 over the images of exclusive classes."""
    counts = counts.float().clamp(min=1)
    return counts.sum() / (len(counts) * counts)


def sampling_weights(samples: Sequence[Sample], num_classes: int) -> Tensor:
    """How often to draw each image, so that classes are equally frequent.

    Where several classes may hold, the mean over them of the weight of what the image has, 1 or 0.
    """
    targets, counts = targets_of(samples), class_counts(samples, num_classes)
    if not samples[0].labels:
        return class_weights(counts)[targets]
    both = torch.stack([len(samples) - counts, counts]).float().clamp(min=1)
    return (len(samples) / (2 * both)).gather(0, targets.long()).mean(1)


class EpochSampler(Sampler[list[tuple[int, int]]]):
    """Batches of ``(index, seed)`` for one epoch and one of several processes.

    The order and each image's seed follow from seed and epoch alone. Consecutive batches go to the processes in turn,
    so that n processes see in one step what one process sees in n accumulated batches.

    Args:
        length: number of images.
        batch_size: of one process.
        seed: of everything random.
        weights: how often to draw each image, relative to the others; None for every image once.
        process, processes: number of this process, and of all.
        accumulate: batches in one step of the optimizer.
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
        # Whole optimizer steps only, the same number in each process; a set smaller than one step makes one step.
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
            times = -(-wanted // self.length)
            order = torch.cat([torch.randperm(self.length, generator=generator) for _ in range(times)])[:wanted]
        seeds = torch.randint(2**62, (wanted,), generator=generator)
        pairs = list(zip(order.tolist(), seeds.tolist()))
        batches = [pairs[start : start + self.batch_size] for start in range(0, wanted, self.batch_size)]
        yield from batches[self.process :: self.processes]


def make_loader(images: Images, batches: EpochSampler | int, workers: int = 0) -> Iterator[Batch] | DataLoader[Batch]:
    """Batches of a sampler; or all images in order, so many at a time, nothing random."""
    keys: EpochSampler | list[list[tuple[int, int]]]
    if isinstance(batches, int):
        keys = [[(index, 0) for index in part.tolist()] for part in torch.arange(len(images)).split(batches)]
    else:
        keys = batches
    if images.kept is not None:
        return (images.from_memory(part) for part in keys)
    return DataLoader(images, batch_sampler=keys, num_workers=workers)
