"""Which images, and what is known of them: the options ``--data.*``."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from .errors import DataError

__all__ = ["OWN", "PUBLISHED", "Data"]

PUBLISHED = ("ham10000", "isic2018", "isic2019", "kvasir", "psinkd")
OWN = ("folder", "table", "masks")

_OF_TABLE = ("table", "image_column", "label_column", "split_column", "mask_column", "stack_columns")
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(_OF_TABLE, ("table",)),
    "mask_names": ("table", "masks"),
    "ignore_index": ("table", "masks"),
    **dict.fromkeys(("group_column", "group_regex", "group_table", "license", "encoding"), OWN),
}
"""Options that say something for some kinds of data alone."""


@dataclass
class Data:
    """Images, and what is known of them.

    Attributes:
        name: your own images: ``folder`` (ROOT/CLASS/IMAGE, or ROOT/train/CLASS/IMAGE and so on), ``table`` (a CSV
            file) or ``masks`` (images/ and masks/); or a published data set.
        folder: where the images lie.
        table: for ``table``, the CSV file; by default the only one in the folder.
        image_column: its column of file names, with or without suffix.
        label_column: its column of classes; several columns of 0 and 1 where several may hold at once. By default
            ``label``, else all columns of 0 and 1; ``[]`` for no classes.
        group_column: column of patients or lesions, all images of which stay in one split; by default ``group``, if
            any.
        split_column: column of train, val and test; by default ``split``, if any.
        mask_column: column of masks' file names; by default ``mask``, if any.
        stack_columns: columns of the second modality's slices, in order; by default ``stack...``, if any.
        encoding: of CSV files.
        group_regex: regular expression that finds the group in an image's file name or, where it finds nothing there,
            in its path below the folder; the expression's first group, or all of the match.
        group_table: another CSV file with image_column and group_column.
        mask_names: names of the values 0, 1, 2, ... in masks, the background first; without names, one foreground.
        ignore_index: value of pixels in masks that belong to no class.
        license: license of the images, which the trained model inherits.
    """

    name: Literal["folder", "table", "masks", "ham10000", "isic2018", "isic2019", "kvasir", "psinkd"]
    folder: str
    table: str | None = None
    image_column: str = "image"
    label_column: list[str] | str | None = None
    group_column: str | None = None
    split_column: str | None = None
    mask_column: str | None = None
    stack_columns: list[str] | None = None
    encoding: str = "utf-8"
    group_regex: str | None = None
    group_table: str | None = None
    mask_names: list[str] | None = None
    ignore_index: int | None = None
    license: str | None = None

    def __post_init__(self) -> None:
        self.folder = str(Path(self.folder).expanduser())

    def check_options(self) -> None:
        """Check that the options go together.

        Raises:
            DataError: names the option and what it is for.
        """
        defaults = {field.name: field.default for field in fields(Data)}
        for option, kinds in _ONLY_FOR.items():
            if getattr(self, option) != defaults[option] and self.name not in kinds:
                # The column's name serves the table of groups too.
                if option == "image_column" and self.group_table is not None:
                    continue
                raise DataError(f"data.{option} is for {', '.join(kinds)}, not for {self.name}")
        if self.group_regex is not None and (self.group_table is not None or self.group_column is not None):
            other = "group_table" if self.group_table is not None else "group_column"
            raise DataError(f"data.group_regex and data.{other} exclude each other")
        if self.group_column is not None and self.group_table is None and self.name != "table":
            raise DataError(f"data.group_column for {self.name} needs data.group_table, the table that has this column")
        if self.mask_names is not None and not 2 <= len(self.mask_names) == len(set(self.mask_names)) <= 255:
            raise DataError(f"data.mask_names={self.mask_names} must be 2 to 255 different names, the background first")
        if self.ignore_index is not None and not 0 <= self.ignore_index <= 65535:
            raise DataError(f"data.ignore_index={self.ignore_index} must be from 0 to 65535")
