"""MFFE inserted into other libraries' models: equal outputs at first, then training, saving, loading and removal."""

import copy
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import timm
import torch
import torchvision
from monai.networks.nets import DenseNet121, UNet
from torch import Tensor, nn

import mfsf2


class Host:
    """A model of another library, where to insert, and an input."""

    def __init__(
        self, build: Callable[[], nn.Module], names: str | list[str], number: int, size: int = 64, **kwargs: Any
    ) -> None:
        self.build, self.names, self.number, self.size, self.kwargs = build, names, number, size, kwargs

    def image(self, batch: int = 2) -> Tensor:
        return torch.randn(batch, 3, self.size, self.size, generator=torch.Generator().manual_seed(1))

    def insert(self, model: nn.Module) -> Any:
        return mfsf2.add_mffe(model, self.names, self.image(1), **self.kwargs)


def from_timm(name: str, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=3, **kwargs)


SMALL_SWIN: dict[str, Any] = dict(embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])

# With few layers, which suffice here.
HOSTS = {
    "timm resnet18": Host(from_timm("resnet18", zero_init_last=False), "layer*", 4),
    "timm resnet50": Host(from_timm("resnet50", zero_init_last=False, layers=(1, 1, 1, 1)), "layer*.0", 4),
    "timm convnext": Host(from_timm("convnext_atto"), "stages.*", 4),
    "timm efficientnet": Host(from_timm("efficientnet_lite0"), "blocks.*.*", 16),
    "timm swin": Host(
        from_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4, **SMALL_SWIN), "layers.*.blocks.*", 4
    ),
    "timm mobilenet": Host(from_timm("mobilenetv3_small_050"), ["blocks.0", "blocks.?.0"], 7),
    # With a mean over the patches: the class token would not see the last gate.
    "timm vit": Host(
        from_timm("vit_tiny_patch16_224", img_size=64, depth=3, global_pool="avg"),
        "blocks.*",
        3,
        block=mfsf2.TokenMFFE,
        num_prefix_tokens=1,
    ),
    "torchvision resnet": Host(lambda: torchvision.models.resnet18(num_classes=3), "layer*", 4),
    "torchvision swin": Host(
        lambda: torchvision.models.SwinTransformer([4, 4], window_size=[4, 4], num_classes=3, **SMALL_SWIN),
        "features.*",
        8,
    ),
    "MONAI UNet": Host(
        lambda: UNet(2, 3, 2, channels=(8, 16, 32), strides=(2, 2), num_res_units=1),
        [f"model.{i}" for i in range(3)],
        3,
    ),
    "MONAI DenseNet": Host(
        lambda: DenseNet121(2, 3, 3, block_config=(2, 2, 2, 2)), "features.denseblock*", 4, size=128
    ),
}
every_host = pytest.mark.parametrize("name", HOSTS)


def blocks_of(model: nn.Module) -> list[mfsf2.MFFE]:
    return [module for module in model.modules() if isinstance(module, mfsf2.MFFE)]


def move(model: nn.Module) -> None:
    """Give the blocks weights that gate."""
    generator = torch.Generator().manual_seed(2)
    for block in blocks_of(model):
        block.fc2.weight.data.normal_(std=0.3, generator=generator)


@every_host
def test_insertion(name: str, tmp_path: Path) -> None:
    host = HOSTS[name]
    model = host.build().eval()
    x, state = host.image(1), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        expected = model(x)
        assert host.insert(model) is model
        assert len(blocks_of(model)) == host.number and not any(block.training for block in blocks_of(model))
        # The identity at first, and the host's own keys and values.
        assert (model(x) - expected).abs().max() <= 1e-6
        assert state.keys() == {key for key in model.state_dict() if "mffe" not in key}
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in state.items())
        move(model)
        gated = model(x)
        assert (gated - expected).abs().max() > 1e-5
        # Copies, pickles and saved weights compute the same.
        torch.save(model.state_dict(), tmp_path / "model.pth")
        again = host.insert(host.build()).eval()
        again.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
            torch.testing.assert_close(twin(x), gated, rtol=0, atol=1e-6)
        # A checkpoint of the host loads; the blocks keep their weights.
        result = again.load_state_dict(state, strict=False)
        assert result.missing_keys and all("mffe" in key for key in result.missing_keys) and not result.unexpected_keys
        mfsf2.load_host_state_dict(model, {key: torch.zeros_like(value) for key, value in state.items()})
        mfsf2.load_host_state_dict(model, state)
        torch.testing.assert_close(model(x), gated, rtol=0, atol=1e-6)
        # Without the blocks, it is the host again.
        assert mfsf2.remove_mffe(model) is model
        assert torch.equal(model(x), expected) and model.state_dict().keys() == state.keys()
        assert not blocks_of(model) and not any(module._forward_hooks for module in model.modules())
        host.insert(model)
    with pytest.raises(ValueError, match="already has an MFFE"):
        host.insert(model)


