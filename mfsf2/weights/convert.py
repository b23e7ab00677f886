"""Key names of other checkpoints to ours: those of the authors' code, and those of version 0.1."""

import re
from collections.abc import Callable

from torch import Tensor

__all__ = ["convert_authors_keys", "convert_older_keys", "has_authors_keys"]

# Applied in this order. The transformer's part is timm's own conversion of PVTv2 checkpoints.
_RENAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^resnet\.conv1\.0\.", "encoder.cnn.conv1."),
    (r"^resnet\.conv1\.1\.", "encoder.cnn.bn1."),
    (r"^resnet\.", "encoder.cnn."),
    (r"^backbone\.patch_embed1\.", "encoder.transformer.patch_embed."),
    (r"^backbone\.patch_embed(\d+)\.", lambda m: f"encoder.transformer.stages.{int(m[1]) - 1}.downsample."),
    (r"^backbone\.block(\d+)\.(\d+)\.", lambda m: f"encoder.transformer.stages.{int(m[1]) - 1}.blocks.{m[2]}."),
    (r"^backbone\.norm(\d+)\.", lambda m: f"encoder.transformer.stages.{int(m[1]) - 1}.norm."),
    (r"\.dwconv\.dwconv\.", ".dwconv."),
    (r"^fusion_stages\.", "encoder.fusion.stages."),
    (r"\.res_align\.0\.", ".align.cnn.conv."),
    (r"\.res_align\.1\.", ".align.cnn.bn."),
    (r"\.pvt_align\.0\.", ".align.transformer.conv."),
    (r"\.pvt_align\.1\.", ".align.transformer.bn."),
    (r"\.mffe_res\.", ".mffe_cnn."),
    (r"\.mffe_pvt\.", ".mffe_transformer."),
    (r"\.mapper\.0\.", ".fc1."),
    (r"\.mapper\.2\.", ".fc2."),
    (r"\.attn_conv\.0\.", ".gate.attn.conv."),
    (r"\.attn_conv\.1\.", ".gate.attn.bn."),
    (r"\.attn_conv\.3\.", ".gate.attn_out."),
    (r"\.fuse_process\.0\.", ".gate.fuse.conv."),
    (r"\.fuse_process\.1\.", ".gate.fuse.bn."),
    (r"^third_branch\.", "encoder.fusion.pyramid."),
    (r"\.adapters\.(\d+)\.0\.", r".adapters.\1.conv."),
    (r"\.adapters\.(\d+)\.1\.", r".adapters.\1.bn."),
    (r"\.psa\.conv_(\d+)\.", lambda m: f".psa.convs.{int(m[1]) - 1}."),
    (r"\.psa\.se\.conv\.", ".psa.fc."),
    (r"^classifier\.0\.", "head.hidden.0."),
    (r"^classifier\.1\.", "head.hidden.1."),
    (r"^classifier\.4\.", "head.fc."),
]

# 1x1 convolutions that are linear layers here.
_LINEAR = re.compile(r"\.(fc1|fc2|psa\.fc)\.weight$")


def has_authors_keys(state: dict[str, Tensor]) -> bool:
    """Whether a state dict has the authors' key names."""
    return any(key.startswith(("fusion_stages.", "third_branch.", "backbone.patch_embed")) for key in state)


def convert_authors_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the authors' keys; a state dict with our keys is returned unchanged.

    Their second, unused transformer (``pvt.*``) and the per-channel copies of the DCT filters (``dct_wgt_*``) are
    omitted. Unknown keys are kept, for the loader to report.
    """
    if not has_authors_keys(state):
        return state
    converted = {}
    for key, value in state.items():
        if key.startswith("pvt.") or any(part.startswith("dct_wgt_") for part in key.split(".")):
            continue
        name = key
        for pattern, replacement in _RENAMES:
            name = re.sub(pattern, replacement, name)
        if name.startswith("encoder.fusion.") and _LINEAR.search(name):
            value = value.flatten(1)
        converted[name] = value
    return converted


def convert_older_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys of version 0.1: the ``gamma`` of axial attention was called ``factor``."""
    return {re.sub(r"\.axial\.(rows|columns)\.factor$", r".axial.\1.gamma", key): value for key, value in state.items()}
