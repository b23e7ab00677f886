"""The training loop: one process or several, killed and resumed to the same result."""

import copy
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from readers import DataError, Dataset, Record, hash_id
from safetensors import SafetensorError
from timm.utils import ModelEmaV3
from torch import Tensor
from torchvision.transforms import v2
from tqdm import tqdm

import mfsf2

from .build import build_network, build_optimizer, lr_factor, normalize
from .checkpoint import load_checkpoint, save_checkpoint
from .config import Config
from .data import Batch, DiskSamples, EpochSampler, class_counts, make_loader
from .losses import Learner, class_weights
from .memory import MemorySamples
from .paths import PathDropout, balance_paths
from .run import RunFolder
from .validation import batches_of, score_of, validate

__all__ = ["Trainer"]


class Trainer:
    """A training from a configuration and a split.

    Whatever is random in an epoch follows from the seed, the epoch and the process alone, so that a run that goes on
    from the end of an epoch does what an unbroken one does.
    """

    def __init__(self, config: Config, dataset: Dataset, parts: dict[str, list[Record]]) -> None:
        self.config = config
        self.dataset = dataset
        self.parts = parts
        # Of two modalities, a batch may have dropped one altogether: its stem then has no gradient.
        several = DistributedDataParallelKwargs(find_unused_parameters=config.has_stack)
        self.accelerator = Accelerator(
            cpu=config.device == "cpu",
            mixed_precision=config.optim.precision,
            gradient_accumulation_steps=config.optim.accumulate,
            kwargs_handlers=[several],
        )
        self.folder = RunFolder(Path(config.out), self.accelerator.is_main_process, config.tensorboard)
        torch.manual_seed(config.seed)
        self.network = build_network(config, dataset).to(self.accelerator.device, memory_format=torch.channels_last)
        counts = class_counts(parts["train"], len(dataset.classes)) if config.has_classes else None
        self.sampler = self._make_sampler(counts)
        self.train_samples = self._make_samples(parts["train"], augmented=True)
        self.val_samples = self._make_samples(parts["val"], augmented=False)
        if config.model.withhold:
            self._use_all_paths()
        learner = Learner(self.network, config, counts)
        self.learner, self.optimizer = self.accelerator.prepare(learner, build_optimizer(self.network, config))
        decay = config.optim.ema_decay
        # With timm's warm-up short runs are not averages of the random start.
        self.ema = ModelEmaV3(self.network, decay=decay, use_warmup=True) if decay else None
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {}

    def _use_all_paths(self) -> None:
        """Make the head use the three maps that it is given."""
        if self.config.model.checkpoint is None:
            first = next(iter(batches_of(self.train_samples, min(64, len(self.train_samples)), 0)))
            batch, _ = self._prepare(first)
            balance_paths(self.network, batch["image"])
        self.network.head.register_forward_pre_hook(PathDropout(self.network, self.config.model.withhold))

    def _make_sampler(self, counts: Tensor | None) -> EpochSampler:
        weights = None
        if counts is not None and self.config.loss.balance == "sampling":
            weights = class_weights(counts)[torch.tensor([record.label for record in self.parts["train"]])]
        return EpochSampler(
            len(self.parts["train"]),
            self.config.optim.batch_size,
            self.config.seed,
            weights,
            self.accelerator.process_index,
            self.accelerator.num_processes,
            self.config.optim.accumulate,
        )

    def _make_samples(self, records: list[Record], augmented: bool) -> DiskSamples | MemorySamples:
        config = self.config
        augment = config.augment if augmented else None
        wanted = (config.input_size, config.has_masks, config.has_stack)
        if config.data.memory == "disk":
            return DiskSamples(records, *wanted, augment)
        device = self.accelerator.device if config.data.memory == "device" else torch.device("cpu")
        return MemorySamples(records, *wanted, augment, device)

    def run(self) -> dict[str, Any]:
        """Train to the end; returns what ``results.json`` holds."""
        start_epoch = self._resume() if self.config.resume else self._begin()
        began = time.monotonic()
        for epoch in range(start_epoch, self.config.optim.epochs):
            entry = {"epoch": epoch + 1, "loss": self._train_epoch(epoch)}
            if self.accelerator.is_main_process:
                entry |= validate(self.averaged, self.val_samples, self.config, self.accelerator.device)
                self._keep(entry)
            stop = torch.tensor(float(self._out_of_patience(entry["epoch"])), device=self.accelerator.device)
            if self.accelerator.reduce(stop, "sum").item():
                break
        self.folder.log(f"{(time.monotonic() - began) / 60:.1f} minutes")
        return self._finish()

    @property
    def averaged(self) -> Any:
        """The network that is validated and saved: the running average of the weights, where there is one."""
        return self.network if self.ema is None else self.ema.module

    def _begin(self) -> int:
        self.folder.begin(self.config, self.dataset, self.parts)
        return 0

    def _resume(self) -> int:
        state = load_checkpoint(self.folder.path / "last.pt")
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["model_ema"])
        self.history, self.best = state["history"], state["best"]
        self.folder.log(f"resumed after epoch {len(self.history)}")
        return len(self.history)

    def _train_epoch(self, epoch: int) -> float:
        config, accelerator = self.config, self.accelerator
        self.sampler.epoch = epoch
        torch.manual_seed((config.seed * 100_003 + epoch) * 1_009 + accelerator.process_index)
        self.learner.train()
        total = torch.zeros((), device=accelerator.device)
        name = f"epoch {epoch + 1}"
        bar = tqdm(self._batches(), total=len(self.sampler), desc=name, leave=False, disable=self._quiet)
        for number, batch in enumerate(bar):
            step = epoch * self.sampler.steps + number // config.optim.accumulate
            for group in self.optimizer.param_groups:
                group["lr"] = config.optim.lr * group["scale"] * lr_factor(step / self.sampler.steps, config)
            with accelerator.accumulate(self.learner):
                loss = self.learner(*self._prepare(batch))
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.learner.parameters(), config.optim.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
                if accelerator.sync_gradients and self.ema is not None:
                    self.ema.update(self.network, step=step)
            total += loss.detach()
        mean: Tensor = accelerator.reduce(total / len(self.sampler), "mean")
        if not mean.isfinite():
            raise DataError(
                f"the loss of epoch {epoch + 1} is {mean.item()}: try a lower optim.lr, or a longer warm-up"
            )
        return mean.item()

    @property
    def _quiet(self) -> bool | None:
        """No bar in other processes; None leaves it to tqdm, which draws none into files."""
        return None if self.accelerator.is_main_process else True

    def _batches(self) -> Any:
        if isinstance(self.train_samples, MemorySamples):
            return (self.train_samples.batch(keys) for keys in self.sampler)
        return make_loader(self.train_samples, self.sampler, self.config.data.workers)

    def _prepare(self, batch: Batch) -> tuple[Batch, Tensor | None]:
        """Batch on the device, normalised and, for classes, mixed."""
        batch = {key: value.to(self.accelerator.device, non_blocking=True) for key, value in batch.items()}
        targets = batch.get("label") if self.config.has_classes else None
        if targets is not None and self.config.augment.mixup:
            mix = v2.MixUp(alpha=self.config.augment.mixup, num_classes=len(self.dataset.classes))
            batch["image"], targets = mix(batch["image"], targets)
        for key in ("image", "stack"):
            if key in batch:
                batch[key] = normalize(batch[key], self.network.pretrained_cfg)
        batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
        return batch, targets

    def _keep(self, entry: dict[str, float]) -> None:
        """Log an epoch, keep the best network and the state to go on from."""
        self.history.append(entry)
        if not self.best or score_of(entry) > score_of(self.best):
            self.best = dict(entry)
            self._save_best()
        state = {
            "model": self.network.state_dict(),
            "model_ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best": self.best,
        }
        save_checkpoint(self.folder.path / "last.pt", state)
        self.folder.keep_history(self.history)

    def _save_best(self) -> None:
        network = copy.deepcopy(self.averaged).cpu()
        network.pretrained_cfg = dict(network.pretrained_cfg)
        for key, part in (("trained_on", "train"), ("chosen_on", "val")):
            here = {hash_id(record.id) for record in self.parts[part]}
            network.pretrained_cfg[key] = sorted(here.union(network.pretrained_cfg.get(key, ())))
        validation = {f"validation {name}": round(value, 4) for name, value in self.best.items() if name != "epoch"}
        network.pretrained_cfg["training"] = {
            "data": self.dataset.name,
            "epoch": int(self.best["epoch"]),
            "input size": self.config.input_size,
            **validation,
        }
        names = self.dataset.labels if self.config.has_classes else None
        try:
            mfsf2.save_pretrained(network, self.folder.path / "best", names)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{self.folder.path / 'best'} could not be written: {error}") from error

    def _out_of_patience(self, epoch: float) -> bool:
        patience = self.config.optim.patience
        return bool(patience and self.best and epoch - self.best["epoch"] >= patience)

    def _finish(self) -> dict[str, Any]:
        results = {
            "best": self.best,
            "epochs": len(self.history),
            "images": {part: len(records) for part, records in self.parts.items()},
            "network": self.config.network,
        }
        self.folder.finish(results)
        return results