@every_host
def test_training(name: str) -> None:
    host = HOSTS[name]
    model = host.insert(host.build()).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = host.image()
    for _ in range(2):
        optimizer.zero_grad()
        (model(x) - 1).square().mean().backward()
        optimizer.step()
    for block in blocks_of(model):
        assert block.training
        assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())
        assert block.fc2.weight.abs().sum() > 0


def test_each_block_runs_once() -> None:
    """Also in an ``nn.Sequential``, which runs a child by itself, and behind a leaf."""
    model = timm.create_model("resnet18", num_classes=3)
    mfsf2.add_mffe(model, ["layer1", "layer1.0", "layer1.0.conv1", "layer2.1"], torch.zeros(1, 3, 64, 64))
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, mfsf2.MFFE):
            module.register_forward_hook(lambda *_, name=name: counts.update({name: counts.get(name, 0) + 1}))
    model(torch.randn(2, 3, 64, 64))
    names = {"layer1.mffe", "layer1.0.mffe", "layer1.0.conv1.mffe", "layer2.1.mffe"}
    assert counts == dict.fromkeys(names, 1)


def test_gates_stand_behind_the_modules() -> None:
    model: Any = nn.Sequential(OrderedDict(a=nn.Conv2d(3, 16, 3), b=nn.Sequential(nn.Conv2d(16, 8, 1), nn.ReLU())))
    plain = copy.deepcopy(model)
    mfsf2.add_mffe(model, "*", torch.zeros(1, 3, 24, 20))
    move(model)
    x = torch.randn(2, 3, 24, 20)
    torch.testing.assert_close(model(x), model.b.mffe(plain.b(model.a.mffe(plain.a(x)))))


def test_channels_of_feature_info() -> None:
    for name, names, channels, data_format in (
        ("resnet50", "layer*", [256, 512, 1024, 2048], "NCHW"),
        ("convnext_atto", ["stages.3", "stages.0"], [40, 320], "NCHW"),
        ("swin_s3_tiny_224", "layers.*", [96, 192, 384, 768], "NHWC"),
    ):
        model = mfsf2.add_mffe(timm.create_model(name, device="meta"), names)
        assert [(b.channels, b.data_format) for b in blocks_of(model)] == [(c, data_format) for c in channels]
        assert all(p.is_meta for p in model.parameters())
    getter = timm.create_model("resnet18", features_only=True)
    expected = getter(torch.ones(1, 3, 64, 64))
    for a, b in zip(mfsf2.add_mffe(getter, "layer*")(torch.ones(1, 3, 64, 64)), expected, strict=True):
        assert a.shape == b.shape
    with pytest.raises(ValueError, match=r"channels of layer1\.0 are unknown.*lists act1, layer1, .*pass an e"):
        mfsf2.add_mffe(timm.create_model("resnet18"), "layer1.0")
    with pytest.raises(ValueError, match=r"VisionTransformer works on tokens \(B, N, C\): pass block=mfsf2\.TokenMFFE"):
        mfsf2.add_mffe(timm.create_model("vit_tiny_patch16_224", depth=2), "blocks.*")
    with pytest.raises(ValueError, match=r"channels of layer1 are unknown.*is missing"):
        mfsf2.add_mffe(torchvision.models.resnet18(), "layer1")


class Maps(nn.Module):
    """A model whose module ``part`` returns whatever is asked for."""

    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.part = Part(shape)
        self.unused = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Any:
        return self.part(x)


