"""What a model's modules return: found by running it, or in the ``feature_info`` of timm's models."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Example", "MapInfo", "infer_maps", "maps_of_feature_info"]

Example = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""Input of a model: a tensor, or a tuple or mapping of arguments."""


class MapInfo(NamedTuple):
    """Channels of a module's output, and where they are: ``"NCHW"``, ``"NHWC"`` or, for tokens, ``"NLC"``."""

    channels: int
    data_format: str


def infer_maps(
    model: nn.Module, targets: Mapping[str, nn.Module], example_input: Example, data_format: str | None = None
) -> dict[str, MapInfo]:
    """Run the model on an example and look at the outputs of some of its modules.

    Args:
        model: the model.
        targets: the modules by name.
        example_input: a tensor, or a tuple or mapping of arguments.
        data_format: where the channels are, as in :class:`MapInfo`; None to find out for maps.

    Raises:
        ValueError: a module that does not run, or whose output is not one map, or of which nobody can say where its
            channels are.
    """
    args, kwargs = _arguments(example_input)
    outputs = _run(model, targets, args, kwargs)
    for name, seen in outputs.items():
        _check_outputs(name, seen, data_format)
    formats = dict.fromkeys(targets, data_format)
    if data_format is None:
        formats = {name: _proportions(seen[0], *args, *kwargs.values()) for name, seen in outputs.items()}
        unclear = {name: targets[name] for name, found in formats.items() if found is None}
        formats.update(_formats_of_half(model, unclear, args, kwargs))
    declared = _declared_format(model)
    return {name: _map_info(name, outputs[name], formats[name] or declared) for name in targets}


def _arguments(example_input: Example) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments of an example."""
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    return (example_input if isinstance(example_input, tuple) else (example_input,)), {}


def _run(
    model: nn.Module, targets: Mapping[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, list[Any]]:
    """What the modules return, call by call, in one run of the model."""
    outputs: dict[str, list[Any]] = {name: [] for name in targets}
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, seen=outputs[name]: seen.append(output))
        for name, module in targets.items()
    ]
    try:
        with _in_eval_mode(model), torch.no_grad():
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for a while; afterwards, each module has its own mode again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _check_outputs(name: str, seen: list[Any], data_format: str | None) -> None:
    """Check that a module runs, and returns one map or tokens each time."""
    if not seen:
        raise ValueError(f"{name} does not run when the model is called on the example: pass a module that does")
    wanted, rank = ("tokens (B, N, C)", 3) if data_format == "NLC" else ("a map (B, C, H, W)", 4)
    for output in seen:
        if not isinstance(output, Tensor):
            raise ValueError(f"{name} returns a {type(output).__name__}, not {wanted}: pass a module inside it")
        if output.dim() != rank:
            hints = {3: "; for tokens (B, N, C), pass block=mfsf2.TokenMFFE", 5: "; volumes have no MFFE"}
            hint = hints.get(output.dim(), "") if rank == 4 else ""
            raise ValueError(f"{name} returns {list(output.shape)}, not {wanted}{hint}")


def _map_info(name: str, seen: list[Tensor], data_format: str | None) -> MapInfo:
    """Channels and layout of the outputs of one module, all its calls together."""
    if data_format is None:
        raise ValueError(
            f"{name} returns {list(seen[0].shape)}, where channels may come first or last: pass data_format='NCHW' or "
            "'NHWC'"
        )
    channels = {output.shape[1 if data_format == "NCHW" else -1] for output in seen}
    if len(channels) > 1:
        raise ValueError(f"{name} runs several times, with {sorted(channels)} channels: one block cannot gate them all")
    return MapInfo(channels.pop(), data_format)


def _formats_of_half(
    model: nn.Module, unclear: Mapping[str, nn.Module], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, str | None]:
    """The layouts that half of the image shows: of maps with as many channels as rows, the whole does not."""
    if not unclear:
        return {}
    args = tuple(value[..., : value.shape[3] // 2] if _is_image(value) else value for value in args)
    kwargs = {key: value[..., : value.shape[3] // 2] if _is_image(value) else value for key, value in kwargs.items()}
    try:
        outputs = _run(model, unclear, args, kwargs)
    except Exception:
        # Not every model takes another size. What the model declares decides then, or the user.
        return {}
    return {name: _proportions(seen[0], *args, *kwargs.values()) if seen else None for name, seen in outputs.items()}


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 4


def _proportions(output: Tensor, *inputs: Any) -> str | None:
    """Whether channels come first or last, because a grid has the proportions of the image; None if unclear."""
    height, width = next((x.shape[2:] for x in inputs if _is_image(x)), (1, 1))
    _, a, b, c = output.shape
    first, last = _is_scaled(b, c, height, width), _is_scaled(a, b, height, width)
    if first == last:
        return None
    return "NCHW" if first else "NHWC"


def _is_scaled(rows: int, columns: int, height: int, width: int) -> bool:
    """Whether a grid may be that of an image divided by one stride, up to rounding."""
    return abs(rows * width - columns * height) < max(height, width)


def _declared_format(model: nn.Module) -> str | None:
    """What timm's models say of the layout of their maps, if anything."""
    declared = getattr(model, "output_fmt", None)
    declared = getattr(declared, "value", declared)
    return declared if declared in ("NCHW", "NHWC") else None


def maps_of_feature_info(
    model: nn.Module, targets: Mapping[str, nn.Module], data_format: str | None = None
) -> dict[str, MapInfo]:
    """The same without running the model, for modules that timm lists in ``feature_info``.

    Raises:
        ValueError: a module that is not listed, or a transformer whose modules return tokens where maps are wanted.
    """
    if data_format != "NLC" and hasattr(model, "num_prefix_tokens"):
        # As timm's transformers name the number of tokens before the patches.
        raise ValueError(
            f"{type(model).__name__} works on tokens (B, N, C): pass block=mfsf2.TokenMFFE, or an example_input if the "
            "modules return maps"
        )
    info = getattr(model, "feature_info", None) or []
    entries = info.get_dicts() if hasattr(info, "get_dicts") else info
    # Other hooks look at what enters a module.
    listed = {e["module"]: e["num_chs"] for e in entries if e.get("hook_type", "forward") in ("", "forward")}
    for name in targets:
        if name not in listed:
            known = f"lists {', '.join(listed)} only" if listed else "is missing"
            raise ValueError(
                f"the channels of {name} are unknown, because the model's feature_info {known}: pass an example_input, "
                "such as torch.zeros(1, 3, 224, 224)"
            )
    data_format = data_format or _declared_format(model) or "NCHW"
    return {name: MapInfo(listed[name], data_format) for name in targets}
