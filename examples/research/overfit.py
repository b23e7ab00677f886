"""Check that the transformer, the fusion and the pyramid learn by themselves.

    python examples/overfit.py --folder HAM10000 --weights resnet18.safetensors --out overfit.json

The CNN branch is frozen and its last map r4 is zeroed before the head, so that only p4 and P can bring the loss down.
The training images are as many of each class as there are, so that guessing the commonest class does not help. Their
loss must at least halve; the exit status says whether it did.

The images are CC BY-NC 4.0, research only.
"""

import argparse
import json
import random
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import torch
from engine.build import load_cnn, normalize
from engine.memory import MemorySamples
from engine.paths import path_slices
from readers import DataError, Record, make_split
from readers.ham10000 import CLASSES, read
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2


def evenly(records: list[Record], number: int, seed: int) -> list[Record]:
    """Draw records, by turns from each class while it lasts."""
    shuffled = random.Random(seed).sample(records, len(records))
    by_class = [[record for record in shuffled if record.label == label] for label in range(len(CLASSES))]
    return [record for record in chain.from_iterable(zip_longest(*by_class)) if record is not None][:number]


@torch.inference_mode()
def mean_loss(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """Cross-entropy over all images, in evaluation mode."""
    model.eval()
    return F.cross_entropy(torch.cat([model(batch) for batch in x.split(64)]), labels).item()


def main(argv: Sequence[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description="Overfit a few images without r4 and with the CNN branch frozen.")
    parser.add_argument("--folder", required=True, help="folder of HAM10000 as it is published")
    parser.add_argument("--weights", help="safetensors file with timm's resnet18 keys, to start the CNN branch from")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=112, help="height and width of the network's input")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", num_classes=len(CLASSES), drop_rate=0.0, drop_path_rate=0.0)
    try:
        records = evenly(make_split(read(args.folder), args.seed)["train"], args.images, args.seed)
        if args.weights:
            load_cnn(model, args.weights)
    except DataError as error:
        raise SystemExit(str(error)) from error
    samples = MemorySamples(records, args.size, False, False, None, torch.device("cpu"))
    batch = samples.batch([(index, 0) for index in range(len(samples))])
    x, labels = normalize(batch["image"], model.pretrained_cfg), batch["label"]
    model.to(memory_format=torch.channels_last)
    cnn = model.encoder.cnn
    cnn.requires_grad_(False)
    r4 = path_slices(model)["r4"]

    def zero_r4(head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        kept = torch.ones(inputs[0].shape[1], 1, 1)
        kept[r4] = 0
        return (inputs[0] * kept,)

    model.head.register_forward_pre_hook(zero_r4)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr)
    before = mean_loss(model, x, labels)
    for step in range(args.steps):
        model.train()
        cnn.eval()  # its batch norm keeps the statistics that it has
        optimizer.param_groups[0]["lr"] = args.lr * min(1, (step + 1) / 10) * (1 - step / args.steps)
        drawn = torch.randperm(len(labels))[: args.batch_size]
        loss = F.cross_entropy(model(x[drawn]), labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 25 == 0:
            print(f"step {step + 1:4d}  loss {loss.item():.4f}", flush=True)
    after = mean_loss(model, x, labels)
    results = dict(images=len(labels), steps=args.steps, loss_before=before, loss_after=after, ratio=after / before)
    print(f"loss on the {len(labels)} images: {before:.4f} before, {after:.4f} after {args.steps} steps")
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    raise SystemExit(main()["ratio"] > 0.5)