class Part(nn.Module):
    def __init__(self, shape: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Any:
        return self.shape(x)


@pytest.mark.parametrize(
    ("image", "shape", "found"),
    [
        ((64, 64), (24, 16, 16), (24, "NCHW")),
        ((64, 64), (16, 16, 24), (24, "NHWC")),
        ((64, 48), (24, 16, 12), (24, "NCHW")),
        ((64, 48), (16, 12, 24), (24, "NHWC")),
        ((61, 47), (8, 12), None),
        ((61, 47), (40, 8, 6), (40, "NCHW")),
        ((61, 47), (8, 6, 40), (40, "NHWC")),
        ((64, 64), (16, 16, 16), None),
        ((64, 48), (16, 7, 7), None),
        ((64, 64), (512, 1, 1), (512, "NCHW")),
    ],
)
def test_layout_of_maps(image: tuple[int, int], shape: tuple[int, ...], found: tuple[int, str] | None) -> None:
    model: Any = Maps(lambda x: torch.zeros(x.shape[0], *shape))
    x = torch.zeros(1, 3, *image)
    if found:
        block = mfsf2.add_mffe(model, "part", x).part.mffe
        assert (block.channels, block.data_format) == found
        return
    message = "part returns .*not a map" if len(shape) == 2 else "channels may come first or last: pass data_format="
    with pytest.raises(ValueError, match=message):
        mfsf2.add_mffe(model, "part", x)
    if len(shape) == 3:
        assert mfsf2.add_mffe(model, "part", x, data_format="NHWC").part.mffe.channels == shape[2]


@pytest.mark.parametrize("channels_last", [False, True])
def test_layout_of_maps_as_high_as_they_have_channels(channels_last: bool) -> None:
    """Half of the image tells, if the model takes it."""

    def pool(x: Tensor) -> Tensor:
        y = x[:, :1, ::4, ::4].expand(-1, 16, -1, -1)
        return y.permute(0, 2, 3, 1) if channels_last else y

    def only_square(x: Tensor) -> Tensor:
        if x.shape[2] != x.shape[3]:
            raise ValueError("only square images")
        return pool(x)

    x = torch.zeros(1, 3, 64, 64)
    data_format = "NHWC" if channels_last else "NCHW"
    for example in (x, (x,), {"x": x}):
        assert mfsf2.add_mffe(Maps(pool), "part", example).part.mffe.data_format == data_format  # type: ignore[union-attr]
    model: Any = Maps(only_square)
    with pytest.raises(ValueError, match="channels may come first or last"):
        mfsf2.add_mffe(model, "part", x)
    model.output_fmt = data_format
    assert mfsf2.add_mffe(model, "part", x).part.mffe.data_format == data_format  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [
        ("layr*", {}, r"'layr\*' matches no module of ResNet; near names: .*layer"),
        (["layer1", "layer9"], {}, r"'layer9' matches no module"),
        ([], {}, "names is empty"),
        ("fc", {}, r"fc returns \[1, 3\], not a map \(B, C, H, W\)"),
        ("layer*", dict(block=mfsf2.TokenMFFE), r"layer1 returns \[1, 64, 16, 16\], not tokens \(B, N, C\)"),
        ("layer*", dict(grid_size=3), "grid_size=3 is smaller than 7"),
    ],
)
def test_errors(names: Any, kwargs: dict[str, Any], message: str) -> None:
    model = timm.create_model("resnet18", num_classes=3)
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=message):
        mfsf2.add_mffe(model, names, torch.zeros(1, 3, 64, 64), **kwargs)
    assert list(model.state_dict()) == keys and not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


def test_more_errors() -> None:
    x = torch.zeros(1, 3, 64, 64)
    with pytest.raises(TypeError, match="reductoin"):
        mfsf2.add_mffe(timm.create_model("resnet18"), "layer*", reductoin=2)
    with pytest.raises(ValueError, match="part returns a list, not a map"):
        mfsf2.add_mffe(Maps(lambda x: [x]), "part", x)
    with pytest.raises(ValueError, match="unused does not run when the model is called on the example"):
        mfsf2.add_mffe(Maps(lambda x: x), "unused", x)
    with pytest.raises(ValueError, match=r"part returns \[1, 3, 4096\], not a map .*; for tokens .*TokenMFFE"):
        mfsf2.add_mffe(Maps(lambda x: x.flatten(2)), "part", x)
    with pytest.raises(ValueError, match=r"part returns \[1, 3, 1, 64, 64\], not a map .*; volumes have no MFFE"):
        mfsf2.add_mffe(Maps(lambda x: x.unsqueeze(2)), "part", x)
    with pytest.raises(ValueError, match=r"features\.denseblock1 is a _DenseBlock, a container"):
        mfsf2.add_mffe(torchvision.models.densenet121(), "features.denseblock1", x)
    with pytest.raises(ValueError, match="ResNet has no block of add_mffe"):
        mfsf2.remove_mffe(timm.create_model("resnet18"))
    own: Any = nn.Sequential(OrderedDict(mffe=mfsf2.MFFE(3)))
    with pytest.raises(ValueError, match="has no block of add_mffe"):
        mfsf2.remove_mffe(own)
    with pytest.raises(ValueError, match="a has an attribute 'mffe' of its own"):
        mfsf2.add_mffe(nn.Sequential(OrderedDict(a=own)), "a", x)
    with pytest.raises(ValueError, match=r"the model is compiled: .*then torch\.compile"):
        mfsf2.add_mffe(torch.compile(timm.create_model("resnet18")), "*")


