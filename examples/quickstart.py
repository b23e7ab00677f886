"""Classify dermatoscopic images with a trained network.

    python examples/quickstart.py lesion.jpg --checkpoint runs/tiny

Research only: this is not a diagnostic device.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from ham10000 import CLASS_NAMES, LABELS
from PIL import Image
from timm.data import create_transform, resolve_data_config

import mfsf2

UNTRAINED = "UNTRAINED WEIGHTS: the probabilities below mean nothing (give --checkpoint)"


def main(argv: Sequence[str] | None = None) -> list[dict[str, float]]:
    """Print the classes of each image with their probabilities, the likeliest first; returns the same by label."""
    parser = argparse.ArgumentParser(description="Classify dermatoscopic images. Research only.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--checkpoint", help="folder that train.py wrote; without it the network is untrained")
    args = parser.parse_args(argv)
    if args.checkpoint:
        try:
            model = mfsf2.create_model(f"local-dir:{args.checkpoint}")
        except (OSError, ValueError) as error:
            raise SystemExit(f"--checkpoint {args.checkpoint}: {error}") from error
    else:
        model = mfsf2.create_model("mfsf2_tiny_cls", num_classes=len(LABELS))
        print(UNTRAINED)
    print("research only, not a diagnostic device")
    model.eval()
    cfg: Any = model.pretrained_cfg
    labels = cfg.get("label_names") or LABELS
    transform: Any = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    results = []
    for path in args.images:
        try:
            with Image.open(path) as image:
                x = transform(image.convert("RGB")).unsqueeze(0)
        except OSError as error:
            raise SystemExit(f"{path}: not a readable image: {error}") from error
        with torch.inference_mode():
            probabilities = model(x).softmax(1)[0].tolist()
        ranked = sorted(zip(labels, probabilities, strict=True), key=lambda pair: -pair[1])
        print(f"\n{path}")
        for label, probability in ranked:
            print(f"  {probability:6.1%}  {label:<6} {CLASS_NAMES.get(label, '')}".rstrip())
        results.append(dict(ranked))
    return results


if __name__ == "__main__":
    main()
