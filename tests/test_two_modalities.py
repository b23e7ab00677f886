"""The second modality: what the stem computes, and every combination of what may be missing."""

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from micro import build
from torch import Tensor
from torch.nn import functional as F

import mfsf2

NAN = float("nan")


@pytest.fixture(scope="module")
def network() -> Any:
    model = build("rcm_cls")
    torch.nn.init.normal_(model.stem.slices.weight, std=0.2)
    return model


def pair(batch: int = 4, size: tuple[int, int] = (64, 96), stack: tuple[int, int] = (80, 48)) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image = torch.randn(batch, 3, *size, generator=generator)
    return image, torch.randn(batch, 4, 3, *stack, generator=generator)


def mask(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def resized(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=False)


@pytest.mark.parametrize(
    ("num_slices", "in_chans", "out_chans"), [(4, 3, 3), (1, 3, 3), (7, 1, 3), (2, 5, 5), (3, 1, 1)]
)
def test_stem_starts_as_the_mean_over_slices(num_slices: int, in_chans: int, out_chans: int) -> None:
    stem = mfsf2.SliceStem(num_slices, in_chans, out_chans, dtype=torch.float64)
    stack = torch.randn(2, num_slices, in_chans, 5, 8, dtype=torch.float64)
    mean = stack.mean(1) if in_chans == out_chans else stack.mean((1, 2))[:, None].expand(-1, out_chans, -1, -1)
    torch.testing.assert_close(stem(stack), mean, rtol=0, atol=1e-12)
    stem.weight.data.fill_(NAN)
    stem.bias.data.fill_(NAN)
    stem.reset_parameters()
    torch.testing.assert_close(stem(stack), mean, rtol=0, atol=1e-12)


def test_stem_is_a_3d_convolution_over_all_slices() -> None:
    stem = mfsf2.SliceStem(4, 3, 3, dtype=torch.float64)
    torch.nn.init.normal_(stem.weight)
    torch.nn.init.normal_(stem.bias)
    stack = torch.randn(2, 4, 3, 6, 9, dtype=torch.float64)
    kernel = stem.weight.unflatten(1, (4, 3)).transpose(1, 2)
    expected = F.conv3d(stack.transpose(1, 2), kernel, stem.bias, padding=(0, 1, 1))
    assert expected.shape[2] == 1
    torch.testing.assert_close(stem(stack), expected[:, :, 0], rtol=0, atol=1e-12)


def test_slices_of_one_channel_are_repeated() -> None:
    stem = mfsf2.SliceStem(4)
    torch.nn.init.normal_(stem.weight)
    stack = torch.randn(2, 4, 1, 6, 9)
    torch.testing.assert_close(stem(stack), stem(stack.repeat(1, 1, 3, 1, 1)))
    for block in (mfsf2.TwoModalityStem(), mfsf2.TwoModalityStem(slice_chans=1)):
        first, second = block.eval()(None, stack)
        torch.testing.assert_close(first, stack.mean(1).repeat(1, 3, 1, 1))
        torch.testing.assert_close(second, first)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_sizes_and_dtypes(size: tuple[int, int], dtype: torch.dtype) -> None:
    block = mfsf2.TwoModalityStem(dtype=dtype).eval()
    image, stack = torch.randn(2, 3, 6, 4).to(dtype), torch.randn(2, 4, 3, *size).to(dtype)
    first, second = block(image, stack, mask(1, 0), mask(0, 1))
    assert first.dtype == second.dtype == dtype and first.shape == (2, 3, 6, 4) and second.shape == (2, 3, *size)
    assert first.isfinite().all() and second.isfinite().all()


def test_device() -> None:
    block = mfsf2.TwoModalityStem(device="meta")
    assert all(parameter.is_meta for parameter in block.parameters())
    image, stack = pair()
    first, second = block.eval()(image.to("meta"), stack.to("meta"))
    assert first.is_meta and second.shape == (4, 3, 80, 48)


def test_gradcheck() -> None:
    block = mfsf2.TwoModalityStem(num_slices=2, drop_rate=0, dtype=torch.float64)
    image = torch.randn(3, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    stack = torch.randn(3, 2, 3, 3, 5, dtype=torch.float64, requires_grad=True)
    masks = (mask(1, 0, 1), mask(1, 1, 0))

    def run(image: Tensor, stack: Tensor, weight: Tensor) -> Any:
        del weight
        return block(image, stack, *masks)

    assert torch.autograd.gradcheck(run, (image, stack, block.slices.weight), fast_mode=True)


def test_copies_and_channels_last() -> None:
    block = mfsf2.TwoModalityStem(dtype=torch.float64).eval()
    torch.nn.init.normal_(block.slices.weight)
    inputs = [x.double() for x in pair()]
    expected = block(*inputs)
    twins = [copy.deepcopy(block), pickle.loads(pickle.dumps(block))]
    for twin in [*twins, copy.deepcopy(block).to(memory_format=torch.channels_last)]:
        for a, b in zip(twin(*inputs), expected):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.compile
def test_compiles_with_masks_and_sizes_of_its_own() -> None:
    block = mfsf2.TwoModalityStem().eval()
    torch.nn.init.normal_(block.slices.weight)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=True)
    for stack_size in [(40, 32), (31, 50)]:
        inputs = (*pair(stack=stack_size), mask(1, 0, 1, 1), mask(1, 1, 0, 1))
        for a, b in zip(compiled(*inputs), block(*inputs)):
            torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="each sample needs its image or its stack"):
        compiled(*pair(), mask(1, 0, 1, 1), mask(1, 0, 0, 1))


