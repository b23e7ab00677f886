"""The tables in docs/claim.md, from what ``examples/research/claim.py`` has left of each training.

    python docs/figures/claim_tables.py

``--rounds 15`` also times the networks, in processor time of one thread, in turns. ``--results`` takes the trainings
from another folder than the one in the repository.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from choose import gmacs, parameters, processor_times
from pages import DOCS, markdown, put
from safetensors.torch import load_file
from torch import Tensor

# The examples' modules, found once pages.py is imported.
from metrics import bootstrap, summary  # isort: skip
from variants import VARIANTS, Variant, build_variant  # isort: skip

__all__ = [
    "COSTS",
    "PAGE",
    "STARTS",
    "TABLES",
    "Training",
    "differences_table",
    "load_trainings",
    "networks",
    "package_tables",
    "size_of",
]

PAGE, COSTS = "claim.md", "costs"
RESULTS = DOCS.parent / "examples" / "research" / "claim_results"
STARTS = ("scratch", "cnn_start")
METRICS = {"balanced_accuracy": "balanced accuracy", "auc": "macro AUC", "macro_f1": "macro F1"}
SETTINGS = ("epochs", "steps", "input_size", "precision", "images")
COMPARISONS: tuple[tuple[Variant, Variant], ...] = (
    ("mfsf2", "cnn"),
    ("mfsf2", "transformer"),
    ("mfsf2", "concat"),
    ("mfsf2", "fusion"),
    ("concat", "cnn"),
)
PACKAGE = "mfsf2_tiny_cls.ham10000"
PARTS = ("nothing", "cnn", "transformer", "r4", "p4", "P")
STATISTICS = ("mean", "between_channels", "between_images")
GATES = {"mffe_cnn": "MFFE of the CNN", "mffe_transformer": "MFFE of the transformer", "gate": "weight of the CNN"}
SIZE = 96
BATCH = 8


@dataclass
class Training:
    """What is left of a training.

    Attributes:
        facts: settings, metrics, and what the parts of the network do.
        logits: of the held-out images, ``(N, classes)``.
        labels, lesions: of these images, ``(N,)``.
    """

    facts: dict[str, Any]
    logits: Tensor
    labels: Tensor
    lesions: Tensor

    def metrics(self, at: Tensor | slice = slice(None)) -> dict[str, float]:
        """The metrics of the table, on the images at some positions."""
        found = summary(self.logits[at].softmax(1), self.labels[at])
        return {name: found[name] or 0.0 for name in METRICS}


def load_trainings(folder: Path = RESULTS) -> list[Training]:
    """All trainings, in the order of their seeds.

    Raises:
        ValueError: they differ in their settings or images, or there are none.
    """
    found = []
    for path in folder.glob("*.json"):
        facts, tensors = json.loads(path.read_text(encoding="utf-8")), load_file(path.with_suffix(".safetensors"))
        labels, lesions = tensors["labels"].long(), tensors["lesions"].long()
        found.append(Training(facts, tensors["logits"].float(), labels, lesions))
    if not found:
        raise ValueError(f"{folder} holds no results of claim.py")
    for training in found:
        settings = [{key: one.facts.get(key) for key in SETTINGS} for one in (training, found[0])]
        if settings[0] != settings[1] or not torch.equal(training.labels, found[0].labels):
            raise ValueError(f"{folder} holds trainings with different settings or images, which one table cannot show")
    return sorted(found, key=lambda training: training.facts["seed"])


def start_of(start: str, variant: str) -> str:
    """What a network of this table starts from; the transformer branch has no start but random weights."""
    return "scratch" if variant == "transformer" else start


def of(trainings: Sequence[Training], start: str, variant: str) -> list[Training]:
    """The trainings of a network."""
    wanted = (start_of(start, variant), variant)
    return [training for training in trainings if (training.facts["start"], training.facts["variant"]) == wanted]


def name_in(start: str, variant: Variant) -> str:
    """The name of a network in a table of this start."""
    unfair = "" if start_of(start, variant) == start else " (from random weights)"
    return f"{VARIANTS[variant]}{unfair}"


def results_table(trainings: Sequence[Training], start: str) -> str:
    """Mean and standard deviation over the trainings of each network."""
    rows = []
    for variant in VARIANTS:
        found = of(trainings, start, variant)
        measured = [training.metrics() for training in found]
        cells = [spread([values[metric] for values in measured]) for metric in METRICS]
        losses = [training.facts["loss"][-1] for training in found]
        rows.append([name_in(start, variant), *cells, spread(losses), len(found)])
    return markdown(["network", *METRICS.values(), "loss of the last epoch", "trainings"], rows)


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation; the value alone if there is one, a dash if there is none."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "—"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def trainings_table(trainings: Sequence[Training], start: str) -> str:
    """The metrics of each training by its seed: networks of one seed saw the same images in the same order."""
    seeds = sorted({training.facts["seed"] for training in trainings})
    rows = []
    for variant in VARIANTS:
        found = {training.facts["seed"]: training.metrics() for training in of(trainings, start, variant)}
        cells = [
            ", ".join(f"{value:.3f}" for value in found[seed].values()) if seed in found else "—" for seed in seeds
        ]
        rows.append([name_in(start, variant), *cells])
    return markdown(["network", *(f"seed {seed}" for seed in seeds)], rows)


def differences_table(trainings: Sequence[Training], start: str, n_bootstrap: int = 1000) -> str:
    """One network minus another, mean over the seeds that both have, with intervals over the lesions."""
    compared = {
        (one, other): [
            (a, b)
            for a in of(trainings, start, one)
            for b in of(trainings, start, other)
            if a.facts["seed"] == b.facts["seed"]
        ]
        for one, other in COMPARISONS
    }
    compared = {variants: pairs for variants, pairs in compared.items() if pairs}
    if not compared:
        return "No pair of trainings yet."

    def measure(at: Tensor | slice) -> dict[str, list[float]]:
        # Each training once, not once a pair.
        used = {id(training): training for pairs in compared.values() for pair in pairs for training in pair}
        values = {key: training.metrics(at) for key, training in used.items()}
        return {
            f"{variants} {metric}": [values[id(a)][metric] - values[id(b)][metric] for a, b in pairs]
            for variants, pairs in compared.items()
            for metric in METRICS
        }

    def means(at: Tensor | slice) -> dict[str, float]:
        return {key: statistics.mean(found) for key, found in measure(at).items()}

    some = next(iter(compared.values()))[0][0]
    points = measure(slice(None))
    intervals = bootstrap(means, [str(lesion) for lesion in some.lesions.tolist()], n_bootstrap)
    rows = []
    for (one, other), pairs in compared.items():
        keys = [f"{(one, other)} {metric}" for metric in METRICS]
        cells = [interval(points[key], *intervals[key]) for key in keys]
        rows.append([VARIANTS[one], name_in(start, other), *cells, len(pairs)])
    return markdown(["network", "minus", *METRICS.values(), "pairs"], rows)


def interval(values: Sequence[float], low: float, high: float) -> str:
    """Mean of the pairs' differences with its interval; bold where that leaves out 0 and all pairs agree in sign."""
    text = f"{statistics.mean(values):+.3f} ({low:+.3f} to {high:+.3f})"
    clear = (low > 0 and min(values) > 0) or (high < 0 and max(values) < 0)
    return f"**{text}**" if clear else text


