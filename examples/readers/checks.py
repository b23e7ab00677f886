"""Find what would break a training before it starts: files that cannot be decoded, masks of another size."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from .images import open_mask, open_rgb
from .records import DataError, Record

__all__ = ["check_files"]


def check_files(records: Sequence[Record], workers: int = 4) -> None:
    """Decode every file once.

    Raises:
        DataError: names the first few files that cannot be decoded, and masks that are not of their image's size.
    """
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(find_problem, records)
        found = list(tqdm(results, total=len(records), desc="checking files", leave=False, disable=None))
    problems = [problem for problem in found if problem]
    if problems:
        shown = "\n  ".join(problems[:5])
        raise DataError(f"{len(problems)} of {len(records)} records cannot be used, the first are\n  {shown}")


def find_problem(record: Record) -> str | None:
    """What is wrong with a record's files, if anything."""
    for path in record.files:
        try:
            size = (open_mask if path == record.mask else open_rgb)(path).size
        except (OSError, SyntaxError, ValueError) as error:
            # Pillow raises SyntaxError for broken PNG chunks.
            return f"{path}: not a readable image ({error})"
        if path == record.image:
            expected = size
        elif path == record.mask and size != expected:
            return f"{path}: mask of {size[0]}x{size[1]} pixels for an image of {expected[0]}x{expected[1]}"
    return None
