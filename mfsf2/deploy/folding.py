"""Fold batch norms into the layers before them."""

import copy
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..layers.conv import ConcatConv2d, PointwiseConv2d

__all__ = ["check_eval", "fold_batch_norm"]

_Model = TypeVar("_Model", bound=nn.Module)


def fold_batch_norm(model: _Model) -> _Model:
    """Copy a model with every batch norm folded into the convolution or linear layer before it.

    The copy gives the same outputs with fewer operations. It is for inference only. A norm that contains an activation,
    such as timm's ``BatchNormAct2d``, leaves the activation in its place.

    Norms that cannot be folded stay, and one warning lists them with the reasons: there is no layer right before the
    norm, the layer's output has another use, the layer computes its weight at every call, and so on.

    Raises:
        TypeError: not a module, or one that ``torch.compile`` returned.
        ValueError: the model is in training mode.

    Warns:
        UserWarning: some norms stay.
    """
    check_eval(model)
    folded = copy.deepcopy(model)
    classes = _Classes()
    names: dict[nn.Module, list[str]] = defaultdict(list)
    for name, module in folded.named_modules(remove_duplicate=False):
        names[module].append(name)
    norms = [module for module in names if isinstance(module, classes.norms)]
    # Before the first norm is folded: the reasons are about the model as it is.
    layers = _layers_before(folded, classes)
    unfolded: dict[str, list[str]] = defaultdict(list)
    for norm in norms:
        layer = layers[norm]
        reason = layer if isinstance(layer, str) else _obstacle(layer, norm, classes)
        if reason or isinstance(layer, str):
            unfolded[reason].append(names[norm][0])
            continue
        _fold(layer, norm)
        for name in names[norm]:
            folded.set_submodule(name, _rest(norm))
    if unfolded:
        lines = [f"{reason}: {', '.join(sorted(of_reason))}" for reason, of_reason in sorted(unfolded.items())]
        count = sum(map(len, unfolded.values()))
        warnings.warn(
            "\n- ".join([f"{count} of {len(norms)} batch norms cannot be folded and stay:", *lines]),
            UserWarning,
            stacklevel=2,
        )
    return folded


