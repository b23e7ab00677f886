"""The fast forms depend on memory layout, size and autograd: all of them compute the same."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2
from mfsf2.layers import ConcatConv2d, PointwiseConv2d, adaptive_avg_pool, adaptive_pool_matrix
from mfsf2.layers.pooling import separable_product
from mfsf2.layers.tracing import may_overwrite

LAYOUTS = [torch.contiguous_format, torch.channels_last]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels_last"])
# Below, at and above the size up to which contiguous maps are pooled through a copy; 1 and 3 are enlarged; 28 and 21
# are divided evenly.
SIZES = [(1, 1), (3, 5), (7, 7), (16, 16), (17, 15), (20, 33), (28, 21)]


def random_map(*shape: int, layout: torch.memory_format, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype).contiguous(memory_format=layout)


@layouts
@pytest.mark.parametrize("size", SIZES)
def test_pooling_in_every_layout(layout: torch.memory_format, size: tuple[int, int]) -> None:
    x = random_map(2, 3, *size, layout=layout).requires_grad_()
    expected = F.adaptive_avg_pool2d(x, 7)
    rows, columns = (adaptive_pool_matrix(n, 7, x) for n in size)
    upstream = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad(expected, x, upstream)
    for y in (adaptive_avg_pool(x, 7), separable_product(rows, x, columns)):
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(torch.autograd.grad(y, x, upstream)[0], gradient, rtol=0, atol=1e-12)


def test_pooling_works_without_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on MPS, and on CUDA with deterministic algorithms."""
    x = torch.randn(2, 3, 20, 33, dtype=torch.float64)
    expected = adaptive_avg_pool(x, 7)
    monkeypatch.setattr("mfsf2.layers.pooling._needs_matrices", lambda x: True)
    monkeypatch.setattr(F, "adaptive_avg_pool2d", None)
    torch.testing.assert_close(adaptive_avg_pool(x, 7), expected, rtol=0, atol=1e-12)


def plain_logits(mffe: mfsf2.MFFE, x: Tensor) -> Tensor:
    """With the maximum and the minimum by autograd."""
    filtered = F.adaptive_avg_pool2d(x, mffe.grid_size).flatten(2).unsqueeze(2) * mffe.bank
    parts = (filtered.mean((2, 3)), filtered.amax(3).mean(2), filtered.amin(3).mean(2))
    return sum(mffe.fc2(F.relu(mffe.fc1(part))) for part in parts)


