"""Does the fusion help? Train MFSF2-NET and what is left of it without its parts, on the same images and steps.

    python examples/research/claim.py --folder HAM10000 --cnn_weights resnet18.safetensors

Every network is trained from random weights (``scratch``) and, where it has a CNN branch, from trained weights of that
branch (``cnn_start``), once for each seed. A training that ends leaves its numbers, and the logits of the images that
were held out, in ``--results``, and is not repeated; one that was killed goes on from its last epoch. The command may
be started several times at once: each takes the trainings that no other has begun. ``docs/figures/claim_tables.py``
makes the tables.
"""

import itertools
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

# The modules beside train.py, before installed packages of the same names.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import yaml
from augment import augment_batch
from cli import as_dict, run_function
from data import Images, make_loader, normalize, targets_of
from datasets import DataError, Dataset, Sample, TrainData, load_data
from files import OutputFolder, to_json
from inside import BRANCHES, gradient_shares, look_inside
from losses import Loss
from metrics import summary
from model_setup import Model, Optim, build_optimizer
from run_folder import check_same, load_state
from safetensors.torch import save
from torch import Tensor
from train import Config, Run, prepare, prepare_batch, resume, save_state, train_one_epoch
from train_from_cnn import scale_cnn_rate
from variants import VARIANTS, Variant, build_variant

Start = Literal["scratch", "cnn_start"]
CNN_LR_SCALE = 0.2
"""Factor of the learning rate of a CNN branch that starts trained."""
GRADIENT_BATCHES = 8
SPLIT = Path(__file__).resolve().parents[1] / "splits" / "ham10000.json"
RESULTS = Path(__file__).resolve().parent / "claim_results"


def claim(
    folder: str,
    cnn_weights: str,
    out: str = "runs/claim",
    results: str = str(RESULTS),
    split_file: str = str(SPLIT),
    seeds: tuple[int, ...] = (0, 1, 2),
    epochs: int = 3,
    input_size: int = 96,
    batch_size: int = 32,
    precision: Literal["no", "bf16"] = "no",
    threads: int = 1,
    device: Literal["auto", "cpu"] = "auto",
) -> None:
    """Train all networks on the classes of HAM10000. Research only.

    Args:
        folder: of HAM10000.
        cnn_weights: safetensors file of the CNN branch, with timm's keys; it may be partial.
        out: folder for what trainings go on from.
        results: folder for the numbers and logits; all that it holds must be of the same settings.
        split_file: which images are trained on; the others are held out.
        seeds: of the first weights and the order of the images; a training each.
        epochs: how often all images are drawn.
        input_size: height and width of the input.
        batch_size: images in a step.
        precision: of the forward and backward pass.
        threads: threads of this process.
        device: ``auto`` takes an accelerator where there is one.
    """
    if not Path(cnn_weights).expanduser().is_file():
        raise DataError(f"cnn_weights={cnn_weights}: no such file")
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        same = Config(
            data=TrainData("ham10000", folder, split_file=split_file, memory="cpu", check=False),
            task="cls",
            out=str(Path(out).expanduser()),
            model=Model(pretrained=False),
            optim=Optim(lr=1e-3, epochs=epochs, warmup_epochs=0.3, batch_size=batch_size, precision=precision),
            loss=Loss(balance="logits"),
            input_size=input_size,
            device=device,
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    place = OutputFolder(Path(results).expanduser())
    check_results(place.folder, same)
    for seed, start, variant in plan(seeds):
        name = f"{start}-{variant}-{seed}"
        config = replace(same, out=f"{same.out}/{name}", seed=seed)
        with alone(Path(config.out)) as free:
            if free and not (place.folder / f"{name}.json").exists():
                weights = str(Path(cnn_weights).expanduser()) if start == "cnn_start" else None
                facts, tensors = train_network(config, variant, weights)
                place.write(f"{name}.safetensors", save(tensors))
                place.write(f"{name}.json", to_json({"variant": variant, "start": start, "seed": seed, **facts}))
                # Some 100 to 200 MB, of no use once the training is done; what a kill left of it, too.
                for path in Path(config.out).glob("*last.pt"):
                    path.unlink()


def check_results(folder: Path, config: Config) -> None:
    """Check that what a folder holds is of trainings with these settings: one table shows all of them.

    Raises:
        DataError: names a training and how it differs.
    """
    optim = config.optim
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text(encoding="utf-8"))
        wanted = {
            "epochs": optim.epochs,
            "input_size": config.input_size,
            "precision": optim.precision,
            "steps": facts["images"]["train"] // optim.batch_size * optim.epochs,
        }
        for key, value in wanted.items():
            if facts[key] != value:
                raise DataError(
                    f"results={folder}: {path.name} is of a training with {key} {facts[key]}, and here it is {value}; "
                    "give another --results"
                )