def without_table(trainings: Sequence[Training], start: str) -> str:
    """Macro AUC on the validation images when something is replaced by its mean over the images."""
    found = {
        VARIANTS[variant]: [training.facts["without"] for training in of(trainings, start, variant)]
        for variant in ("concat", "fusion", "mfsf2")
    }
    return losses_table(found)


def losses_table(found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The same, of any networks by name."""
    rows = [
        [name, *(spread([one[part]["auc"] for one in each if part in one]) for part in PARTS)]
        for name, each in found.items()
    ]
    return markdown(["network", "all of it", *(f"without {part}" for part in PARTS[1:])], rows)


def gates_table(trainings: Sequence[Training], start: str) -> str:
    """Means and standard deviations of the gates of the whole network, over its trainings."""
    return statistics_table([training.facts["gates"] for training in of(trainings, start, "mfsf2")])


def statistics_table(found: Sequence[dict[str, Any]]) -> str:
    """The same, of any networks."""
    rows = []
    for name in found[0] if found else ():
        stage, kind = name.split(".")
        means = [f"{statistics.mean(gates[name][value] for gates in found):.3f}" for value in STATISTICS]
        rows.append([int(stage) + 1, GATES[kind], *means])
    return markdown(["stage", "gate", "mean", "between channels or positions", "between images"], rows)


def package_tables() -> dict[str, str]:
    """Of the weights in the package."""
    path = RESULTS / PACKAGE / "inside.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    return {
        "package without": losses_table({f"`{PACKAGE}`": [found["without"]]}),
        "package gates": statistics_table([found["gates"]]),
    }


def gradients_table(trainings: Sequence[Training], start: str) -> str:
    """Norm of each part's gradient over the norm of its weights, before and after the training."""
    parts = ("cnn", "transformer", "fusion", "head")
    rows = []
    for variant in ("concat", "fusion", "mfsf2"):
        found = [training.facts["gradients"] for training in of(trainings, start, variant)]
        rows.append([VARIANTS[variant], *(change(found, part) for part in parts)])
    return markdown(["network", "CNN", "transformer", "fusion", "head"], rows)


def change(found: Sequence[dict[str, Any]], part: str) -> str:
    """Mean before → mean after; a dash for what a network does not have."""
    if not any(part in one["before"] for one in found):
        return "—"
    return " → ".join(f"{statistics.mean(one[when][part] for one in found):.4f}" for when in ("before", "after"))


def networks() -> dict[Variant, Any]:
    """All networks, untrained, in evaluation mode."""
    return {variant: build_variant(variant, 0, 7).eval() for variant in VARIANTS}


def size_of(network: Any) -> tuple[str, str]:
    """Millions of parameters, billions of multiplications of one image; the network moves to the meta device."""
    return parameters(network), gmacs(network.to("meta"), SIZE)


@torch.no_grad()
def costs_table(rounds: int) -> str:
    """Parameters, multiplications and time of each network."""
    built = networks()
    x = torch.randn(BATCH, 3, SIZE, SIZE)
    times = processor_times({variant: partial(network, x) for variant, network in built.items()}, rounds)
    rows = [
        [
            VARIANTS[variant],
            *size_of(network),
            f"{statistics.median(times[variant]) / BATCH:.1f}",
            f"{statistics.median(a / b for a, b in zip(times[variant], times['concat'])):.2f}",
        ]
        for variant, network in built.items()
    ]
    return markdown(["network", "parameters, M", "GMACs", "ms an image", "over concatenation"], rows)


TABLES = {
    "results": results_table,
    "trainings": trainings_table,
    "differences": differences_table,
    "without": without_table,
    "gates": gates_table,
    "gradients": gradients_table,
}


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write the tables in docs/claim.md.")
    parser.add_argument("--rounds", type=int, default=0, help="how often each network is timed; 0 for no times")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder that claim.py wrote its results to")
    args = parser.parse_args(argv)
    trainings = load_trainings(args.results)
    for name, make in TABLES.items():
        for start in STARTS:
            put(PAGE, f"{name} {start}", make(trainings, start))
    for name, table in package_tables().items():
        put(PAGE, name, table)
    if args.rounds:
        torch.set_num_threads(1)
        put(PAGE, COSTS, costs_table(args.rounds))


if __name__ == "__main__":
    main()