@layouts
@pytest.mark.parametrize("size", SIZES[2:])
@pytest.mark.parametrize("grid_size", [7, 14])
def test_gradients_of_mffe(layout: torch.memory_format, size: tuple[int, int], grid_size: int) -> None:
    mffe = mfsf2.MFFE(32, grid_size=grid_size, dtype=torch.float64)
    x = random_map(3, 32, *size, layout=layout).requires_grad_()
    inputs = [x, *mffe.parameters()]
    results = []
    for logits in (mffe.logits(x), plain_logits(mffe, x)):
        first = torch.autograd.grad(logits.sin().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append([logits, *first, *second])
    if min(size) < grid_size:
        # An enlarged map repeats its values, and any of the equal ones is the maximum: the first derivatives agree.
        results = [result[: 1 + len(inputs)] for result in results]
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(mffe.logits(x), results[0][0], rtol=0, atol=1e-12)


@layouts
def test_transforms_of_mffe(layout: torch.memory_format) -> None:
    """Gradients sample by sample, and a derivative in forward mode."""
    mffe = mfsf2.MFFE(32, dtype=torch.float64)
    x = random_map(3, 32, 9, 11, layout=layout)
    weights = dict(mffe.named_parameters())

    def loss(weights: dict[str, Tensor], one: Tensor) -> Tensor:
        return torch.func.functional_call(mffe, weights, (one.unsqueeze(0),)).sin().sum()

    per_sample = torch.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for i, one in enumerate(x):
        for name, gradient in torch.func.grad(loss)(weights, one).items():
            torch.testing.assert_close(per_sample[name][i], gradient)
    tangent = torch.randn_like(x)
    _, forward = torch.func.jvp(lambda x: mffe(x).sin().sum(), (x,), (tangent,))
    backward = torch.func.grad(lambda x: mffe(x).sin().sum())(x)
    torch.testing.assert_close(forward, (backward * tangent).sum())


@layouts
def test_vmap_of_blocks(layout: torch.memory_format) -> None:
    """Over inputs, over one of two, and over a single parameter."""
    x = torch.stack([random_map(2, 16, 9, 11, layout=layout) for _ in range(3)])
    y = random_map(2, 16, 9, 11, layout=layout)
    mffe, gate = mfsf2.MFFE(16, dtype=torch.float64), mfsf2.CrossBranchGate(16, dtype=torch.float64).eval()
    pyramid = mfsf2.MultiScalePyramid([16], 16, 64, dtype=torch.float64).eval()
    functions = (mffe, lambda one: gate(one, y), lambda one: gate(y, one), lambda one: pyramid([one], pooled=True))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            for function in functions:
                expected = torch.stack([function(one) for one in x])
                torch.testing.assert_close(torch.vmap(function)(x), expected, rtol=0, atol=1e-12)
            for name in ("attn_out.bias", "attn.conv.bias", "fuse.conv.weight"):
                several = torch.stack([gate.get_parameter(name) + i for i in range(3)])

                def one_gate(value: Tensor, name: str = name) -> Tensor:
                    return torch.func.functional_call(gate, {name: value}, (y, y))

                expected = torch.stack([one_gate(value) for value in several])
                torch.testing.assert_close(torch.vmap(one_gate)(several), expected, rtol=0, atol=1e-12)


def test_torch_jit_trace() -> None:
    """Its check calls the block a second time, without gradients."""
    x = torch.randn(1, 16, 9, 11)
    for block in (mfsf2.CrossBranchGate(16).eval(), mfsf2.FusionStage(16, 16, 16).eval()):
        traced = torch.jit.trace(block, (x, x))
        other = torch.randn(2, 16, 12, 7)
        torch.testing.assert_close(traced(other, other), block(other, other))


def test_torch_jit_script_after_symbolic_tracing() -> None:
    """What is wrapped for tracing is read by TorchScript, type comments included, as timm's own tests do."""
    x, y = torch.randn(2, 2, 16, 12, 7).unbind()
    for block in (mfsf2.CrossBranchGate(16).eval(), mfsf2.FusionStage(16, 16, 16).eval()):
        scripted = torch.jit.script(torch.fx.symbolic_trace(block))
        torch.testing.assert_close(scripted(x, y), block(x, y))


@layouts
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chans", [(6, 4), (1, 5), (6, 1)])
def test_pointwise_convolution(layout: torch.memory_format, bias: bool, chans: tuple[int, int]) -> None:
    conv = PointwiseConv2d(*chans, 1, bias=bias, dtype=torch.float64)
    plain = nn.Conv2d(*chans, 1, bias=bias, dtype=torch.float64)
    plain.load_state_dict(conv.state_dict())
    x = random_map(3, chans[0], 5, 7, layout=layout).requires_grad_()
    results = []
    for layer in (conv, plain):
        y = layer(x)
        results.append([y, *torch.autograd.grad(y.sin().sum(), [x, *layer.parameters()])])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "other", [dict(kernel_size=3), dict(stride=2), dict(padding=1), dict(padding="same"), dict(groups=2), {}]
)
def test_pointwise_convolution_with_other_arguments(other: dict[str, Any]) -> None:
    """Tools such as PEFT make layers of their own from the class of a layer."""
    arguments = {"kernel_size": 1, **other}
    conv, plain = PointwiseConv2d(6, 4, **arguments), nn.Conv2d(6, 4, **arguments)
    plain.load_state_dict(conv.state_dict())
    for x in (torch.randn(2, 6, 5, 7), torch.randn(6, 5, 7)):
        torch.testing.assert_close(conv(x), plain(x))


@layouts
def test_pointwise_convolution_under_autocast(layout: torch.memory_format) -> None:
    conv, x = PointwiseConv2d(6, 4, 1), random_map(3, 6, 5, 7, layout=layout, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), conv(x), rtol=0, atol=2e-2)


@layouts
@pytest.mark.parametrize("weighted", [False, True])
def test_concat_convolution_in_place(layout: torch.memory_format, weighted: bool) -> None:
    """Without autograd, results are overwritten; inputs, and with autograd anything that it needs, never."""
    conv = ConcatConv2d(6, 4, dtype=torch.float64)
    a, b = (random_map(3, 6, 5, 7, layout=layout) for _ in range(2))
    s: Any = torch.rand(3, 1, 5, 7, dtype=torch.float64) if weighted else None
    copies = [x.clone() for x in (a, b)]
    joined = torch.cat([a, b] if s is None else [s * a, (1 - s) * b], dim=1)
    expected = F.conv2d(joined, conv.weight, conv.bias)
    with torch.no_grad():
        assert may_overwrite()
        torch.testing.assert_close(conv(a, b, s), expected, rtol=0, atol=1e-12)
        # One of two inputs batched: nothing that is not batched can take up what is.
        several = torch.stack([b, b + 1])
        mapped = torch.vmap(lambda b: conv(a, b, s))(several)
        torch.testing.assert_close(mapped[0], expected.detach(), rtol=0, atol=1e-12)
        # Where one of them is broadcast, too.
        torch.testing.assert_close(conv(a[:1], b, s)[:1], expected.detach()[:1], rtol=0, atol=1e-12)
    assert not may_overwrite()
    torch.testing.assert_close(conv(a, b, s), expected, rtol=0, atol=1e-12)
    assert all(torch.equal(x, copy) for x, copy in zip((a, b), copies))
    inputs = (
        (a.requires_grad_(), b.requires_grad_())
        if s is None
        else (a.requires_grad_(), b.requires_grad_(), s.requires_grad_())
    )
    assert torch.autograd.gradcheck(conv, inputs) and torch.autograd.gradgradcheck(conv, inputs)
