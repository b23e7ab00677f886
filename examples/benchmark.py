"""Measure the library side by side with its published form, with its backbones, and with other libraries.

The published form is the same model with the same weights, written down as the formulas are, see
``benchmarks/published.py``. Both sides of a row take turns; a row is the median over the rounds of the ratio of one
round, with its quartiles: "a over b" is the time of a divided by that of b. Two forms of one computation are held
against each other first. Nothing else may run on the machine meanwhile. Everything together takes about half an hour on
two cores.

    python examples/benchmark.py --out runs/benchmark

It needs torch, timm and matplotlib; rows of other libraries are left out where they are not installed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from cli import Parser, check_ranges, exit_on_data_error
from files import OutputFolder, to_json

if TYPE_CHECKING:
    from benchmarks.timing import Row

ROWS = ("blocks", "inference", "deployed", "training", "segmentation", "loading")
GROUPS = (*ROWS, "scaling", "profile")
FILES = ("benchmark.json", "scaling.png")


def make_parser() -> Parser:
    parser = Parser(description="Measure the library beside its published form, its backbones and other libraries.")
    parser.add_argument(
        "--out", type=str, required=True, help="folder for benchmark.json and, of the group scaling, scaling.png"
    )
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="what to measure")
    parser.add_argument("--rounds", type=int, default=9, help="how often each side of a row is timed, at least 2")
    parser.add_argument("--threads", type=int, default=0, help="threads of torch; 0 for its own choice")
    return parser


def benchmark(groups: Sequence[str], rounds: int, folder: OutputFolder) -> None:
    """Measure, print and write, group by group, because a whole run takes long."""
    from benchmarks.classification import SIZE
    from benchmarks.profiling import profiles
    from benchmarks.report import HEADER, content, draw_scaling, machine, markdown, shares_table
    from benchmarks.scaling import scaling

    print(", ".join(f"{key} {value}" for key, value in machine().items() if value), end="\n\n")
    print(HEADER)
    rows: list[Row] = []
    times: Any = None
    shares: Any = None
    measure_rows = row_groups()
    for group in groups:
        if group == "scaling":
            times = scaling(rounds)
            folder.write("scaling.png", partial(draw_scaling, scaling=times, size=SIZE))
        elif group == "profile":
            shares = profiles()
        else:
            for row in measure_rows[group](rounds):
                rows.append(row)
                print(markdown(row), flush=True)
        folder.write("benchmark.json", to_json(content(rows, times, shares)))
    if shares:
        print(shares_table(shares))


def row_groups() -> dict[str, "Callable[[int], Iterator[Row]]"]:
    """What yields the rows of each group, given the number of rounds."""
    from benchmarks.blocks import block_rows
    from benchmarks.classification import inference_rows, training_rows
    from benchmarks.deployed import deployed_rows
    from benchmarks.loading import loading_rows
    from benchmarks.segmentation import segmentation_rows

    functions = (block_rows, inference_rows, deployed_rows, training_rows, segmentation_rows, loading_rows)
    return dict(zip(ROWS, functions))


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        check_ranges(args, {"[2, inf)": "rounds", "[0, inf)": "threads"})
    except ValueError as error:
        parser.error(str(error))
    with exit_on_data_error():
        folder = OutputFolder(Path(args.out).expanduser())
        folder.check(FILES)
        if args.threads:
            torch.set_num_threads(args.threads)
        torch.manual_seed(0)
        benchmark(args.groups, args.rounds, folder)


if __name__ == "__main__":
    main()