def test_no_stack_is_the_one_modality_network(network: Any) -> None:
    single = build("cls", num_classes=8)
    single.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("stem.")})
    image, stack = pair()
    assert torch.equal(network(image), single(image))
    assert torch.equal(network(image, image_mask=mask(1, 1, 1, 1)), single(image))
    # Equal sizes: the same per sample.
    _, stack = pair(stack=(64, 96))
    torch.testing.assert_close(network(image, stack, None, mask(0, 0, 0, 0)), single(image))


def test_no_image_is_the_one_modality_network_on_slices(network: Any) -> None:
    _, stack = pair()
    cnn_maps, transformer_maps = network.encoder(stack.mean(1), network.stem.slices(stack))
    _, pyramid = network.encoder.fusion(cnn_maps, transformer_maps)
    pooled = torch.cat([cnn_maps[3].mean((2, 3)), transformer_maps[3].mean((2, 3)), pyramid], 1)
    expected = network.forward_head(pooled[:, :, None, None])
    torch.testing.assert_close(network(None, stack), expected)
    torch.testing.assert_close(network(stack=stack, stack_mask=mask(1, 1, 1, 1)), expected)
    fresh = build("rcm_cls")
    torch.testing.assert_close(fresh(None, stack), fresh(stack.mean(1)), rtol=1e-4, atol=1e-5)


def test_all_present_is_no_masks(network: Any) -> None:
    expected = network(*pair())
    every = mask(1, 1, 1, 1)
    for image_mask, stack_mask in itertools.product((None, every), repeat=2):
        assert torch.equal(network(*pair(), image_mask, stack_mask), expected)


@pytest.mark.parametrize("image_present", list(itertools.product((0, 1), repeat=3)))
@pytest.mark.parametrize("stack_present", list(itertools.product((0, 1), repeat=3)))
def test_every_combination_of_masks(image_present: tuple[int, ...], stack_present: tuple[int, ...]) -> None:
    """Against the rule, sample by sample."""
    block = mfsf2.TwoModalityStem().eval()
    torch.nn.init.normal_(block.slices.weight)
    image, stack = pair(3)
    lacking = [i for i, both in enumerate(zip(image_present, stack_present)) if not any(both)]
    if lacking:
        with pytest.raises(ValueError, match=rf"its image or its stack: missing for the samples \{lacking}"):
            block(image, stack, mask(*image_present), mask(*stack_present))
        return
    first, second = block(image, stack, mask(*image_present), mask(*stack_present))
    for i, (has_image, has_stack) in enumerate(zip(image_present, stack_present)):
        merged = block.slices(stack[i : i + 1])
        expected_first = image[i : i + 1] if has_image else resized(stack[i : i + 1].mean(1), image)
        expected_second = merged if has_stack else resized(image[i : i + 1], stack)
        torch.testing.assert_close(first[i : i + 1], expected_first)
        torch.testing.assert_close(second[i : i + 1], expected_second)


