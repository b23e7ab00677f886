"""The published network's outputs, for weights and inputs that are drawn by name."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
CASES = {case["name"]: case for case in json.loads((FOLDER / "cases.json").read_text())["cases"]}
MODEL_KEYS: dict[str, list[int]] = json.loads((FOLDER / "model_keys.json").read_text())
GOLDEN: dict[str, Tensor] = load_file(FOLDER / "golden.safetensors")


def draw(name: str, shape: list[int]) -> Tensor:
    """Standard normal values, determined by the name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return torch.from_numpy(np.asarray(rng.standard_normal(shape), dtype=np.float32))


def draw_parameter(key: str, shape: list[int], prefix: str = "") -> Tensor:
    """A parameter or buffer of the published network, by its published name."""
    part = key.rsplit(".", 1)[-1]
    n = draw(prefix + key, shape)
    if part == "num_batches_tracked":
        return torch.tensor(0)
    if part == "running_var":
        return 1 + 0.1 * n.abs()
    if part in ("running_mean", "bias"):
        return 0.1 * n
    if len(shape) == 1:
        return 1 + 0.1 * n
    return n / float(np.sqrt(np.prod(shape[1:])))


def draw_state(keys: dict[str, list[int]], prefix: str = "") -> dict[str, Tensor]:
    return {key: draw_parameter(key, shape, prefix) for key, shape in keys.items()}


def draw_inputs(case: dict) -> list[Tensor]:
    return [draw(entry["name"], entry["shape"]) for entry in case["inputs"]]


def subsample(x: Tensor) -> Tensor:
    """Every ceil(n / 2000)-th value, as the inner maps are stored."""
    flat = x.flatten()
    return flat[:: -(-flat.numel() // 2000)]
