"""Every block through the same tests: shapes, dtypes, devices, gradients, layouts, compilation, errors."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mfsf2


def flat(output: Any) -> list[Tensor]:
    """All tensors of an output."""
    return [output] if isinstance(output, Tensor) else [t for item in output for t in flat(item)]


@dataclass(frozen=True)
class Block:
    """How to build a block and call it."""

    name: str
    build: Callable[..., nn.Module]
    chans: tuple[int, ...]
    out_chans: tuple[int, ...]
    as_lists: bool = False
    out_size: Callable[[tuple[int, int]], list[tuple[int, ...]]] = lambda size: [size]

    def inputs(self, size: tuple[int, int], batch: int = 2, **kwargs: Any) -> list[Any]:
        maps = [torch.randn(batch, c, *size, **kwargs) for c in self.chans]
        if not self.as_lists:
            return maps
        return [maps[: len(maps) // 2], maps[len(maps) // 2 :]] if self.name == "MultiFreqMultiScaleFusion" else [maps]


def _fusion(**kwargs: Any) -> nn.Module:
    return mfsf2.MultiFreqMultiScaleFusion([6, 8], [5, 7], 16, 16, 64, **kwargs)


def _moved(mffe: mfsf2.MFFE) -> mfsf2.MFFE:
    """Give a block that starts as the identity weights that gate."""
    if not mffe.fc2.weight.is_meta:
        nn.init.normal_(mffe.fc2.weight)
    return mffe


def _awake(module: nn.Module) -> nn.Module:
    """Give the gammas of axial attention, which start at 0, a value at which all that lies behind them matters."""
    for name, parameter in module.named_parameters():
        if name.endswith("gamma"):
            parameter.data.fill_(0.5)
    return module


BLOCKS = [
    Block("MFFE", lambda **kw: mfsf2.MFFE(16, **kw), (16,), (16,)),
    Block("MFFE from identity", lambda **kw: _moved(mfsf2.MFFE(16, identity=True, **kw)), (16,), (16,)),
    Block(
        "DualBranchAlign",
        lambda **kw: mfsf2.DualBranchAlign(6, 5, 8, **kw),
        (6, 5),
        (8, 8),
        out_size=lambda s: [s, s],
    ),
    Block("CrossBranchGate", lambda **kw: mfsf2.CrossBranchGate(8, **kw), (8, 8), (8,)),
    Block("FusionStage", lambda **kw: mfsf2.FusionStage(6, 5, 16, **kw), (6, 5), (16,)),
    Block("PyramidSplitAttention", lambda **kw: mfsf2.PyramidSplitAttention(16, 64, **kw), (16,), (64,)),
    Block(
        "MultiScalePyramid",
        lambda **kw: mfsf2.MultiScalePyramid([6, 5], 16, 64, **kw),
        (6, 5),
        (64,),
        as_lists=True,
        out_size=lambda s: [(14, 14)],
    ),
    Block(
        "MultiFreqMultiScaleFusion",
        _fusion,
        (6, 8, 5, 7),
        (16, 16, 64),
        as_lists=True,
        out_size=lambda s: [s, s, ()],
    ),
    Block(
        "ClassificationHead",
        lambda **kw: mfsf2.ClassificationHead(6, 4, 12, **kw),
        (6,),
        (4,),
        out_size=lambda s: [()],
    ),
    Block("AxialAttention", lambda **kw: _awake(mfsf2.AxialAttention(16, **kw)), (16,), (16,)),
    Block("ReverseAttention", lambda **kw: _awake(mfsf2.ReverseAttention(16, 3, 8, **kw)), (16, 3), (3,)),
    Block(
        "SegmentationHead",
        lambda **kw: _awake(mfsf2.SegmentationHead([16, 8, 6], 2, 8, **kw)),
        (16, 8, 6),
        (2,),
        as_lists=True,
    ),
]
every_block = pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)


@every_block
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (7, 7), (9, 16)])
def test_shapes_at_any_size(block: Block, size: tuple[int, int]) -> None:
    outputs = flat(block.build().eval()(*block.inputs(size)))
    expected = [(2, c, *s) for c, s in zip(block.out_chans, block.out_size(size), strict=True)]
    assert [tuple(y.shape) for y in outputs] == expected
    assert all(y.isfinite().all() for y in outputs)


@every_block
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(block: Block, dtype: torch.dtype) -> None:
    module = block.build(dtype=dtype).eval()
    assert {t.dtype for t in module.state_dict().values()} <= {dtype, torch.int64}
    inputs = block.inputs((5, 7), dtype=dtype)
    for y, exact in zip(flat(module(*inputs)), flat(module.double()(*_cast(inputs, torch.float64)))):
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=1e-12 if dtype == torch.float64 else 5e-2)


def _cast(inputs: list[Any], dtype: torch.dtype) -> list[Any]:
    return [_cast(x, dtype) if isinstance(x, list) else x.to(dtype) for x in inputs]


@every_block
def test_device(block: Block) -> None:
    module = block.build(device="meta")
    assert all(t.is_meta for t in [*module.parameters(), *module.buffers()])
    assert all(y.is_meta for y in flat(module.eval()(*block.inputs((5, 7), device="meta"))))


@every_block
def test_gradcheck(block: Block) -> None:
    torch.manual_seed(0)
    module = block.build(dtype=torch.float64).eval()
    inputs = block.inputs((4, 3), batch=1, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in flat(inputs)]
    # The smallest parameter stands for all: a full Jacobian by finite differences takes minutes.
    leaves += [min(module.parameters(), key=lambda p: p.numel())]

    def run(*_: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(module(*inputs)))

    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)


@every_block
def test_every_parameter_has_a_gradient(block: Block) -> None:
    torch.manual_seed(0)
    # Before a norm that takes the batch's mean, the gradient of a bias is nothing but rounding.
    module = block.build().eval()
    sum(y.square().sum() for y in flat(module(*block.inputs((6, 5), batch=4)))).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@every_block
def test_channels_last(block: Block) -> None:
    module = block.build().eval()
    inputs = block.inputs((6, 5))
    expected = flat(module(*inputs))
    last = [x.to(memory_format=torch.channels_last) for x in flat(inputs)]
    half = len(last) // 2
    arguments = last if not block.as_lists else ([last] if len(inputs) == 1 else [last[:half], last[half:]])
    for y, e in zip(flat(module.to(memory_format=torch.channels_last)(*arguments)), expected):
        torch.testing.assert_close(y, e, rtol=1e-5, atol=1e-5)


@every_block
def test_autocast(block: Block) -> None:
    module = block.build()
    inputs = block.inputs((6, 5), batch=4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = flat(module(*inputs))
    sum(y.float().square().sum() for y in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    module.eval()
    with torch.no_grad():
        expected = flat(module(*inputs))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = flat(module(*inputs))
    for y, e in zip(outputs, expected):
        assert (y.float() - e).norm() <= 0.03 * e.norm()


@every_block
def test_samples_are_independent(block: Block) -> None:
    module = block.build().eval()
    inputs = block.inputs((6, 5), batch=3)
    together = flat(module(*inputs))
    alone = flat(module(*[[x[1:2] for x in i] if isinstance(i, list) else i[1:2] for i in inputs]))
    for t, a in zip(together, alone):
        torch.testing.assert_close(t[1:2], a, rtol=1e-5, atol=1e-6)


@every_block
def test_copies(block: Block) -> None:
    module = block.build().eval()
    inputs = block.inputs((6, 5))
    expected = flat(module(*inputs))
    loaded = block.build().eval()
    loaded.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), loaded):
        assert all(torch.equal(y, e) for y, e in zip(flat(twin(*inputs)), expected))


@pytest.mark.compile
@every_block
def test_compiles_to_one_graph(block: Block) -> None:
    torch._dynamo.reset()
    module = block.build().eval()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager", dynamic=True)
    for size in [(6, 5), (9, 12)]:
        inputs = block.inputs(size)
        for y, e in zip(flat(compiled(*inputs)), flat(module(*inputs))):
            torch.testing.assert_close(y, e, rtol=0, atol=1e-4)


@every_block
def test_bad_input(block: Block) -> None:
    module = block.build().eval()

    def call(change: Callable[[Tensor], Tensor]) -> None:
        maps = flat(block.inputs((6, 5)))
        maps = [change(maps[0]), *maps[1:]]
        half = len(maps) // 2
        if not block.as_lists:
            module(*maps)
        elif block.name == "MultiFreqMultiScaleFusion":
            module(maps[:half], maps[half:])
        else:
            module(maps)

    chans = block.chans[0]
    with pytest.raises(ValueError, match=rf"shape \(B, {chans}, H, W\), got \[{chans}, 6, 5\]"):
        call(lambda x: x[0])
    with pytest.raises(ValueError, match=f"has {chans - 1} channels, expected {chans}"):
        call(lambda x: x[:, 1:])
    with pytest.raises(ValueError, match=rf"has 5 channels, expected {chans}.*x\.permute\(0, 3, 1, 2\)"):
        call(lambda x: torch.randn(2, 5, 6, chans))
    for dtype in (torch.int64, torch.float64, torch.float16, torch.bfloat16):
        with pytest.raises(RuntimeError):
            call(lambda x, dtype=dtype: x.to(dtype))
    if len(block.chans) > 1 and block.name != "DualBranchAlign":
        # Not broadcast. The two outputs of the alignment are each other's business only where they are fused.
        with pytest.raises((ValueError, RuntimeError), match=r"must be equal|must match"):
            call(lambda x: x[:1])


def test_gate_needs_one_grid() -> None:
    with pytest.raises(ValueError, match=r"r and p have shapes \[1, 8, 4, 4\] and \[1, 8, 5, 4\]"):
        mfsf2.CrossBranchGate(8)(torch.randn(1, 8, 4, 4), torch.randn(1, 8, 5, 4))
    with pytest.raises(ValueError, match="must be equal"):
        mfsf2.CrossBranchGate(8)(torch.randn(1, 8, 4, 4), torch.randn(1, 8, 1, 1))


def test_align_resizes_the_cnn_map() -> None:
    align = mfsf2.DualBranchAlign(6, 5, 8).eval()
    r, p = torch.randn(2, 6, 10, 12), torch.randn(2, 5, 7, 9)
    resized = nn.functional.interpolate(r, (7, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(align(r, p)[0], align(resized, p)[0])
    kernels = mfsf2.DualBranchAlign(6, 5, 8, cnn_kernel_size=3, transformer_kernel_size=1)
    assert kernels.cnn.conv.kernel_size == (3, 3) and kernels.transformer.conv.kernel_size == (1, 1)
    with pytest.raises(ValueError, match="kernel_size=2 must be odd"):
        mfsf2.DualBranchAlign(6, 5, 8, cnn_kernel_size=2)


def test_psa_arguments() -> None:
    with pytest.raises(ValueError, match="16 must divide in_chans=24"):
        mfsf2.PyramidSplitAttention(24, 64)
    with pytest.raises(ValueError, match="the 8 channels of one kernel size"):
        mfsf2.PyramidSplitAttention(16, 32)
    with pytest.raises(ValueError, match="out_chans=66 must be divisible"):
        mfsf2.PyramidSplitAttention(16, 66)
    with pytest.raises(ValueError, match="must be odd"):
        mfsf2.PyramidSplitAttention(16, 64, kernel_sizes=(3, 4, 5, 7))
    with pytest.raises(ValueError, match="the same length"):
        mfsf2.PyramidSplitAttention(16, 64, kernel_sizes=(3, 5), groups=(1,))


@pytest.mark.parametrize("size", [(1, 1), (3, 14), (14, 14), (20, 9)])
def test_pooled_is_the_mean_of_the_map(size: tuple[int, int]) -> None:
    psa = mfsf2.PyramidSplitAttention(16, 64, dtype=torch.float64)
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    torch.testing.assert_close(psa.pooled(x), psa(x).mean((2, 3)), rtol=0, atol=1e-12)
    pyramid = mfsf2.MultiScalePyramid([6, 5], 16, 64, dtype=torch.float64).eval()
    maps = [torch.randn(2, c, *size, dtype=torch.float64) for c in (6, 5)]
    torch.testing.assert_close(pyramid(maps, pooled=True), pyramid(maps).mean((2, 3)), rtol=0, atol=1e-12)


def test_number_of_maps() -> None:
    fusion = _fusion().eval()
    (block,) = (b for b in BLOCKS if b.name == "MultiFreqMultiScaleFusion")
    r, p = block.inputs((6, 5))
    with pytest.raises(ValueError, match="cnn_maps holds 1 feature maps, expected 2"):
        fusion(r[:1], p)
    with pytest.raises(ValueError, match="transformer_maps holds 3 feature maps, expected 2"):
        fusion(r, [*p, p[0]])
    with pytest.raises(ValueError, match="maps holds 0 feature maps"):
        fusion.pyramid([])
    with pytest.raises(ValueError, match="cnn_chans has 2 stages and transformer_chans 1"):
        mfsf2.MultiFreqMultiScaleFusion([6, 8], [5])
    with pytest.raises(ValueError, match="at least one"):
        mfsf2.MultiFreqMultiScaleFusion([], [])
    with pytest.raises(ValueError, match="size=0"):
        mfsf2.MultiScalePyramid([8], 16, 64, size=0)


def test_head_arguments() -> None:
    with pytest.raises(ValueError, match="num_classes=-1"):
        mfsf2.ClassificationHead(6, -1)
    with pytest.raises(ValueError, match="global_pool='' with num_classes=3"):
        mfsf2.ClassificationHead(6, 3, global_pool="")
    with pytest.raises(ValueError, match="at least two samples in training mode"):
        mfsf2.ClassificationHead(6, 3)(torch.randn(1, 6, 4, 4))
    assert mfsf2.ClassificationHead(6, 3, None).train()(torch.randn(1, 6, 4, 4)).shape == (1, 3)
