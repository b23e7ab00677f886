"""Networks a few hundredths of the tiny ones' size, of the same structure: what most tests run on.

Importing this registers two backbones with timm, ``micro_resnet`` and ``micro_pvt_v2``.
"""

from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

import mfsf2
from mfsf2.layers.axial import AxisAttention

TASKS = ["cls", "seg", "clsseg", "rcm_cls", "rcm_seg", "rcm_clsseg"]

default_cfgs = generate_default_cfgs(
    {
        "micro_resnet": dict(first_conv="conv1", classifier="fc", input_size=(3, 224, 224)),
        "micro_pvt_v2": dict(first_conv="patch_embed.proj", classifier="head", input_size=(3, 224, 224)),
    }
)


@register_model
def micro_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Two blocks in the first and the last stage, so that depth shows in names."""
    sizes = dict(block=BasicBlock, layers=(2, 1, 1, 2), channels=(8, 16, 24, 32))
    return build_model_with_cfg(ResNet, "micro_resnet", pretrained, **sizes, **kwargs)


@register_model
def micro_pvt_v2(pretrained: bool = False, **kwargs: Any) -> PyramidVisionTransformerV2:
    """The spatial reductions of every PVTv2: its smallest image is theirs."""
    sizes = dict(depths=(1, 1, 1, 1), embed_dims=(8, 16, 24, 32), num_heads=(1, 1, 2, 2), mlp_ratios=(2, 2, 2, 2))
    feature_cfg = dict(flatten_sequential=True, out_indices=(0, 1, 2, 3))
    return build_model_with_cfg(
        PyramidVisionTransformerV2, "micro_pvt_v2", pretrained, feature_cfg=feature_cfg, **sizes, **kwargs
    )


ENCODER: dict[str, Any] = dict(
    cnn="micro_resnet", transformer="micro_pvt_v2", channels=16, pyramid_chans=16, out_chans=64
)
"""Arguments of the encoder."""


def create(task: str, is_micro: bool = True, **kwargs: Any) -> Any:
    """``mfsf2.create_model`` of ``mfsf2_tiny_TASK``, in micro size or as it is named."""
    name = f"mfsf2_tiny_{task}"
    return mfsf2.create_model(name, **{**(sizes_of(name) if is_micro else {}), **kwargs})


def build(task: str = "cls", seed: int = 0, is_micro: bool = True, **kwargs: Any) -> Any:
    """As :func:`create`, in evaluation mode, with norms that are not the initial ones."""
    torch.manual_seed(seed)
    model = create(task, is_micro, **kwargs).eval()
    if not any(parameter.is_meta for parameter in model.parameters()):
        randomize_norms(model)
    return model


def sizes_of(name: str) -> dict[str, Any]:
    """Arguments of ``mfsf2.create_model`` that make a network micro, whatever its heads."""
    return ENCODER if name.endswith("_seg") else dict(ENCODER, head_hidden_size=32)


def randomize_norms(model: nn.Module) -> None:
    """Batch-norm statistics and residual gains that are not the initial ones, so that tests see them."""
    generator = torch.Generator().manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.weight.data.copy_(1 + 0.1 * torch.randn(norm.weight.shape, generator=generator))
            norm.running_mean.copy_(0.1 * torch.randn(norm.weight.shape, generator=generator))
            norm.running_var.copy_(1 + 0.1 * torch.rand(norm.weight.shape, generator=generator))
        elif isinstance(norm, AxisAttention):
            norm.gamma.data.fill_(0.5)
