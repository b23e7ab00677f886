"""Train a model on your own images or on a published data set.

    python examples/train.py --data.name folder --data.folder IMAGES --out runs/own
    python examples/train.py --config examples/configs/ham10000_cls.yaml --data.folder HAM10000 --out runs/ham10000
    accelerate launch examples/train.py ...

``--out`` receives the configuration, the split, the environment, a log, curves, ``last.pt`` to go on from
(``--resume true``) and ``best/``, the best model by the validation split, which
``mfsf2.create_model("local-dir:OUT/best")`` loads. The test split is not touched: ``evaluate.py`` does that.

The file reads from top to bottom: configuration, what a run consists of, one epoch, validation, saving and resuming,
the whole run.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from augment import Augment, augment_batch, stored_size
from cli import check_ranges, exit_on_data_error, parse_config
from data import EpochSampler, Images, class_counts, make_loader, normalize, sampling_weights
from datasets import DataError, Dataset, Splits, TrainData, hashes_of, load_data
from datasets.masks import IGNORE
from files import OutputFolder, to_json
from losses import Loss, ModelWithLoss
from metrics import dice_and_iou, mean_dice, summary
from mixing import mix_batch
from model_setup import Model, Optim, build_model, build_optimizer, lr_factor
from models import mask_indices, outputs_of
from run_folder import FORMAT, begin, check_run, check_same, load_state, log, save_best
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

RANGES = {
    "[29, 4096]": "input_size",
    "[2, inf)": "optim.batch_size",
    "[1, inf)": "optim.epochs optim.accumulate",
    "[0, inf)": "seed data.workers data.folds data.fold augment.mixup augment.cutmix optim.weight_decay "
    "optim.warmup_epochs optim.patience loss.mask_weight loss.deep",
    "(0, inf)": "augment.scale optim.lr optim.clip",
    "(0, 1]": "optim.layer_decay",
    "[0, 1)": "augment.stretch augment.shift augment.color optim.ema_decay loss.smoothing",
}
METRICS = ("balanced_accuracy", "auc", "dice")
"""What is measured on the validation split, where it applies; their mean chooses the best model."""


@dataclass
class Config:
    """A training.

    Attributes:
        data, model, augment, optim, loss: see there.
        task: what is learned; None for all that the data have: classes, masks or both, with ``rcm_`` of two modalities;
            of HAM10000, whose masks are a download of their own, the classes.
        out: folder of the run.
        input_size: height and width of the model's input.
        seed: of the split, the weights and the order.
        device: ``auto`` takes an accelerator where there is one.
        resume: go on with the run in ``out``.
        tensorboard: write event files too.
    """

    data: TrainData
    task: Literal["cls", "seg", "clsseg", "rcm_cls", "rcm_seg", "rcm_clsseg"] | None = None
    out: str = "runs/train"
    model: Model = field(default_factory=Model)
    augment: Augment = field(default_factory=Augment)
    optim: Optim = field(default_factory=Optim)
    loss: Loss = field(default_factory=Loss)
    input_size: int = 128
    seed: int = 0
    device: Literal["auto", "cpu"] = "auto"
    resume: bool = False
    tensorboard: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, RANGES)
        if self.augment.scale[0] > self.augment.scale[1]:
            raise ValueError(f"augment.scale={list(self.augment.scale)}: the smaller number comes first")
        if self.augment.mixes and self.has_stacks:
            raise ValueError(f"{self.augment.mixes} must be 0 for two modalities")
        self.out = str(Path(self.out).expanduser())
        for part, name in ((self.data, "split_file"), (self.model, "checkpoint")):
            if getattr(part, name) is not None:
                setattr(part, name, str(Path(getattr(part, name)).expanduser()))

    @property
    def has_classes(self) -> bool:
        return "cls" in (self.task or "")

    @property
    def has_masks(self) -> bool:
        return "seg" in (self.task or "")

    @property
    def has_stacks(self) -> bool:
        return "rcm" in (self.task or "")


@dataclass
class Run:
    """What the functions below share."""

    config: Config
    dataset: Dataset
    splits: Splits
    out: OutputFolder
    accelerator: Any
    model: Any
    learner: Any
    optimizer: Any
    ema: Any
    sampler: EpochSampler
    train_images: Images
    val_images: Images
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)

    @cached_property
    def hashes(self) -> dict[str, set[str]]:
        """Hashes of each split's images: of their files, which are read once in a run."""
        return {
            split: {code for sample in samples for code in hashes_of(self.dataset, sample)}
            for split, samples in self.splits.items()
            if split != "test"
        }

    @property
    def averaged(self) -> Any:
        """The model that is validated and saved: the running average of the weights, where there is one."""
        return self.model if self.ema is None else self.ema.module