def check_eval(model: nn.Module) -> None:
    """Refuse what is no model, a compiled one, and one in training mode."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
    if hasattr(model, "_orig_mod"):
        raise TypeError("the model is compiled by torch.compile: pass the model itself, which model._orig_mod is")
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")


class _Classes:
    """The classes of norms and of layers, those of timm among them, which is not imported with this module."""

    def __init__(self) -> None:
        from timm.layers import BatchNormAct2d, Conv2dSame, FrozenBatchNormAct2d, Linear, SyncBatchNormAct

        self.norms: tuple[type[nn.Module], ...] = (_BatchNorm, FrozenBatchNormAct2d)
        self.layers: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear, ConcatConv2d)
        # Where a class defines how it computes. Any other class may compute something else, as timm's StdConv2d does.
        self.plain_norms = {_BatchNorm, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct, FrozenBatchNormAct2d}
        convolutions = {nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d}
        self.plain_layers = {*convolutions, nn.Linear, ConcatConv2d, PointwiseConv2d, Conv2dSame, Linear}


class _Tracer(torch.fx.Tracer):
    """Keeps norms and layers whole, also those of subclasses, and modules that cannot be traced."""

    def __init__(self, classes: _Classes) -> None:
        super().__init__()
        self.leaves = (*classes.norms, *classes.layers)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            path = self.path_of_module(m)
        except NameError:
            # Made during the call, for example a slice of an nn.Sequential.
            return forward(*args, **kwargs)
        if not isinstance(m, self.leaves) and not self.is_leaf_module(m, path):
            number = len(self.graph.nodes)
            try:
                return forward(*args, **kwargs)
            except Exception:
                # Control flow that depends on data, and whatever else stops a tracer in other people's modules.
                for node in reversed(list(self.graph.nodes)[number:]):
                    self.graph.erase_node(node)
        return self.create_proxy("call_module", path, args, kwargs)


def _layers_before(model: nn.Module, classes: _Classes) -> dict[nn.Module, nn.Module | str]:
    """The layer whose output is the input of a norm, and nothing else's; or why there is none."""
    found: dict[nn.Module, nn.Module | str] = defaultdict(lambda: "not reached by symbolic tracing")
    try:
        graph = _Tracer(classes).trace(model)
    except Exception:
        # As in call_module, but outside of any module that could stay whole.
        return found
    modules = {node: model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"}
    times = Counter(modules.values())
    # Owners of parameters that code outside of them uses.
    owners = {str(node.target).rpartition(".")[0] for node in graph.nodes if node.op == "get_attr"}
    for node, norm in modules.items():
        if not isinstance(norm, classes.norms):
            continue
        source: Any = next(iter((*node.args, *node.kwargs.values())))
        layer = modules.get(source)
        if times[norm] > 1:
            found[norm] = "called more than once"
        elif layer is None or not isinstance(layer, classes.layers):
            found[norm] = "not right after a convolution or a linear layer"
        elif times[layer] > 1:
            found[norm] = "after a layer that is called more than once"
        elif len(source.users) > 1:
            found[norm] = "after a layer whose output has another use"
        elif {node.target, source.target} & owners:
            found[norm] = "its parameters, or those of the layer before it, have another use"
        else:
            found[norm] = layer
    return found


def _obstacle(layer: Any, norm: Any, classes: _Classes) -> str:
    """Why a norm cannot be folded into the layer before it; empty if it can."""
    if norm.training:
        return "in training mode"
    if norm.running_mean is None or norm.running_var is None:
        return "without running statistics"
    if not _is_plain(norm, classes.plain_norms) or "forward" in vars(norm):
        return f"{type(norm).__name__} has a forward of its own"
    if not _is_plain(layer, classes.plain_layers) or "forward" in vars(layer):
        return f"after {type(layer).__name__}, which has a forward of its own"
    own = dict(layer.named_parameters(recurse=False))
    if "weight" not in own or (layer.bias is not None and "bias" not in own):
        return "after a layer that computes its weight or bias, for example with a parametrization"
    if any(module._forward_hooks or module._forward_pre_hooks for module in (layer, norm)):
        return "a forward hook sees the norm's input"
    if isinstance(layer, nn.Linear) and len(norm.running_mean) != layer.out_features:
        return "after a linear layer, along another dimension than its outputs"
    return ""


def _is_plain(module: nn.Module, plain: set[type[nn.Module]]) -> bool:
    """Whether a module computes as one of these classes, which it may extend otherwise."""
    methods = {"forward", "_conv_forward", "__call__"}
    return next(cls for cls in type(module).__mro__ if methods & vars(cls).keys()) in plain


def _fold(layer: Any, norm: Any) -> None:
    """Give the layer the weight and bias of both."""
    with torch.no_grad():
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        weight: Tensor = layer.weight
        bias = shift if layer.bias is None else layer.bias * scale + shift
        if isinstance(layer, _ConvTransposeNd):
            # Input channels come first, and output channels are counted within their group.
            grouped = weight.unflatten(0, (layer.groups, -1))
            rows = scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
            scaled = (grouped * rows).flatten(0, 1)
        else:
            scaled = weight * scale.view(-1, *[1] * (weight.dim() - 1))
        for name, value in (("weight", scaled), ("bias", bias)):
            # New parameters, because other layers may share the old ones.
            setattr(layer, name, nn.Parameter(value.to(weight.dtype), weight.requires_grad))


def _rest(norm: nn.Module) -> nn.Module:
    """What a norm does after normalizing: drop and activate, in timm's classes."""
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    rest = [part for part in parts if isinstance(part, nn.Module) and not isinstance(part, nn.Identity)]
    return rest[0] if len(rest) == 1 else nn.Sequential(*rest) if rest else nn.Identity()
