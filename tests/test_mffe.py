"""MFFE in its forms: published, from the identity, channels last, tokens, and as attention layer of timm's models."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import mfsf2


def moved(block: nn.Module) -> Any:
    """The block with weights that gate, also if it starts as the identity."""
    for name, parameter in block.named_parameters():
        if name.endswith("fc2.weight"):
            nn.init.normal_(parameter, std=0.5)
    return block


def gates_of(model: nn.Module) -> list[mfsf2.MFFE]:
    return [module for module in model.modules() if isinstance(module, mfsf2.MFFE)]


@pytest.mark.parametrize(
    ("channels", "kwargs", "hidden"),
    [
        (256, {}, 16),
        (16, {}, 1),
        (15, {}, 1),
        (1, {}, 1),
        (8, dict(reduction=4), 2),
        (64, dict(rd_ratio=0.25), 16),
        (8, dict(rd_ratio=0.01), 1),
        (64, dict(rd_ratio=0.25, reduction=2), 16),
        (64, dict(rd_channels=5, rd_ratio=0.25, rd_divisor=8), 5),
        (100, dict(rd_ratio=0.25, rd_divisor=8), 24),
        (24, dict(rd_ratio=0.25, rd_divisor=8), 8),
    ],
)
def test_width_of_the_bottleneck(channels: int, kwargs: dict[str, Any], hidden: int) -> None:
    block = mfsf2.MFFE(channels, **kwargs)
    assert block.fc1.weight.shape == (hidden, channels) and block.fc2.weight.shape == (channels, hidden)
    assert block(torch.randn(2, channels, 5, 6)).shape == (2, channels, 5, 6)


@pytest.mark.parametrize("ratio", [1 / 16, 0.25, 0.0625, 0.5])
@pytest.mark.parametrize("divisor", [1, 4, 8])
def test_width_is_timms(ratio: float, divisor: int) -> None:
    for channels in (8, 24, 40, 96, 672):
        theirs = timm.layers.SEModule(channels, rd_ratio=ratio, rd_divisor=divisor).fc1.out_channels
        ours = mfsf2.MFFE(channels, rd_ratio=ratio, rd_divisor=divisor).fc1.out_features
        # timm rounds a half up before it divides, so a divisor of 1 may give one more.
        assert ours == theirs or (divisor == 1 and ours == theirs - 1 and (channels * ratio) % 1 >= 0.5)


def test_arguments() -> None:
    for kwargs, error, message in (
        (dict(channels=0), ValueError, "channels=0 must be at least 1"),
        (dict(reduction=0), ValueError, "reduction=0 must be at least 1"),
        (dict(rd_channels=0), ValueError, "rd_channels=0 must be at least 1"),
        (dict(rd_ratio=0.0), ValueError, "rd_ratio=0.0 must be positive"),
        (dict(rd_divisor=0), ValueError, "rd_divisor=0 must be at least 1"),
        (dict(data_format="HWC"), ValueError, "data_format='HWC': use 'NCHW' or 'NHWC'"),
        (dict(act_layer="silu"), TypeError, "act_layer='silu': pass a class"),
        (dict(gate_layer="hard_sigmoid"), TypeError, "gate_layer"),
    ):
        with pytest.raises(error, match=message):
            mfsf2.MFFE(**{"channels": 16, **kwargs})


def test_published_gate() -> None:
    x = torch.rand(2, 16, 5, 5) + 0.1
    block = mfsf2.MFFE(16)
    torch.testing.assert_close(block(x), x * block.logits(x).sigmoid()[:, :, None, None])


def test_identity() -> None:
    x = torch.randn(2, 16, 9, 5)
    block = mfsf2.MFFE(16, identity=True)
    assert torch.equal(block(x), x)
    moved(block)
    expected = x * (2 * block.logits(x).sigmoid())[:, :, None, None]
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(block(x), expected)
    block.reset_parameters()
    assert torch.equal(block(x), x)
    assert "identity=True" in repr(block)


def test_identity_learns_from_the_first_step() -> None:
    block = mfsf2.MFFE(16, identity=True)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    x, y = torch.randn(2, 16, 9, 5), torch.randn(2, 16, 9, 5)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = (block(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    assert losses[1] < losses[0]


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (14, 28), (56, 56), (5, 9)])
@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("is_contiguous", [False, True])
def test_channels_last_maps(size: tuple[int, int], identity: bool, is_contiguous: bool) -> None:
    first = moved(mfsf2.MFFE(16, identity=identity, dtype=torch.float64))
    last = mfsf2.MFFE(16, identity=identity, data_format="NHWC", dtype=torch.float64)
    last.load_state_dict(first.state_dict())
    x = torch.randn(2, 16, *size, dtype=torch.float64)
    y = x.permute(0, 2, 3, 1)
    y = (y.contiguous() if is_contiguous else y).requires_grad_()
    out, expected = last(y), first(x.requires_grad_()).permute(0, 2, 3, 1)
    torch.testing.assert_close(out, expected)
    weight = torch.randn_like(out)
    ours, theirs = torch.autograd.grad(out, y, weight), torch.autograd.grad(expected, x, weight)
    torch.testing.assert_close(ours[0], theirs[0].permute(0, 2, 3, 1))


def test_wrong_layout() -> None:
    with pytest.raises(ValueError, match=r"x has 5 channels, expected 16: .*\(B, C, H, W\), pass x.permute\(0, 2,"):
        mfsf2.MFFE(16, data_format="NHWC")(torch.randn(2, 16, 4, 5))
    with pytest.raises(ValueError, match=r"x must have shape \(B, H, W, 16\), got \[2, 9, 16\]"):
        mfsf2.MFFE(16, data_format="NHWC")(torch.randn(2, 9, 16))


@pytest.mark.parametrize(("prefix", "grid", "number"), [(1, None, 17), (0, None, 16), (5, (2, 7), 19), (0, (1, 3), 3)])
def test_tokens(prefix: int, grid: tuple[int, int] | None, number: int) -> None:
    block = moved(mfsf2.TokenMFFE(16, num_prefix_tokens=prefix, grid=grid))
    x = torch.randn(2, number, 16)
    y = block(x)
    assert torch.equal(y[:, :prefix], x[:, :prefix])
    maps = x[:, prefix:].transpose(1, 2).unflatten(2, grid or (4, 4))
    plain = mfsf2.MFFE(16)
    plain.load_state_dict(block.mffe.state_dict())
    torch.testing.assert_close(y[:, prefix:], plain(maps).flatten(2).transpose(1, 2))
    assert torch.equal(mfsf2.TokenMFFE(16, prefix, grid, identity=True)(x), x)


def test_tokens_that_are_no_grid() -> None:
    x = torch.randn(2, 17, 16)
    with pytest.raises(ValueError, match=r"17 tokens without num_prefix_tokens=0 are 17 patches, not a square grid"):
        mfsf2.TokenMFFE(16, num_prefix_tokens=0)(x)
    with pytest.raises(ValueError, match=r"are 16 patches, not 2x7 grid"):
        mfsf2.TokenMFFE(16, grid=(2, 7))(x)
    with pytest.raises(ValueError, match=r"are -3 patches"):
        mfsf2.TokenMFFE(16, num_prefix_tokens=20)(x)
    with pytest.raises(ValueError, match=r"x must hold tokens \(B, N, C\), got \[2, 16, 4, 4\]"):
        mfsf2.TokenMFFE(16)(torch.randn(2, 16, 4, 4))
    with pytest.raises(ValueError, match=r"x has 16 channels, expected 8"):
        mfsf2.TokenMFFE(8)(x)
    with pytest.raises(ValueError, match="rows of grid=0 must be at least 1"):
        mfsf2.TokenMFFE(8, grid=(0, 4))


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(identity: bool, dtype: torch.dtype) -> None:
    """The result has the dtype of the map, and is near that of full precision."""
    block = moved(mfsf2.MFFE(32, identity=identity))
    x = torch.randn(2, 32, 14, 14)
    expected = block(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert block.logits(x).dtype == torch.bfloat16
        y = block(x.to(dtype))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.02)
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


SLOTS: dict[str, dict[str, Any]] = {
    "resnet18": dict(block_args=dict(attn_layer=mfsf2.MFFE)),
    "skresnet18": dict(block_args=dict(attn_layer=mfsf2.MFFE)),
    "nf_seresnet26": dict(attn_layer=mfsf2.MFFE),
    "seresnext26ts": dict(attn_layer=mfsf2.MFFE),
    "efficientnet_b0": dict(se_layer=mfsf2.MFFE),
    "semnasnet_050": dict(se_layer=mfsf2.MFFE),
    "ese_vovnet19b_slim": dict(attn=partial(mfsf2.MFFE, bias=True)),
}


@pytest.mark.parametrize("name", SLOTS)
def test_slots_of_timms_models(name: str) -> None:
    model = timm.create_model(name, num_classes=3, **SLOTS[name])
    gates = gates_of(model)
    assert len(gates) > 3
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for gate in gates for p in gate.parameters())


def test_slots_pass_their_arguments() -> None:
    """The ratio of squeeze and excitation, and the host's activation."""
    gates = gates_of(timm.create_model("efficientnet_b0", se_layer=mfsf2.MFFE))
    assert all(isinstance(gate.act, nn.SiLU) and gate.fc1.bias is not None for gate in gates)
    se = timm.create_model("efficientnet_b0")
    widths = [m.conv_reduce.out_channels for m in se.modules() if type(m).__name__ == "SqueezeExcite"]
    assert [gate.fc1.out_features for gate in gates] == widths


