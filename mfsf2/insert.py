"""MFFE behind modules of other models, in place, and out again.

An inserted block is a child of the module whose output it gates, under the name ``mffe``. An ``nn.Sequential`` runs it
as its last child; in any other module a forward hook calls it. The keys of the host's own weights stay as they are.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

from torch import Tensor, nn

from .layers import MFFE, TokenMFFE
from .probe import Example, MapInfo, infer_maps, maps_of_feature_info

__all__ = ["add_mffe", "load_host_state_dict", "remove_mffe"]

_CHILD = "mffe"


def add_mffe(
    model: nn.Module,
    names: str | Sequence[str],
    example_input: Example | None = None,
    *,
    block: type[MFFE] | type[TokenMFFE] = MFFE,
    identity: bool = True,
    data_format: str | None = None,
    **block_args: Any,
) -> nn.Module:
    """Insert :class:`MFFE` behind modules of a model, which is changed in place and computes the same at first.

    The channels of each module's output, and whether they come first or last, are found with ``example_input`` or,
    without one, in the ``feature_info`` of timm's models. Insert before ``torch.compile`` and before the optimizer is
    made. The keys of the model's own weights stay as they are: its checkpoints load with
    :func:`load_host_state_dict`, also after the insertion.

    Args:
        model: the host, any ``nn.Module``.
        names: names of its modules as in ``model.named_modules()``, or patterns of them, in which ``*`` stands for any
            text without a dot, as in file names: ``"layer*"`` is ``layer1`` to ``layer4`` but nothing inside them,
            ``"layer*.*"`` each of their blocks.
        example_input: input of the model for one run in eval mode without gradients: a tensor, or a tuple or mapping of
            arguments.
        block: :class:`MFFE` for maps, :class:`TokenMFFE` for tokens ``(B, N, C)``.
        identity: start as the identity, see :class:`MFFE`; False for the published gate.
        data_format: ``"NCHW"`` or ``"NHWC"``; None to find out.
        **block_args: further arguments of the block, such as ``reduction``.

    Returns:
        ``model``.

    Raises:
        ValueError: a name that matches no module, a module that already has a block, does not run, or does not return
            one map; channels that cannot be found. The model is unchanged.

    Example:
        >>> import timm
        >>> model = timm.create_model("resnet18")
        >>> add_mffe(model, "layer*").layer1.mffe
        MFFE(
          64, grid_size=7, num_frequencies=16, identity=True
          (fc1): Linear(in_features=64, out_features=4, bias=False)
          (act): ReLU()
          (fc2): Linear(in_features=4, out_features=64, bias=False)
        )
    """
    if hasattr(model, "_orig_mod"):
        raise ValueError("the model is compiled: call add_mffe on the model itself, then torch.compile")
    targets = _find(model, [names] if isinstance(names, str) else list(names))
    for name, module in targets.items():
        _check_target(name, module)
    data_format = "NLC" if block is TokenMFFE else data_format
    if example_input is None:
        maps = maps_of_feature_info(model, targets, data_format)
    else:
        maps = infer_maps(model, targets, example_input, data_format)
    # All blocks are built before the first is inserted, because arguments may be wrong.
    blocks = {name: _build(model, targets[name], maps[name], block, identity, block_args) for name in targets}
    for name, module in targets.items():
        module.add_module(_CHILD, blocks[name])
        if not _runs_children(module):
            module.register_forward_hook(_gate)
    return model


def remove_mffe(model: nn.Module) -> nn.Module:
    """Take out what :func:`add_mffe` inserted.

    Returns:
        ``model``, changed in place.

    Raises:
        ValueError: a model without inserted blocks.
    """
    hosts = [module for _, module in _hosts(model)]
    if not hosts:
        raise ValueError(f"{type(model).__name__} has no block of add_mffe")
    for module in hosts:
        delattr(module, _CHILD)
        for key in [key for key, hook in module._forward_hooks.items() if hook is _gate]:
            del module._forward_hooks[key]
    return model


def load_host_state_dict(model: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """Load a checkpoint of the model as it was before :func:`add_mffe`: strictly, except that the blocks keep theirs.

    For a checkpoint that holds the blocks too, use ``model.load_state_dict``.

    Raises:
        ValueError: keys missing in the checkpoint or unknown to the model, or shapes that differ. The model is
            unchanged.
    """
    prefixes = _prefixes(model)
    before = copy.deepcopy(model.state_dict())
    try:
        result = model.load_state_dict(state_dict, strict=False)
        missing = [key for key in result.missing_keys if not key.startswith(prefixes)]
        unexpected = [*result.unexpected_keys, *(key for key in state_dict if key.startswith(prefixes))]
        if missing or unexpected:
            raise ValueError(
                f"not a checkpoint of this {type(model).__name__} without its blocks: missing {_some(missing)}, "
                f"unexpected {_some(unexpected)}"
            )
    except (RuntimeError, ValueError) as error:
        model.load_state_dict(before)
        raise ValueError(str(error)) from error


def _some(keys: Sequence[str]) -> str:
    """The first few keys."""
    return f"{len(keys)} keys ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})" if keys else "none"


def _gate(module: Any, _args: Any, output: Tensor) -> Tensor:
    """Forward hook of a module with a block. At module level, so that models can be pickled."""
    gated: Tensor = module.mffe(output)
    return gated


def _runs_children(module: nn.Module) -> bool:
    """Whether a module runs a child that is added to it."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _has_block(module: nn.Module) -> bool:
    return getattr(module._modules.get(_CHILD), "is_inserted", False)