@pytest.mark.parametrize("placeholder", [NAN, float("inf"), 1e30])
def test_placeholders_change_neither_outputs_nor_gradients(placeholder: float, network: Any) -> None:
    image_mask, stack_mask = mask(1, 0, 1, 1), mask(1, 1, 0, 1)
    results = []
    for value in (0.0, placeholder):
        image, stack = pair()
        image[1], stack[2] = value, value
        image.requires_grad_()
        stack.requires_grad_()
        twin = copy.deepcopy(network)
        output = twin(image, stack, image_mask, stack_mask)
        output.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in twin.named_parameters()}
        results.append((output, gradients, image.grad, stack.grad))
    (output, gradients, image_grad, stack_grad), (other, other_gradients, other_image, other_stack) = results
    assert torch.equal(output, other) and output.isfinite().all()
    assert torch.equal(image_grad, other_image) and torch.equal(stack_grad, other_stack)
    assert not image_grad[1].any() and not stack_grad[2].any()
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)
    assert gradients["stem.slices.weight"].abs().sum() > 0


def test_samples_do_not_depend_on_what_others_miss(network: Any) -> None:
    image, stack = pair()
    expected = network(image, stack, mask(1, 0, 1, 1), mask(1, 1, 0, 1))
    both = network(image, stack)
    torch.testing.assert_close(expected[[0, 3]], both[[0, 3]], rtol=1e-5, atol=1e-6)
    for others in (mask(0, 0, 0, 1), mask(1, 0, 1, 0)):
        changed = network(image, stack, others, mask(1, 1, 1, 1))
        torch.testing.assert_close(changed[1], expected[1], rtol=1e-5, atol=1e-6)
    alone = network(image[2:3], stack[2:3], None, mask(0))
    torch.testing.assert_close(alone[0], expected[2], rtol=1e-4, atol=1e-5)


def test_modality_dropout() -> None:
    block = mfsf2.TwoModalityStem(drop_rate=0.5)
    torch.nn.init.normal_(block.slices.weight)
    image, stack = pair(400, (4, 4), (3, 3))
    torch.manual_seed(7)
    first, second = block(image, stack)
    torch.manual_seed(7)
    again = block(image, stack)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    lost_image = (first != image).flatten(1).any(1)
    lost_stack = (second != block.slices(stack)).flatten(1).any(1)
    assert not (lost_image & lost_stack).any()
    # 400 draws of a quarter: 100, with a standard deviation of 9.
    assert 60 < lost_image.sum() < 140 and 60 < lost_stack.sum() < 140
    for part, other, lost in ((first, stack.mean(1), lost_image), (second, image, lost_stack)):
        torch.testing.assert_close(part[lost], resized(other, part)[lost])
    quiet = block.eval()(image, stack)
    assert torch.equal(quiet[0], image) and torch.equal(quiet[1], block.slices(stack))


def test_modality_dropout_leaves_single_modalities_alone() -> None:
    block = mfsf2.TwoModalityStem(drop_rate=1.0)
    image, stack = pair()
    first, second = block(image, stack, mask(0, 1, 0, 1), mask(1, 0, 1, 0))
    block.eval()
    expected = block(image, stack, mask(0, 1, 0, 1), mask(1, 0, 1, 0))
    assert torch.equal(first, expected[0]) and torch.equal(second, expected[1])
    assert torch.equal(block.train()(image)[1], image)


def test_slices_have_one_channel_or_the_image_s() -> None:
    for slice_chans in (0, 2, 5):
        with pytest.raises(ValueError, match=f"slices of {slice_chans} channels for images of 3: use 1 or 3"):
            build("rcm_cls", slice_chans=slice_chans)
    grey = build("rcm_cls", in_chans=1)
    assert grey(torch.randn(1, 1, 64, 64), torch.randn(1, 4, 1, 40, 64)).shape == (1, 8)


