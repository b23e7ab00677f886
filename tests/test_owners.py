"""Every weight is used by the module that owns it, through a call: what replaces or watches a module has its effect."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from micro import TASKS, build
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import mfsf2
from mfsf2.layers import ConcatConv2d, SplitConv2d

BACKBONES = ("encoder.cnn", "encoder.transformer")


def inputs_of(model: Any, batch: int = 2) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(batch, 3, 64, 64, generator=generator)
    stack = torch.randn(batch, 4, 3, 48, 64, generator=generator)
    return (image, stack) if isinstance(model, mfsf2.MFSF2TwoModality) else (image,)


def total(outputs: Any) -> Tensor:
    return sum(y.square().mean() for y in ([outputs] if isinstance(outputs, Tensor) else outputs))


def flat(outputs: Any) -> Tensor:
    return torch.cat([y.flatten() for y in ([outputs] if isinstance(outputs, Tensor) else outputs)])


def convolutions(model: Any) -> dict[str, nn.Module]:
    """Every convolution of the fusion."""
    kinds = (nn.Conv2d, ConcatConv2d, SplitConv2d)
    found = {n: m for n, m in model.encoder.fusion.named_modules() if isinstance(m, kinds)}
    # Of each of four stages two to align, three to gate; four adapters and four of the pyramid.
    assert len(found) == 4 * 5 + 4 + 4
    return found


def silent(model: Any, function: Callable[..., Any]) -> set[str]:
    """The modules, of those that own a parameter and those of this library, whose hook does not fire."""
    fired: set[str] = set()
    watched = {
        name: module
        for name, module in model.named_modules()
        if list(module.parameters(recurse=False)) or type(module).__module__.startswith("mfsf2.")
    }
    # Beside these, whatever this library builds of torch's modules: dropout, activations, sequences.
    ours = ("encoder.fusion.", "head.", "mask_head.", "stem.")
    watched |= {
        name: module
        for name, module in model.named_modules()
        if name.startswith(ours) and not isinstance(module, nn.ModuleList)
    }
    hooks = [
        module.register_forward_hook(lambda *_, name=name: fired.add(name))
        for name, module in watched.items()
        if name and name not in BACKBONES
    ]
    function(*inputs_of(model))
    for hook in hooks:
        hook.remove()
    assert len(hooks) > 200
    return {name for name in watched if name and name not in (*fired, *BACKBONES)}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_a_hook_fires_on_every_module(task: str, training: bool) -> None:
    model = build(task).train(training)
    assert silent(model, model) == set()
    if task.endswith("clsseg"):
        for function, other in [(model.forward_logits, "mask_head"), (model.forward_masks, "head")]:
            assert {name.split(".")[0] for name in silent(model, function)} == {other}
        assert silent(model, model.forward_deep) == set()


TECHNIQUES: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "prune": (lambda conv: prune.l1_unstructured(conv, "weight", 0.2), "weight_orig"),
    "weight_norm, older form": (weight_norm, "weight_v"),
    "weight_norm": (parametrizations.weight_norm, "parametrizations.weight.original1"),
    "spectral_norm, older form": (spectral_norm, "weight_orig"),
    "spectral_norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize("task", TASKS)
def test_replaced_weights_train(task: str, technique: str) -> None:
    model = build(task)
    apply, original = TECHNIQUES[technique]
    plain = flat(model(*inputs_of(model)))
    for conv in convolutions(model).values():
        apply(conv)
    changed = flat(model(*inputs_of(model)))
    if "weight_norm" in technique:
        torch.testing.assert_close(changed, plain, rtol=1e-4, atol=1e-4)
    else:
        assert (changed - plain).abs().max() > 1e-5
    originals = {name: conv.get_parameter(original) for name, conv in convolutions(model).items()}
    before = {name: weight.detach().clone() for name, weight in originals.items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        total(model(*inputs_of(model))).backward()
        optimizer.step()
    for name, weight in originals.items():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name
        assert not torch.equal(weight, before[name]), name
    assert flat(model.eval()(*inputs_of(model))).isfinite().all()


class Counted(nn.Module):
    """Leaves a weight as it is, and counts how often it is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.times = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.times += 1
        return weight


@pytest.mark.parametrize("task", TASKS)
def test_every_weight_is_read_once(task: str) -> None:
    """A spectral norm goes one step further at every reading: two readings a pass would not be what it promises."""
    model = build(task)
    expected = flat(model(*inputs_of(model)))
    counters = {}
    for name, module in list(model.named_modules()):
        if "weight" in module._parameters and not name.startswith(BACKBONES):
            counters[name] = Counted()
            parametrize.register_parametrization(module, "weight", counters[name], unsafe=True)
    for counter in counters.values():
        counter.times = 0
    assert torch.equal(flat(model(*inputs_of(model))), expected)
    assert {name: counter.times for name, counter in counters.items() if counter.times != 1} == {}
    assert len(counters) >= 50


@pytest.mark.parametrize("task", TASKS)
def test_features_only_networks_checkpoint(task: str) -> None:
    gradients = []
    for enable in (False, True):
        model: Any = build(task, features_only=True).train()
        model.set_grad_checkpointing(enable)
        assert model.model.encoder.cnn.grad_checkpointing is enable
        torch.manual_seed(0)
        sum(y.pow(2).mean() for y in model(*inputs_of(model.model))).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_features_of_one_image_refuse_a_stack() -> None:
    model: Any = build("cls", features_only=True)
    image, stack = inputs_of(build("rcm_cls", device="meta"))
    with pytest.raises(TypeError, match="takes one image"):
        model(image, stack)


def test_the_convolution_of_a_concatenation() -> None:
    torch.manual_seed(3)
    conv = ConcatConv2d(5, 7, dtype=torch.float64)
    torch.manual_seed(3)
    plain = nn.Conv2d(10, 7, 1, dtype=torch.float64)
    assert {k: v.shape for k, v in conv.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert torch.equal(conv.weight, plain.weight) and torch.equal(conv.bias, plain.bias)
    a, b = (torch.randn(2, 5, 4, 3, dtype=torch.float64) for _ in range(2))
    s = torch.rand(2, 1, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(conv(a, b), plain(torch.cat([a, b], 1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(conv(a, b, s), plain(torch.cat([s * a, (1 - s) * b], 1)), rtol=0, atol=1e-12)


def test_the_convolution_of_a_split() -> None:
    torch.manual_seed(3)
    conv = SplitConv2d(8, 12, 5, groups=4, dtype=torch.float64)
    torch.manual_seed(3)
    plain = nn.Conv2d(8, 12, 5, groups=4, padding=2, bias=False, dtype=torch.float64)
    assert torch.equal(conv.weight, plain.weight) and conv.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 8, 6, 7, dtype=torch.float64)
    assert torch.equal(conv(x), plain(x))
    torch.testing.assert_close(conv(x, padding=0), plain(x)[:, :, 2:-2, 2:-2], rtol=0, atol=1e-12)


def test_a_padded_map_is_the_map() -> None:
    psa = mfsf2.PyramidSplitAttention(16, 64, dtype=torch.float64)
    x = torch.randn(2, 16, 5, 9, dtype=torch.float64)
    torch.testing.assert_close(psa(nn.functional.pad(x, [4] * 4), padded=True), psa(x), rtol=0, atol=1e-12)