def plan(seeds: Sequence[int]) -> Iterator[tuple[int, Start, Variant]]:
    """All trainings, those of one seed first; the transformer branch has no trained weights to start from."""
    starts: tuple[Start, ...] = ("scratch", "cnn_start")
    for seed in seeds:
        for start in starts:
            for variant in VARIANTS:
                if start == "scratch" or variant != "transformer":
                    yield seed, start, variant


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether no other process works on this folder; none will, meanwhile."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def train_network(
    config: Config, variant: Variant, cnn_weights: str | None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Train to the end, or go on; returns what is known of the training, and what is said of the held-out images.

    The last epoch counts: nothing is chosen on the held-out images, those of the validation and of the test lesions.
    """

    def make_model(config: Config, dataset: Dataset) -> Any:
        return build_variant(variant, config.seed, len(dataset.classes), cnn_weights)

    def make_optimizer(model: Any, config: Config) -> torch.optim.AdamW:
        optimizer = build_optimizer(model, config)
        return optimizer if cnn_weights is None else scale_cnn_rate(optimizer, model, CNN_LR_SCALE)

    config, dataset, splits, _ = load_data(config)
    run = prepare(config, dataset, splits, OutputFolder(config.out), make_model, make_optimizer)
    train_to_the_end(run)
    facts, tensors = measure(run, splits["test"])
    facts["images"] = {name: len(samples) for name, samples in splits.items()}
    if all(hasattr(run.model.encoder, branch) for branch in BRANCHES):
        facts |= inspect(run, make_model(config, dataset))
    return facts, tensors


def train_to_the_end(run: Run) -> None:
    """Train, or go on from the last epoch that is in the run's folder."""
    last = run.out.folder / "last.pt"
    if last.is_file():
        check_same(run.out, run.config)
        resume(run, load_state(last))
    else:
        run.out.write("config.yaml", yaml.safe_dump(as_dict(run.config), sort_keys=False))
    for epoch in range(len(run.history), run.config.optim.epochs):
        began = time.monotonic()
        loss = train_one_epoch(run, epoch)
        run.history.append({"epoch": epoch + 1, "loss": loss, "minutes": (time.monotonic() - began) / 60})
        print(f"{run.config.out}: {run.history[-1]}", flush=True)
        save_state(run)


def measure(run: Run, test: Sequence[Sample]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is known of a training that has ended, with its metrics; logits, classes and lesions of the images.

    The images are those of the validation split, which are in memory already, and the given ones.
    """
    config, model = run.config, run.model.eval()
    parts = [run.val_images, Images(test, config.input_size)]
    with torch.inference_mode():
        logits = torch.cat([model(x).float().cpu() for images in parts for x in batches_of(run, images)])
    samples = [sample for images in parts for sample in images.samples]
    labels, lesions = targets_of(samples), sorted({sample.group for sample in samples})
    tensors = {
        "logits": logits.half(),
        "labels": labels.to(torch.uint8),
        "lesions": torch.tensor([lesions.index(sample.group) for sample in samples], dtype=torch.int16),
    }
    facts = {
        "epochs": config.optim.epochs,
        "steps": config.optim.epochs * run.sampler.steps,
        "input_size": config.input_size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "loss": [entry["loss"] for entry in run.history],
        "minutes": round(sum(entry["minutes"] for entry in run.history), 2),
        "device": str(run.accelerator.device),
        "precision": config.optim.precision,
    }
    return facts | summary(logits.softmax(1), labels), tensors


def inspect(run: Run, fresh: Any) -> dict[str, Any]:
    """What the parts of a network do, on the validation images; and its gradients, before the training and after.

    Args:
        run: of the trained network.
        fresh: the network before the training.
    """
    batches = list(batches_of(run, run.val_images))
    found = look_inside(run.model.eval(), batches, targets_of(run.val_images.samples))
    first = itertools.islice(make_loader(run.train_images, run.sampler), GRADIENT_BATCHES)
    prepared = [prepare_batch(run, batch) for batch in first]
    after = gradient_shares(run.learner, prepared)
    run.model.load_state_dict(fresh.state_dict())
    return found | {"gradients": {"before": gradient_shares(run.learner, prepared), "after": after}}


def batches_of(run: Run, images: Images) -> Iterator[Tensor]:
    """Normalized images, as they are."""
    for batch in make_loader(images, run.config.optim.batch_size):
        plain = augment_batch(batch, (), None, run.config.input_size)["image"]
        yield normalize(plain, run.model.pretrained_cfg).to(run.accelerator.device)


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    run_function(claim, argv)


if __name__ == "__main__":
    main()
