"""Key names of other checkpoints to ours: of wrapped models, of the authors' code, and of version 0.1."""

import logging
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "convert_authors_keys",
    "convert_keys",
    "has_authors_keys",
    "strip_prefix",
    "strip_wrapper",
    "strip_wrappers",
]

_logger = logging.getLogger(__name__)

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

_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_checkpoint_wrapped_module)(\.|$)")

# Every model has these keys, of this library or of the authors' code; what stands before them is a wrapper's.
_LANDMARK = re.compile(r"^(|.*?\.)(?:encoder\.fusion\.stages\.\d|fusion_stages\.\d)")


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
        is_dense = value.layout == torch.strided and not value.is_nested
        if name.startswith("encoder.fusion.") and _LINEAR.search(name) and is_dense:
            # Not flatten, which copies a tensor of many equal numbers.
            value = value.squeeze(tuple(range(2, value.dim())))
        converted[name] = value
    return converted


def convert_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the keys of the authors' code and of version 0.1."""
    return _convert_older_keys(convert_authors_keys(state))


def strip_wrappers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove what ``torch.compile`` and checkpointing put into the names, of a whole model or of parts of it."""
    return {strip_wrapper(key): value for key, value in state.items()}


def strip_wrapper(key: str) -> str:
    """Remove what ``torch.compile`` and checkpointing put into a name."""
    return _WRAPPERS.sub("", key)


def strip_prefix(
    state: dict[str, Tensor], source: str, entry: str | None = None, entries: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Take the model out of a larger one: ``module.``, ``model.``, ``net.``, or any other names before its own.

    Of several models with different prefixes, the averaged one (EMA) is taken, as in timm, or that of ``entry``. What
    is not of the model is logged.

    Args:
        state: tensors by name; not changed.
        source: its name in messages.
        entry: the prefix of one of several models.
        entries: further names that ``entry`` could have had, for the error.

    Raises:
        ValueError: no such prefix, or several models and none of them an average.
    """
    prefixes = sorted({match[1] for match in map(_LANDMARK.match, state) if match})
    names = [prefix.rstrip(".") for prefix in prefixes]
    averaged = [prefix for prefix in prefixes if "ema" in re.split(r"[._]", prefix)]
    if entry is not None:
        if entry not in names:
            found = ", ".join(map(repr, [*entries, *filter(None, names)])) or "none"
            raise ValueError(f"{source} has no entry {entry!r} with a model: it has {found}")
        prefix = prefixes[names.index(entry)]
    elif len(prefixes) > 1 and len(averaged) != 1:
        raise ValueError(f"{source} has several models, {', '.join(map(repr, names))}: choose one with entry=...")
    else:
        prefix = (averaged or prefixes or [""])[0]
    if len(prefixes) > 1:
        others = ", ".join(repr(name) for name in names if name != prefix.rstrip("."))
        _logger.warning("%s: loaded %r; it also has %s", source, prefix.rstrip("."), others)
    if not prefix:
        return state
    foreign = [key for key in state if not key.startswith(prefix)]
    if foreign:
        _logger.warning("%s: not of the model, and not loaded: %s", source, ", ".join(foreign))
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _convert_older_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename keys of version 0.1: the ``gamma`` of axial attention was called ``factor``."""
    return {re.sub(r"\.axial\.(rows|columns)\.factor$", r".axial.\1.gamma", key): value for key, value in state.items()}