def prepare(
    config: Config, dataset: Dataset, splits: Splits, out: OutputFolder, make_model: Any, make_optimizer: Any
) -> Run:
    """The model, its loss and optimizer, and the images."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs
    from timm.utils import ModelEmaV3

    # Of two modalities, a batch may have dropped one altogether: its stem then has no gradient.
    several = DistributedDataParallelKwargs(find_unused_parameters=config.has_stacks)
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision=config.optim.precision,
        gradient_accumulation_steps=config.optim.accumulate,
        kwargs_handlers=[several],
    )
    torch.manual_seed(config.seed)
    model = make_model(config, dataset).to(accelerator.device, memory_format=torch.channels_last)
    samples, classes = splits["train"], len(dataset.classes)
    counts = class_counts(samples, classes) if config.has_classes else None
    balanced = config.has_classes and config.loss.balance == "sampling"
    sampler = EpochSampler(
        len(samples),
        config.optim.batch_size,
        config.seed,
        sampling_weights(samples, classes) if balanced else None,
        accelerator.process_index,
        accelerator.num_processes,
        config.optim.accumulate,
    )
    memory = {"disk": None, "cpu": torch.device("cpu"), "device": accelerator.device}[config.data.memory]
    wanted = (dataset.mask_format if config.has_masks else None, config.has_stacks, memory)
    train_images = Images(samples, stored_size(config.input_size, config.augment), *wanted)
    val_images = Images(splits["val"], config.input_size, *wanted)
    with_loss = ModelWithLoss(model, config.loss, counts, len(samples) if dataset.multi_label else None)
    learner, optimizer = accelerator.prepare(with_loss, make_optimizer(model, config))
    decay = config.optim.ema_decay
    # With timm's warm-up short runs are not averages of the random start.
    ema = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
    return Run(
        config, dataset, splits, out, accelerator, model, learner, optimizer, ema, sampler, train_images, val_images
    )


def train_one_epoch(run: Run, epoch: int) -> float:
    """Train for an epoch; returns the mean loss.

    Whatever is random follows from the seed, the epoch and the process alone, so that a run that goes on from the end
    of an epoch does what an unbroken one does.
    """
    config, accelerator, sampler = run.config, run.accelerator, run.sampler
    sampler.epoch = epoch
    torch.manual_seed((config.seed * 100_003 + epoch) * 1_009 + accelerator.process_index)
    run.learner.train()
    total = torch.zeros((), device=accelerator.device)
    batches: Any = make_loader(run.train_images, sampler, config.data.workers)
    quiet = None if accelerator.is_main_process else True  # None: tqdm draws no bar into files
    bar = tqdm(batches, total=len(sampler), desc=f"epoch {epoch + 1}", leave=False, disable=quiet)
    for number, batch in enumerate(bar):
        step = epoch * sampler.steps + number // config.optim.accumulate
        for group in run.optimizer.param_groups:
            group["lr"] = config.optim.lr * group["scale"] * lr_factor(step / sampler.steps, config)
        with accelerator.accumulate(run.learner):
            loss = run.learner(*prepare_batch(run, batch))
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(run.learner.parameters(), config.optim.clip)
            run.optimizer.step()
            run.optimizer.zero_grad()
            if accelerator.sync_gradients and run.ema is not None:
                run.ema.update(run.model, step=step)
        total += loss.detach()
    mean: Tensor = accelerator.reduce(total / len(sampler), "mean")
    if not mean.isfinite():
        raise DataError(f"the loss of epoch {epoch + 1} is {mean.item()}: try a lower optim.lr, or a longer warm-up")
    return mean.item()


def prepare_batch(run: Run, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
    """Batch on the device, augmented, mixed and normalized."""
    config = run.config
    seeds = batch["seed"].tolist()
    batch = {key: value.to(run.accelerator.device, non_blocking=True) for key, value in batch.items()}
    batch = augment_batch(batch, seeds, config.augment, config.input_size)
    targets = batch.get("label") if config.has_classes else None
    batch, targets = mix_batch(batch, targets, config.augment, len(run.dataset.classes))
    for key in ("image", "stack"):
        if key in batch:
            batch[key] = normalize(batch[key], run.model.pretrained_cfg)
    batch["image"] = batch["image"].contiguous(memory_format=torch.channels_last)
    return batch, targets


@torch.inference_mode()
def validate(run: Run) -> dict[str, float]:
    """Balanced accuracy (macro AUC where several classes may hold), and mean Dice on the input's grid."""
    model, device = run.averaged, run.accelerator.device
    training = model.training
    model.eval()
    logits_seen, labels, dices = [], [], []
    for batch in make_loader(run.val_images, run.config.optim.batch_size, run.config.data.workers):
        batch = augment_batch({key: value.to(device) for key, value in batch.items()}, (), None, run.config.input_size)
        inputs = [normalize(batch[name], model.pretrained_cfg) for name in ("image", "stack") if name in batch]
        logits, masks = outputs_of(model, *inputs)
        if logits is not None:
            logits_seen.append(logits.float().cpu())
            labels.append(batch["label"].cpu())
        if masks is not None:
            masks = F.interpolate(masks, size=batch["mask"].shape[2:], mode="bilinear")
            truth = batch["mask"][:, 0].long()
            dices.append(dice_and_iou(mask_indices(masks), truth, masks.shape[1], IGNORE)[0].cpu())
    model.train(training)
    metrics: dict[str, float] = {}
    if logits_seen:
        logits, targets = torch.cat(logits_seen), torch.cat(labels)
        probabilities = logits.sigmoid() if run.dataset.multi_label else logits.softmax(1)
        name = "auc" if run.dataset.multi_label else "balanced_accuracy"
        metrics[name] = summary(probabilities, targets)[name] or 0.0
    if dices:
        # Of several foregrounds, none may be in any mask, nor found.
        metrics["dice"] = torch.tensor(mean_dice(torch.cat(dices))).nan_to_num().item()
    return metrics