def _hosts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that have a block, with their names."""
    for name, module in list(model.named_modules()):
        if _has_block(module):
            yield name, module


def _prefixes(model: nn.Module) -> tuple[str, ...]:
    """How the names of what is inside blocks begin."""
    return tuple(f"{name}.{_CHILD}." for name, _ in _hosts(model))


def _find(model: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Module]:
    """The modules whose names match a pattern, in the order of the model; those inside inserted blocks do not count."""
    if not patterns:
        raise ValueError("names is empty: pass the names of modules, or patterns of them")
    inside = _prefixes(model)
    modules = {name: m for name, m in model.named_modules() if name and not f"{name}.".startswith(inside)}
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in modules):
            near = get_close_matches(pattern.replace("*", ""), modules, n=5, cutoff=0.4) or list(modules)[:5]
            raise ValueError(f"{pattern!r} matches no module of {type(model).__name__}; near names: {', '.join(near)}")
    return {name: m for name, m in modules.items() if any(_matches(name, pattern) for pattern in patterns)}


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(fnmatchcase(part, want) for part, want in zip(parts, wanted))


def _check_target(name: str, module: nn.Module) -> None:
    """Check that a module can have a block."""
    if _has_block(module):
        raise ValueError(f"{name} already has an MFFE: call remove_mffe(model) first, or pass other names")
    if hasattr(module, _CHILD):
        raise ValueError(f"{name} has an attribute {_CHILD!r} of its own, where the block would go: pass another name")
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) and not _runs_children(module):
        kind = type(module).__name__
        raise ValueError(
            f"{name} is a {kind}, a container that may run an added child in the wrong place: pass the names of "
            "modules inside or behind it"
        )


def _build(
    model: nn.Module,
    module: nn.Module,
    found: MapInfo,
    block: type[MFFE] | type[TokenMFFE],
    identity: bool,
    block_args: dict[str, Any],
) -> nn.Module:
    """The block for one module, with the device, dtype and mode of the host's weights."""
    args = dict(identity=identity, **block_args)
    weight = next((p for p in chain(module.parameters(), model.parameters()) if p.is_floating_point()), None)
    if weight is not None:
        args = dict(device=weight.device, dtype=weight.dtype, **args)
    if block is MFFE:
        args = dict(data_format=found.data_format, **args)
    built = block(found.channels, **args)
    built.is_inserted = True  # type: ignore[assignment]
    return built.train(module.training)
