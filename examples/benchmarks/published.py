"""The model in the form in which it is published, for comparison: the same weights, written down as the formulas are.

One product per DCT filter, with a copy of the filter for every channel; concatenations; pyramid split attention over
the whole map. Each module takes the library's module and shares its weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2

__all__ = ["PublishedFusionStage", "PublishedMFFE", "PublishedModel", "PublishedPyramid"]


def plain_conv(conv: Any, kernel_size: int = 1, groups: int = 1) -> nn.Conv2d:
    """An ``nn.Conv2d`` with the weights of one of the library's convolutions."""
    out_chans, in_chans = conv.weight.shape[:2]
    bias = getattr(conv, "bias", None)
    padding = kernel_size // 2
    copy = nn.Conv2d(in_chans * groups, out_chans, kernel_size, padding=padding, groups=groups, bias=bias is not None)
    copy.weight, copy.bias = conv.weight, bias
    return copy


def conv_norm_act(unit: Any) -> nn.Sequential:
    """Convolution, batch norm and ReLU of a ``ConvNormAct`` or a ``ConcatConvNormAct``."""
    return nn.Sequential(plain_conv(unit.conv, unit.conv.weight.shape[-1]), unit.bn, nn.ReLU(inplace=True))


class PublishedMFFE(nn.Module):
    def __init__(self, mffe: mfsf2.MFFE) -> None:
        super().__init__()
        self.size = mffe.grid_size
        self.filters = nn.ParameterList(
            nn.Parameter(f.detach().view(1, self.size, self.size).repeat(mffe.channels, 1, 1), requires_grad=False)
            for f in mffe.bank
        )
        self.mapper = nn.Sequential(mffe.fc1, nn.ReLU(inplace=True), mffe.fc2)
        self.average_pool, self.max_pool = nn.AdaptiveAvgPool2d(1), nn.AdaptiveMaxPool2d(1)

    def logits(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, self.size)
        average = maximum = minimum = pooled.new_zeros(*pooled.shape[:2], 1, 1)
        for one in self.filters:
            filtered = pooled * one
            average = average + self.average_pool(filtered)
            maximum = maximum + self.max_pool(filtered)
            minimum = minimum - self.max_pool(-filtered)
        branches = [self.mapper(total.flatten(1) / len(self.filters)) for total in (average, maximum, minimum)]
        return branches[0] + branches[1] + branches[2]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.logits(x).sigmoid()[:, :, None, None]


class PublishedFusionStage(nn.Module):
    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.align_cnn, self.align_transformer = conv_norm_act(stage.align.cnn), conv_norm_act(stage.align.transformer)
        self.mffe_cnn, self.mffe_transformer = PublishedMFFE(stage.mffe_cnn), PublishedMFFE(stage.mffe_transformer)
        gate = stage.gate
        self.attn, self.attn_out = conv_norm_act(gate.attn), plain_conv(gate.attn_out)
        self.fuse = conv_norm_act(gate.fuse)

    def forward(self, r: Tensor, p: Tensor) -> Tensor:
        if r.shape[2:] != p.shape[2:]:
            r = F.interpolate(r, size=p.shape[2:], mode="bilinear", align_corners=True)
        r = self.mffe_cnn(self.align_cnn(r))
        p = self.mffe_transformer(self.align_transformer(p))
        s = self.attn_out(self.attn(torch.cat([r, p], dim=1))).sigmoid()
        return self.fuse(torch.cat([s * r, (1 - s) * p], dim=1))


class PublishedPyramid(nn.Module):
    def __init__(self, pyramid: Any) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(conv_norm_act(adapter) for adapter in pyramid.adapters)
        self.pool = nn.AdaptiveAvgPool2d(pyramid.size)
        self.convs = nn.ModuleList(plain_conv(conv, conv.kernel_size, conv.groups) for conv in pyramid.psa.convs)
        self.fc = pyramid.psa.fc

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = torch.cat([self.pool(adapter(x)) for adapter, x in zip(self.adapters, maps)], dim=1)
        maps = [conv(x) for conv in self.convs]
        means = [F.adaptive_avg_pool2d(y, 1).flatten(1) for y in maps]
        weights = torch.stack([1 + 2 * self.fc(mean).sigmoid() for mean in means], dim=1).softmax(1)
        return torch.cat([weights[:, i, :, None, None] * maps[i] for i in reversed(range(len(maps)))], dim=1)


class PublishedModel(nn.Module):
    """The classification model, on the same two backbones."""

    def __init__(self, model: mfsf2.MFSF2) -> None:
        super().__init__()
        fusion = model.encoder.fusion
        self.encoder = model.encoder
        self.stages = nn.ModuleList(PublishedFusionStage(stage) for stage in fusion.stages)
        self.pyramid = PublishedPyramid(fusion.pyramid)
        head: Any = model.head
        self.classifier = nn.Sequential(head.hidden, head.drop, head.fc)

    def forward(self, x: Tensor) -> Tensor:
        cnn_maps, transformer_maps = self.encoder(x)
        fused = [stage(r, p) for stage, r, p in zip(self.stages, cnn_maps, transformer_maps)]
        last = (cnn_maps[-1], transformer_maps[-1], self.pyramid(fused))
        return self.classifier(torch.cat([F.adaptive_avg_pool2d(y, 1).flatten(1) for y in last], dim=1))
