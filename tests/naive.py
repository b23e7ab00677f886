"""The published formulas written down one by one, with loops, to hold the library's faster forms against.

Only convolution, batch norm and resizing are taken from torch. Everything is in float64.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Weights = dict[str, Tensor]


def basis(p: int, f: int, length: int) -> float:
    value = math.cos(math.pi * f * (p + 0.5) / length) / math.sqrt(length)
    return value * math.sqrt(2) if f > 0 else value


def adaptive_pool(x: Tensor, size: int) -> Tensor:
    height, width = x.shape[2:]
    out = x.new_empty(*x.shape[:2], size, size)
    for i in range(size):
        for j in range(size):
            top, bottom = i * height // size, math.ceil((i + 1) * height / size)
            left, right = j * width // size, math.ceil((j + 1) * width / size)
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
    return out


def mffe_logits(x: Tensor, w1: Tensor, w2: Tensor, pairs: tuple[tuple[int, int], ...], grid: int) -> Tensor:
    pooled = adaptive_pool(x, grid)
    average, maximum, minimum = (torch.zeros(x.shape[:2], dtype=x.dtype) for _ in range(3))
    for u, v in pairs:
        d = torch.tensor(
            [
                [basis(i, u * (grid // 7), grid) * basis(j, v * (grid // 7), grid) for j in range(grid)]
                for i in range(grid)
            ],
            dtype=x.dtype,
        )
        product = (pooled * d).flatten(2)
        average += product.mean(2) / len(pairs)
        maximum += product.max(2).values / len(pairs)
        minimum += product.min(2).values / len(pairs)
    return sum(torch.relu(s @ w1.t()) @ w2.t() for s in (average, maximum, minimum))


def conv_bn_relu(x: Tensor, w: Weights, name: str) -> Tensor:
    kernel = w[f"{name}.conv.weight"]
    y = F.conv2d(x, kernel, w.get(f"{name}.conv.bias"), padding=kernel.shape[-1] // 2)
    y = F.batch_norm(
        y, w[f"{name}.bn.running_mean"], w[f"{name}.bn.running_var"], w[f"{name}.bn.weight"], w[f"{name}.bn.bias"]
    )
    return torch.relu(y)


def fusion_stage(r: Tensor, p: Tensor, w: Weights, pairs: tuple[tuple[int, int], ...], grid: int) -> Tensor:
    if r.shape[2:] != p.shape[2:]:
        r = F.interpolate(r, size=p.shape[2:], mode="bilinear", align_corners=True)
    r, p = conv_bn_relu(r, w, "align.cnn"), conv_bn_relu(p, w, "align.transformer")
    gate_r = mffe_logits(r, w["mffe_cnn.fc1.weight"], w["mffe_cnn.fc2.weight"], pairs, grid).sigmoid()
    gate_p = mffe_logits(p, w["mffe_transformer.fc1.weight"], w["mffe_transformer.fc2.weight"], pairs, grid).sigmoid()
    r, p = r * gate_r[:, :, None, None], p * gate_p[:, :, None, None]
    hidden = conv_bn_relu(torch.cat([r, p], 1), w, "gate.attn")
    s = F.conv2d(hidden, w["gate.attn_out.weight"], w["gate.attn_out.bias"]).sigmoid()
    return conv_bn_relu(torch.cat([s * r, (1 - s) * p], 1), w, "gate.fuse")


def pyramid_map(maps: list[Tensor], w: Weights, size: int, groups: tuple[int, ...]) -> Tensor:
    x = torch.cat([adaptive_pool(conv_bn_relu(m, w, f"adapters.{i}"), size) for i, m in enumerate(maps)], 1)
    branches, weights = [], []
    for i, group in enumerate(groups):
        kernel = w[f"psa.convs.{i}.weight"]
        y = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=group)
        branches.append(y)
        weights.append(1 + 2 * (y.mean((2, 3)) @ w["psa.fc.weight"].t()).sigmoid())
    total = sum(torch.exp(weight) for weight in weights)
    parts = [(torch.exp(weight) / total)[:, :, None, None] * y for weight, y in zip(weights, branches)]
    return torch.cat(parts[::-1], 1)


def head(r: Tensor, p: Tensor, pyramid: Tensor, w: Weights) -> Tensor:
    x = torch.cat([r.mean((2, 3)), p.mean((2, 3)), pyramid], 1)
    x = x @ w["hidden.0.weight"].t() + w["hidden.0.bias"]
    x = (x - w["hidden.1.running_mean"]) / torch.sqrt(w["hidden.1.running_var"] + 1e-5)
    x = torch.relu(x * w["hidden.1.weight"] + w["hidden.1.bias"])
    return x @ w["fc.weight"].t() + w["fc.bias"]


def weights_of(module: nn.Module, prefix: str = "") -> Weights:
    """State dict below a prefix."""
    return {key.removeprefix(prefix): value for key, value in module.state_dict().items() if key.startswith(prefix)}


def randomize_norms(module: nn.Module) -> None:
    """Give batch norms statistics and factors that do something."""
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(norm.weight, 1, 0.2)
            nn.init.normal_(norm.bias, 0, 0.2)
            nn.init.normal_(norm.running_mean, 0, 0.2)
            nn.init.uniform_(norm.running_var, 0.5, 1.5)
