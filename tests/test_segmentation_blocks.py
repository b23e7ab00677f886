"""What the segmentation blocks promise beyond shapes."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mfsf2
from mfsf2.layers import foreground_probability
from mfsf2.layers.axial import AxisAttention


@pytest.mark.parametrize("along_width", [False, True])
def test_attention_is_along_the_right_axis(along_width: bool) -> None:
    """A change at one position reaches its own row, or its own column, and nothing else; the map is not square."""
    torch.manual_seed(0)
    attention = AxisAttention(8, 4, along_width, dtype=torch.float64)
    attention.gamma.data.fill_(1)
    x = torch.randn(1, 8, 5, 7, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 3, 2] += 1
    moved = (attention(changed) - attention(x)).abs().sum(1)[0] > 1e-9
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[(3, slice(None)) if along_width else (slice(None), 2)] = True
    assert torch.equal(moved, expected)


@pytest.mark.parametrize("along_width", [False, True])
def test_attention_is_the_formula(along_width: bool) -> None:
    torch.manual_seed(0)
    attention = AxisAttention(8, 4, along_width, dtype=torch.float64)
    attention.gamma.data.fill_(0.7)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    actual = attention(x)
    q, k, v = attention.query(x), attention.key(x), attention.value(x)
    for b in range(2):
        for i in range(3):
            for j in range(4):
                line = (b, slice(None), i) if along_width else (b, slice(None), slice(None), j)
                scores = (q[b, :, i, j] @ k[line]) / 4**0.5
                expected = x[b, :, i, j] + 0.7 * (v[line] * scores.softmax(0)).sum(1)
                torch.testing.assert_close(actual[b, :, i, j], expected, rtol=0, atol=1e-12)


def test_axial_attention_sees_the_whole_map() -> None:
    torch.manual_seed(0)
    attention = mfsf2.AxialAttention(16, dtype=torch.float64)
    attention.rows.gamma.data.fill_(1)
    attention.columns.gamma.data.fill_(1)
    x = torch.randn(1, 16, 5, 7, dtype=torch.float64)
    changed = x.clone()
    changed[0, :, 3, 2] += 1
    assert ((attention(changed) - attention(x)).abs().sum(1) > 1e-12).all()
    with pytest.raises(ValueError, match="channels=4 with reduction=8"):
        mfsf2.AxialAttention(4)


def test_reverse_attention_starts_as_the_plain_one() -> None:
    torch.manual_seed(0)
    step = mfsf2.ReverseAttention(16, 1, 8).eval()
    x, logits = torch.randn(2, 16, 10, 6), torch.randn(2, 1, 5, 4)
    coarse = F.interpolate(logits, size=(10, 6), mode="bilinear", align_corners=False)
    plain = coarse + step.out(step.conv2(step.conv1(x * (1 - coarse.sigmoid()))))
    torch.testing.assert_close(step(x, logits), plain, rtol=0, atol=1e-6)
    torch.testing.assert_close(step.axial(x), x, rtol=0, atol=0)


def test_foreground_probability() -> None:
    z = torch.randn(2, 1, 4, 5)
    two = torch.cat([torch.zeros_like(z), z], 1)
    torch.testing.assert_close(foreground_probability(two), foreground_probability(z))
    three = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(foreground_probability(three), three.softmax(1)[:, 1:].sum(1, keepdim=True))


def test_two_channels_with_softmax_are_one_with_sigmoid() -> None:
    """With logits (0, z) in two channels every step attends as with z in one, so z comes out the same."""
    torch.manual_seed(0)
    one = mfsf2.SegmentationHead([16, 8, 6], 1, 8).eval()
    two = mfsf2.SegmentationHead([16, 8, 6], 2, 8).eval()
    state = one.state_dict()
    for name, value in list(state.items()):
        if name.startswith("coarse.") or ".out." in name:
            state[name] = torch.cat([torch.zeros_like(value), value])
    two.load_state_dict(state)
    maps = [torch.randn(2, c, s, s + 1) for c, s in [(16, 12), (8, 6), (6, 3)]]
    for a, b in zip(one(maps, deep=True), two(maps, deep=True), strict=True):
        torch.testing.assert_close(b[:, 1:], a)
        torch.testing.assert_close(b[:, :1], torch.zeros_like(a))


def test_head_on_another_encoder() -> None:
    import timm

    encoder = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4))
    head = mfsf2.SegmentationHead(encoder.feature_info.channels(), num_classes=3)
    logits = head(encoder(torch.randn(2, 3, 65, 71)))
    assert logits.shape == (2, 3, 17, 18)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in [*encoder.parameters(), *head.parameters()])


def test_output_size() -> None:
    head = mfsf2.SegmentationHead([16, 8], 2, 8).eval()
    maps = (torch.randn(2, 16, 6, 5), torch.randn(2, 8, 3, 2))
    deep = head(maps, deep=True)
    for size in ((24, 21), (6, 5), (1, 3)):
        resized = [F.interpolate(y, size, mode="bilinear", align_corners=False) for y in deep]
        torch.testing.assert_close(head(maps, output_size=size), resized[-1])
        for a, b in zip(head(maps, deep=True, output_size=torch.Size(size)), resized, strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        # As segmentation_models_pytorch lists them: the image, sometimes an empty map, then the features.
        ((3, 64, 64, 128), r"entries \[0\] have fewer .*leave them out: pass in_chans\[1:\] and maps\[1:\]"),
        ([3, 0, 64, 128], r"entries \[0, 1\] .*pass in_chans\[2:\] and maps\[2:\]"),
        ([4, 16], r"entries \[0\] .*axial_reduction=8.*pass in_chans\[1:\]"),
        ([64, 7, 64], r"entries \[1\] .*: pass maps with more channels, or a smaller axial_reduction"),
        ([64, 0], r"entries \[1\] .*: pass maps with more channels"),
    ],
)
def test_lists_that_are_not_all_maps(channels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mfsf2.SegmentationHead(channels)
    if "pass in_chans" in message:
        rest = channels[channels.index(0) + 1 if 0 in channels else 1 :]
        assert mfsf2.SegmentationHead(rest).in_chans == list(rest)
    assert mfsf2.SegmentationHead([7, 64], axial_reduction=7).in_chans == [7, 64]


def test_single_pixel_of_a_single_sample() -> None:
    head = mfsf2.SegmentationHead([16, 8], 1, 8).train()
    maps = [torch.randn(1, 16, 2, 2), torch.randn(1, 8, 1, 1)]
    before = {name: value.clone() for name, value in head.state_dict().items()}
    with pytest.raises(ValueError, match="at least two samples in training mode"):
        head(maps)
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())
    assert head([maps[0], torch.randn(1, 8, 1, 2)]).shape == (1, 1, 2, 2)
    assert head.eval()(maps).shape == (1, 1, 2, 2)


def test_head_reset() -> None:
    head = mfsf2.SegmentationHead([16, 8], 1, 8).eval()
    kept = head.steps[0].axial.rows.query.weight
    head.reset(4)
    assert head.steps[0].axial.rows.query.weight is kept and not any(m.training for m in head.modules())
    maps = [torch.randn(2, 16, 6, 6), torch.randn(2, 8, 3, 3)]
    assert head(maps).shape == (2, 4, 6, 6) and head.num_classes == 4
    for bad in (0, -1):
        with pytest.raises(ValueError, match=f"num_classes={bad} must be at least 1"):
            head.reset(bad)
        with pytest.raises(ValueError, match=f"num_classes={bad} must be at least 1"):
            mfsf2.SegmentationHead([16], bad)
    assert head(maps).shape == (2, 4, 6, 6)
    with pytest.raises(ValueError, match="in_chans is empty"):
        mfsf2.SegmentationHead([])
    with pytest.raises(ValueError, match="maps holds 1 feature maps, expected 2"):
        head(maps[:1])
    with pytest.raises(ValueError, match="has 8 channels, expected 16"):
        head([maps[1], maps[1]])
    assert isinstance(mfsf2.SegmentationHead([16], drop_rate=0.2).drop, nn.Dropout2d)