def test_biases() -> None:
    x = torch.randn(2, 16, 4, 4)
    block = mfsf2.MFFE(16, bias=True)
    plain = mfsf2.MFFE(16)
    plain.load_state_dict({key: value for key, value in block.state_dict().items() if "bias" not in key})
    torch.testing.assert_close(block(x), plain(x))
    assert not any("bias" in key for key in plain.state_dict())
    assert (
        mfsf2.MFFE(16, rd_ratio=0.5).fc1.bias is not None and mfsf2.MFFE(16, rd_ratio=0.5, bias=False).fc1.bias is None
    )


def test_slot_of_a_pretrained_host(tmp_path: Path) -> None:
    """ResNets leave the weights of other layers as they are, so the block is the identity there."""
    # Random weights, but no residual is zero as in a fresh ResNet.
    host = timm.create_model("resnet18", zero_init_last=False).eval()
    torch.save(host.state_dict(), tmp_path / "resnet18.pth")
    weights = dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(tmp_path / "resnet18.pth")))
    block_args = dict(attn_layer=partial(mfsf2.MFFE, identity=True))
    with pytest.raises(RuntimeError, match="Missing key"):
        timm.create_model("resnet18", block_args=block_args, **weights)
    model = timm.create_model("resnet18", block_args=block_args, pretrained_strict=False, **weights).eval()
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(x), host(x), rtol=0, atol=1e-6)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    target: Tensor = torch.tensor([1, 2])
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for gate in gates_of(model) for p in gate.parameters())


def test_mffe_in_a_timm_resnet() -> None:
    model = timm.create_model("resnet50", block_args=dict(attn_layer=mfsf2.MFFE), num_classes=3)
    assert sum(isinstance(m, mfsf2.MFFE) for m in model.modules()) == 16
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(4, 3, 64, 64), torch.tensor([0, 1, 2, 0])
    losses = []
    for _ in range(6):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model = timm.create_model("resnet50", block_args=dict(attn_layer=mfsf2.MFFE), device="meta", dtype=torch.float64)
    assert all(p.is_meta and p.dtype == torch.float64 for p in model.parameters())