BAD: list[tuple[Callable[[Tensor, Tensor], tuple[Any, ...]], type[Exception], str]] = [
    (lambda i, s: (None, None), ValueError, "image and stack are both missing"),
    (lambda i, s: (i, s[:, :, 0]), ValueError, r"stack must have shape \(B, 4, 3 or 1, H, W\), got \[4, 4, 80, 48\]"),
    (lambda i, s: (i, s[:, :3]), ValueError, r"stack must have .*\[4, 3, 3, 80, 48\]"),
    (lambda i, s: (i, s[:, :, :2]), ValueError, r"stack must have .*\[4, 4, 2, 80, 48\]"),
    (lambda i, s: (i, s.permute(0, 1, 3, 4, 2)), ValueError, r"stack must have .*\[4, 4, 80, 48, 3\]"),
    (lambda i, s: (i, s.to(torch.uint8)), TypeError, r"stack is torch\.uint8.*255"),
    (lambda i, s: (i.to(torch.uint8), s), TypeError, r"image is torch\.uint8.*255"),
    (lambda i, s: (i, s[:0]), ValueError, "stack is an empty batch"),
    (lambda i, s: (i, s[..., :20]), ValueError, "stack is 80x20 pixels: the minimum is 29x29"),
    (lambda i, s: (i[..., :20], s), ValueError, "image is 64x20 pixels: the minimum is 29x29"),
    (lambda i, s: (i[0], s[:3]), ValueError, "image must have shape"),
    (lambda i, s: (i[:2], s), ValueError, r"image and stack have shapes \[2, .*\[4, "),
    (lambda i, s: (i, s, mask(1, 1, 1)), ValueError, r"image_mask has shape \[3\], expected \[4\]"),
    (lambda i, s: (i, s, None, mask(1, 1, 1, 1)[None]), ValueError, r"stack_mask has shape \[1, 4\]"),
    (lambda i, s: (i, s, torch.ones(4)), TypeError, "image_mask is torch.float32, expected bool"),
    (lambda i, s: (i, None, None, mask(1, 1, 1, 1)), ValueError, "stack_mask is given without stack"),
    (lambda i, s: (None, s, mask(1, 1, 1, 1)), ValueError, "image_mask is given without image"),
    (lambda i, s: (i, None, mask(1, 0, 1, 0)), ValueError, r"no stack is given: missing for the samples \[1, 3\]"),
    (lambda i, s: (None, s, None, mask(1, 0, 1, 1)), ValueError, r"no image is given: missing for the samples \[1\]"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_input(network: Any, change: Any, error: type[Exception], message: str) -> None:
    for method in (network, network.forward_features):
        with pytest.raises(error, match=message):
            method(*change(*pair()))


def test_stack_alone_in_training_needs_two_samples() -> None:
    model = build("rcm_cls").train()
    with pytest.raises(ValueError, match="at least two samples in training mode"):
        model(None, pair(1)[1])


def test_features_of_both_modalities(network: Any) -> None:
    image, stack = pair()
    features = build("rcm_cls", features_only=True, out_indices=(0, 2))
    kept = features.model.state_dict()
    features.model.load_state_dict({key: value for key, value in network.state_dict().items() if key in kept})
    inputs = dict(stack=stack, stack_mask=mask(1, 0, 1, 1))
    every = network.forward_intermediates(image, intermediates_only=True, **inputs)
    assert [tuple(f.shape[2:]) for f in every] == [(20, 12), (10, 6), (5, 3), (3, 2)]
    for actual, expected in zip(features(image, **inputs), (every[0], every[2]), strict=True):
        torch.testing.assert_close(actual, expected)
    final, maps = network.forward_intermediates(image, [1], **inputs)
    assert torch.equal(maps[0], every[1])
    assert torch.equal(network.forward_head(final), network(image, **inputs))


def test_stack_in_the_place_of_indices(network: Any) -> None:
    with pytest.raises(TypeError, match=r"indices, is a tensor: pass the stack as stack=\.\.\."):
        network.forward_intermediates(*pair())


def test_other_slices_are_saved(tmp_path: Any) -> None:
    model = build("rcm_cls", num_slices=2, slice_chans=1, modality_drop_rate=0.5)
    mfsf2.save_pretrained(model, tmp_path)
    loaded: Any = mfsf2.create_model(f"local-dir:{tmp_path}").eval()
    image, stack = torch.randn(2, 3, 64, 64), torch.randn(2, 2, 1, 40, 40)
    assert torch.equal(loaded(image, stack), model(image, stack))
    assert loaded.stem.drop_rate == 0.5


@pytest.fixture(scope="module", params=["rcm_seg", "rcm_clsseg"])
def masking(request: pytest.FixtureRequest) -> Any:
    """A network of two modalities with a head of masks."""
    model = build(request.param)
    torch.nn.init.normal_(model.stem.slices.weight, std=0.2)
    return model


def outputs_of(network: Any, *inputs: Any, **more: Any) -> list[Tensor]:
    outputs = network(*inputs, **more)
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def test_masks_without_stacks_are_those_of_the_one_modality_network(masking: Any) -> None:
    task = masking.architecture.removeprefix("mfsf2_rcm_")
    single = build(task, num_classes=masking.num_classes)
    single.load_state_dict({k: v for k, v in masking.state_dict().items() if not k.startswith("stem.")})
    image, _ = pair()
    for a, b in zip(outputs_of(masking, image), outputs_of(single, image), strict=True):
        assert torch.equal(a, b)
    _, stack = pair(stack=(64, 96))
    for a, b in zip(outputs_of(masking, image, stack, None, mask(0, 0, 0, 0)), outputs_of(single, image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_masks_of_a_stack_alone(masking: Any) -> None:
    _, stack = pair()
    masks = outputs_of(masking, None, stack)[-1]
    assert masks.shape == (4, 1, 80, 48)
    cnn_maps, transformer_maps = masking.encoder(stack.mean(1), masking.stem.slices(stack))
    fused, pyramid = masking.encoder.fusion(cnn_maps, transformer_maps, pooled=False)
    grid = resized(pyramid, transformer_maps[3])
    joined = torch.cat([cnn_maps[3], transformer_maps[3], grid], 1)
    expected = resized(masking.mask_head([*fused, joined]), stack)
    torch.testing.assert_close(masks, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stack_size", [(80, 48), (64, 96), (31, 200)])
def test_masks_are_of_the_image_s_size(masking: Any, stack_size: tuple[int, int]) -> None:
    inputs = pair(stack=stack_size)
    both = outputs_of(masking, *inputs)
    assert both[-1].shape == (4, 1, 64, 96)
    deep = masking.forward_deep(*inputs)
    assert [y.shape[2:] for y in deep.masks[1:]] == [
        (-(-stack_size[0] // stride), -(-stack_size[1] // stride)) for stride in (32, 16, 8, 4)
    ]
    torch.testing.assert_close(resized(deep.masks[-1], inputs[0]), both[-1])
    torch.testing.assert_close(masking.forward_masks(*inputs), both[-1], rtol=1e-5, atol=1e-5)
    if masking.head is not None:
        torch.testing.assert_close(masking.forward_logits(*inputs), both[0], rtol=1e-5, atol=1e-5)


def test_masks_with_single_samples_missing(masking: Any) -> None:
    image_mask, stack_mask = mask(1, 0, 1, 1), mask(1, 1, 0, 1)
    results = []
    for value in (0.0, NAN):
        image, stack = pair()
        image[1], stack[2] = value, value
        twin = copy.deepcopy(masking)
        outputs = outputs_of(twin, image, stack, image_mask, stack_mask)
        sum(y.square().sum() for y in outputs).backward()
        results.append((outputs, {name: p.grad for name, p in twin.named_parameters()}))
    (outputs, gradients), (others, other_gradients) = results
    for a, b in zip(outputs, others, strict=True):
        assert torch.equal(a, b) and a.isfinite().all()
    assert all(torch.equal(gradients[name], other_gradients[name]) for name in gradients)
    image, stack = pair()
    for a, b in zip(outputs, outputs_of(masking, image, stack), strict=True):
        torch.testing.assert_close(a[[0, 3]], b[[0, 3]], rtol=1e-4, atol=1e-5)
    alone = outputs_of(masking, image[2:3], stack[2:3], None, mask(0))
    for a, b in zip(alone, outputs, strict=True):
        torch.testing.assert_close(a[0], b[2], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("change", "error", "message"), BAD[:3] + BAD[9:12])
def test_bad_input_of_masks(masking: Any, change: Any, error: type[Exception], message: str) -> None:
    for method in (masking, masking.forward_masks, masking.forward_deep):
        with pytest.raises(error, match=message):
            method(*change(*pair()))