def test_host_checkpoints_that_do_not_fit() -> None:
    model: Any = mfsf2.add_mffe(timm.create_model("resnet18", num_classes=3), "layer*")
    whole = {key: value.clone() for key, value in model.state_dict().items()}
    state = {key: value + 1 for key, value in whole.items() if "mffe" not in key}
    for change, message in (
        (lambda s: s.pop("fc.weight"), r"missing 1 keys \(fc.weight\), unexpected none"),
        (lambda s: s.update(other=torch.zeros(1)), r"missing none, unexpected 1 keys \(other\)"),
        (lambda s: s.update(whole), r"unexpected 8 keys \(layer1.mffe.fc1.weight, .*, \.\.\.\)"),
        (lambda s: s.update({"fc.weight": torch.zeros(4, 512)}), "size mismatch for fc.weight"),
    ):
        wrong = dict(state)
        change(wrong)
        with pytest.raises(ValueError, match=message):
            mfsf2.load_host_state_dict(model, wrong)
        assert all(torch.equal(value, whole[key]) for key, value in model.state_dict().items())
    mfsf2.load_host_state_dict(model, state)
    assert torch.equal(model.fc.bias, whole["fc.bias"] + 1)


def test_dtype_mode_and_published_gate() -> None:
    model: Any = timm.create_model("resnet18", num_classes=3).double()
    model.layer1.eval()
    mfsf2.add_mffe(model, "layer*", torch.zeros(1, 3, 64, 64, dtype=torch.float64), identity=False, reduction=4)
    blocks = blocks_of(model)
    assert {block.fc1.weight.dtype for block in blocks} == {torch.float64}
    assert [block.training for block in blocks] == [False, True, True, True]
    assert not blocks[0].identity and blocks[0].fc1.out_features == 16
    model(torch.zeros(2, 3, 64, 64, dtype=torch.float64))


@pytest.mark.parametrize(
    "example",
    [(torch.zeros(1, 3, 8, 8), 2.0), {"image": torch.zeros(1, 3, 8, 8), "factor": 2.0}],
    ids=["args", "kwargs"],
)
def test_examples_with_several_arguments(example: Any) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 16, 1)

        def forward(self, image: Tensor, factor: float) -> Tensor:
            return self.conv(image) * factor

    assert mfsf2.add_mffe(Scaled(), "conv", example).conv.mffe.channels == 16  # type: ignore[union-attr]


def test_own_models_are_not_saved_with_blocks(tmp_path: Path) -> None:
    """What could not be loaded again is refused."""
    model = mfsf2.add_mffe(mfsf2.create_model("mfsf2_tiny_cls"), "encoder.cnn.layer*", torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="mffe"):
        mfsf2.save_pretrained(model, tmp_path / "model")


def test_symbolic_tracing() -> None:
    """Hooks, children of ``nn.Sequential`` and blocks behind leaves."""
    model = timm.create_model("resnet18", num_classes=3).eval()
    mfsf2.add_mffe(model, ["layer*", "layer1.0", "layer2.0.conv1"], torch.zeros(1, 3, 64, 64))
    move(model)
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))


@pytest.mark.compile
@pytest.mark.parametrize("name", ["timm resnet18", "timm swin", "timm vit", "MONAI UNet"])
def test_compile(name: str) -> None:
    host = HOSTS[name]
    model = host.insert(host.build()).eval()
    move(model)
    x = host.image()
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(
            torch.compile(model, backend="aot_eager", fullgraph=True)(x), expected, rtol=0, atol=1e-5
        )


@pytest.mark.compile
@pytest.mark.parametrize("name", ["timm resnet18", "timm vit"])
def test_onnx(name: str, tmp_path: Path) -> None:
    host = HOSTS[name]
    model = host.insert(host.build()).eval()
    move(model)
    x = host.image()
    program = torch.export.export(model, (x,))
    torch.onnx.export(program, f=tmp_path / "model.onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), model(x).detach(), rtol=0, atol=1e-4)
