"""Write a small synthetic data set in the layout of a real one, or of one's own, for a first try without any download.

    python examples/synthesize.py ham10000 synthetic/ham10000 --lesions 12
    python examples/synthesize.py folder synthetic/own

Nothing of it is real, and nothing trained on it is of use on patients.
"""

from collections.abc import Sequence
from pathlib import Path

from cli import Parser, exit_on_data_error
from datasets.synthetic import WRITERS, write_dataset


def main(argv: Sequence[str] | None = None) -> Path:
    """Write the data set; returns its folder."""
    description = "Write a small synthetic data set in the layout of a real one, or of one's own."
    parser = Parser(description=description, allow_abbrev=False)
    parser.add_argument("name", choices=sorted(WRITERS), help="whose layout; folder, table and masks are one's own")
    parser.add_argument("folder", type=str, help="where; must be empty or absent")
    parser.add_argument("--lesions", type=int, default=6, help="of each class; times five where there are no classes")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers")
    args = parser.parse_args(argv)
    with exit_on_data_error():
        folder = write_dataset(args.name, Path(args.folder).expanduser(), args.lesions, args.seed)
    print(folder)
    return folder


if __name__ == "__main__":
    main()
