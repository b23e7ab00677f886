"""Train a network on one of the data sets.

    python examples/train.py --config examples/configs/ham10000_cls.yaml --data.folder HAM10000 --out runs/ham10000
    accelerate launch examples/train.py ...

Every field of the configuration can be given on the command line; ``--help`` lists them. ``--out`` receives the
configuration, the split, the environment, a log, curves, ``last.pt`` to go on from (``--resume true``) and ``best/``,
the best network by the validation part, which ``mfsf2.create_model("local-dir:OUT/best")`` loads. The test part is not
touched: ``evaluate.py`` does that.
"""

import warnings
from collections.abc import Sequence
from typing import Any

from engine.config import parse_config
from engine.loop import Trainer
from engine.run import check_run
from readers import DataError, check_files, load_split, make_split, read_dataset
from readers.split import check_classes


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train; returns the results."""
    config = parse_config(argv, "Train a network. Research only.")
    # MONAI and accelerate warn of what is meant here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    try:
        check_run(config)
        dataset = read_dataset(config.data.name, config.data.folder, masks=config.has_masks)
        split = f"{config.out}/split.json" if config.resume else config.data.split
        parts = make_split(dataset, config.seed) if split is None else load_split(split, dataset)
        empty = [name for name, records in parts.items() if not records]
        if empty:
            raise DataError(f"{dataset.name}: no image in {', '.join(empty)}; more images are needed")
        if config.has_classes:
            check_classes(dataset, parts["train"])
        if config.data.check:
            check_files(parts["train"] + parts["val"])
        return Trainer(config, dataset, parts).run()
    except (DataError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
