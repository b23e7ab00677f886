"""What each path of a trained network contributes: withhold it and measure again on the held-out lesions.

    python examples/ablate.py --data HAM10000 --checkpoint runs/tiny

The head is given three things: the CNN map r4, the transformer map p4 and the pooled pyramid P. Each in turn is
replaced by its mean over the training images, which keeps its scale and takes away all it says about the image. The
split is that of the training, whose seed is kept in the checkpoint's ``results.json``.

The images are CC BY-NC 4.0, research only.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from evaluation import balanced_accuracy, balanced_log_loss, head_inputs, logits_of, path_slices, stored_size
from ham10000 import labels_of, load_images, read_records, split_by_lesion

import mfsf2


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    parser = argparse.ArgumentParser(description="Balanced accuracy without r4, p4 or P.")
    parser.add_argument("--data", required=True, help="folder of HAM10000 as it is published")
    parser.add_argument("--checkpoint", required=True, help="folder that train.py wrote")
    parser.add_argument("--out", help="JSON file for the figures; CHECKPOINT/ablation.json by default")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    checkpoint = Path(args.checkpoint)
    try:
        training = json.loads((checkpoint / "results.json").read_text(encoding="utf-8"))
        model = mfsf2.create_model(f"local-dir:{checkpoint}").to(memory_format=torch.channels_last)
        cfg: Any = model.pretrained_cfg
        split = split_by_lesion(read_records(args.data, training["limit"], training["seed"]), training["seed"])
        train_inputs = head_inputs(model, load_images(split["train"], stored_size(cfg)), cfg)
        test_inputs = head_inputs(model, load_images(split["test"], stored_size(cfg)), cfg)
    except FileNotFoundError as error:
        raise SystemExit(f"--checkpoint {checkpoint}: {error}; give the folder that train.py wrote") from error
    except ValueError as error:
        raise SystemExit(str(error)) from error
    labels = labels_of(split["test"])
    inputs = {"all": test_inputs}
    for name, channels in path_slices(model).items():
        inputs[f"without {name}"] = withheld = test_inputs.clone()
        withheld[:, channels] = train_inputs[:, channels].mean(0)
    results = {}
    print(f"{'paths':<12} balanced accuracy  change   balanced log loss  change   ({len(labels)} held-out images)")
    for name, x in inputs.items():
        logits = logits_of(model, x)
        row = dict(balanced_accuracy=balanced_accuracy(logits, labels), log_loss=balanced_log_loss(logits, labels))
        results[name] = row
        change = {key: value - results["all"][key] for key, value in row.items()}
        print(
            f"{name:<12} {row['balanced_accuracy']:17.4f}  {change['balanced_accuracy']:+.4f}  "
            f"{row['log_loss']:17.4f}  {change['log_loss']:+.4f}"
        )
    out = Path(args.out) if args.out else checkpoint / "ablation.json"
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