def score_of(metrics: dict[str, float]) -> float:
    """The mean of what is measured: what chooses the best model of a run."""
    values = [metrics[name] for name in METRICS if name in metrics]
    return sum(values) / len(values)


def save(run: Run, entry: dict[str, float]) -> None:
    """Log an epoch; write the best model, the state to go on from, the numbers and the curves."""
    from curves import draw_curves

    run.history.append(entry)
    if not run.best or score_of(entry) > score_of(run.best):
        run.best = dict(entry)
        save_best(run)
    save_state(run)
    log(run, "  ".join(f"{name} {value:.4g}" for name, value in entry.items()))
    run.out.write("history.json", to_json(run.history))
    run.out.write("curves.png", lambda path: draw_curves(run.history, METRICS, path))


def save_state(run: Run) -> None:
    """Write what :func:`resume` goes on from."""
    state = {
        "format": FORMAT,
        "model": run.model.state_dict(),
        "model_ema": None if run.ema is None else run.ema.module.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "history": run.history,
        "best": run.best,
    }
    run.out.write("last.pt", lambda path: torch.save(state, path), sync=True)


def resume(run: Run, state: dict[str, Any]) -> None:
    """Go on from what :func:`save_state` wrote."""
    run.model.load_state_dict(state["model"])
    run.optimizer.load_state_dict(state["optimizer"])
    if run.ema is not None:
        run.ema.module.load_state_dict(state["model_ema"])
    run.history, run.best = state["history"], state["best"]
    log(run, f"resumed after epoch {len(run.history)}")


def train(
    config: Config,
    make_model: Callable[[Config, Dataset], Any] = build_model,
    make_optimizer: Callable[[Any, Config], Any] = build_optimizer,
) -> dict[str, Any]:
    """Train to the end; returns what ``results.json`` holds.

    Raises:
        DataError: data, weights or a folder that cannot be used.
    """
    out = check_run(config)
    config, dataset, splits, notes = load_data(config)
    state = None
    if config.resume:
        check_same(out, config)
        state = load_state(out.folder / "last.pt")
    run = prepare(config, dataset, splits, out, make_model, make_optimizer)
    if state is None:
        begin(run, notes)
    else:
        resume(run, state)
    writer = make_writer(run)
    began = time.monotonic()
    for epoch in range(len(run.history), config.optim.epochs):
        entry = {"epoch": epoch + 1, "loss": train_one_epoch(run, epoch)}
        if run.accelerator.is_main_process:
            entry |= validate(run)
            save(run, entry)
            for name, value in entry.items() if writer else ():
                writer.add_scalar(name, value, epoch + 1)
        waited = epoch + 1 - run.best["epoch"] if run.best else 0
        stop = torch.tensor(float(0 < config.optim.patience <= waited), device=run.accelerator.device)
        # The main process alone knows the best epoch.
        if run.accelerator.reduce(stop, "sum").item():
            break
    log(run, f"{(time.monotonic() - began) / 60:.1f} minutes")
    images = {name: len(samples) for name, samples in splits.items()}
    name = run.model.pretrained_cfg["architecture"]
    results = {"best": run.best, "epochs": len(run.history), "images": images, "model": name}
    if run.accelerator.is_main_process:
        out.write("results.json", to_json(results))
    return results


def make_writer(run: Run) -> Any:
    """TensorBoard's writer, where it is wanted."""
    if not (run.config.tensorboard and run.accelerator.is_main_process):
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DataError("tensorboard=true needs tensorboard: pip install tensorboard") from error
    return SummaryWriter(run.out.folder / "tensorboard")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The command line."""
    config = parse_config(Config, argv, "Train a model. Research only.")
    # MONAI and accelerate warn of what is meant here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    with exit_on_data_error():
        return train(config)


if __name__ == "__main__":
    main()
