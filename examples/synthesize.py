"""Write a small synthetic data set in the layout of a real one, for a first try without any download.

    python examples/synthesize.py ham10000 synthetic/ham10000 --lesions 12

Nothing of it is real, and nothing trained on it is of use on patients.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from datasets.synthetic import WRITERS, write_dataset


def main(argv: Sequence[str] | None = None) -> Path:
    """Write the data set; returns its folder."""
    parser = argparse.ArgumentParser(description="Write a synthetic data set in the layout of a real one.")
    parser.add_argument("name", choices=sorted(WRITERS))
    parser.add_argument("folder", help="where; must be empty or absent")
    parser.add_argument("--lesions", type=int, default=6, help="of each class; times five where there are no classes")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    try:
        folder = write_dataset(args.name, args.folder, args.lesions, args.seed)
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error
    print(folder)
    return folder


if __name__ == "__main__":
    main()
