"""Measure the library side by side with its published form, with its backbones, and with other libraries.

The published form is the same model with the same weights, written down as the formulas are, see
``benchmarks/published.py``. Both sides of a row take turns; a row is the median over the rounds of the ratio of one
round, with its quartiles: "a over b" is the time of a divided by that of b. Two forms of one computation are held
against each other first. Nothing else may run on the machine meanwhile. Everything together takes about half an hour on
two cores.

    python examples/benchmark.py --out runs/benchmark

It needs torch, timm and matplotlib; rows of other libraries are left out where they are not installed.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.blocks import block_rows
from benchmarks.classification import SIZE, inference_rows, training_rows
from benchmarks.deployed import deployed_rows
from benchmarks.loading import loading_rows
from benchmarks.profiling import profiles
from benchmarks.report import HEADER, draw_scaling, machine, markdown, shares_table, write_json
from benchmarks.scaling import scaling
from benchmarks.segmentation import segmentation_rows
from benchmarks.timing import Row

GROUPS: dict[str, Callable[[int], Iterator[Row]]] = {
    "blocks": block_rows,
    "inference": inference_rows,
    "deployed": deployed_rows,
    "training": training_rows,
    "segmentation": segmentation_rows,
    "loading": loading_rows,
}

ALL = [*GROUPS, "scaling", "profile"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder for benchmark.json and, of the group scaling, scaling.png"
    )
    parser.add_argument("--groups", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--rounds", type=int, default=9, help="at least 2; default: 9")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; default: its own choice")
    args = parser.parse_args()
    if args.rounds < 2:
        parser.error("--rounds must be at least 2")
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    args.out.mkdir(parents=True, exist_ok=True)
    print(", ".join(f"{key} {value}" for key, value in machine().items() if value), end="\n\n")
    print(HEADER)
    rows: list[Row] = []
    times: Any = None
    shares: Any = None
    for group in args.groups:
        if group == "scaling":
            times = scaling(args.rounds)
            draw_scaling(args.out / "scaling.png", times, SIZE)
        elif group == "profile":
            shares = profiles()
        else:
            for row in GROUPS[group](args.rounds):
                rows.append(row)
                print(markdown(row), flush=True)
        # After every group, because a whole run takes long.
        write_json(args.out / "benchmark.json", rows, times, shares)
    if shares:
        print(shares_table(shares))


if __name__ == "__main__":
    main()
