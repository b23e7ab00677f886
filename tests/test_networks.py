"""The networks by name, each through the whole contract, and networks of other backbones."""

import copy
import re
from typing import Any, ClassVar

import pytest
import torch
from contract import ClassifierContract, MaskContract
from torch import Tensor, nn
from torch.nn import functional as F

import mfsf2


class SegmenterContract(MaskContract):
    """A network with a head of masks alone."""

    num_classes = 1
    first_head = "mask_head"
    default_drop_rate = 0.0
    mask_argument = "num_classes"
    head_args: ClassVar[dict[str, int | None]] = dict(num_classes=None, mask_classes=1)

    def test_features_are_the_bottlenecks_input(self, model: Any) -> None:
        x = self.image(1, 65, 71)
        features, fused = model.forward_intermediates(x)
        assert features.shape == (1, model.num_features, 3, 3)
        torch.testing.assert_close(model.mask_head([*fused, features]), model.forward_deep(x).masks[-1])

    def test_reset_classifier(self) -> None:
        model = self.build().train()
        kept = {name: value for name, value in model.state_dict().items() if "coarse" not in name and "out" not in name}
        model.reset_classifier(3)
        assert model.num_classes == model.mask_head.num_classes == 3
        assert all(module.training for module in model.modules())
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in kept.items())
        assert model(self.image()).shape == (2, 3, 64, 96)
        layers = model.get_classifier()
        assert [layer.weight.shape[0] for layer in layers] == [3] * 5
        names = {id(module): name for name, module in model.named_modules()}
        assert tuple(names[id(layer)] for layer in layers) == model.pretrained_cfg["classifier"]
        with pytest.raises(ValueError, match="num_classes=0 must be at least 1"):
            model.reset_classifier(0)
        assert model.num_classes == 3 and model(self.image()).shape == (2, 3, 64, 96)
        model.to(device="meta", dtype=torch.float64).reset_classifier(2)
        assert all(p.is_meta and p.dtype == torch.float64 for p in model.mask_head.parameters())

    def test_one_head_is_the_whole(self, model: Any) -> None:
        inputs = self.inputs(self.image())
        assert torch.equal(model(*inputs), model.forward_masks(*inputs))
        deep = model.forward_deep(*inputs)
        assert isinstance(deep, mfsf2.Outputs) and deep.logits is None and len(deep.masks) == 5
        torch.testing.assert_close(F.interpolate(deep.masks[-1], size=(64, 96), mode="bilinear"), model(*inputs))

    def test_the_head_of_classes_is_missing(self, model: Any) -> None:
        check_missing_head(
            model,
            self.inputs(self.image()),
            "no classification head (head): use a model named *_clsseg, or MFSF2",
            properties=("head_hidden_size", "global_pool"),
            methods=("forward_logits", "forward_head"),
        )
        with pytest.raises(ValueError, match=r"no classification head \(head\)"):
            copy.deepcopy(model).reset_classifier(1, "avg")


class BothHeadsContract(ClassifierContract, MaskContract):
    """A network with both heads."""

    mask_argument = "mask_classes"
    head_args: ClassVar[dict[str, int | None]] = dict(mask_classes=1)

    def test_both_at_once_is_each_alone(self, model: Any) -> None:
        inputs = self.inputs(self.image(2, 65, 71))
        both = model(*inputs)
        assert isinstance(both, mfsf2.Outputs) and both._fields == ("logits", "masks")
        torch.testing.assert_close(both.logits, model.forward_logits(*inputs), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(both.masks, model.forward_masks(*inputs), rtol=1e-5, atol=1e-5)
        deep = model.forward_deep(*inputs)
        assert isinstance(deep, mfsf2.Outputs) and len(deep.masks) == 5
        torch.testing.assert_close(deep.logits, both.logits)

    def test_one_head_alone_leaves_the_other_alone(self, model: Any) -> None:
        called: list[str] = []
        watched = ("head", "mask_head", "encoder", "encoder.fusion.pyramid", "encoder.fusion.pyramid.psa")
        pyramid = ["encoder.fusion.pyramid", "encoder.fusion.pyramid.psa"]
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda *_, n=name: called.append(n)) for name in watched
        ]
        for function, expected in [
            (model.forward_logits, ["encoder", *pyramid, "head"]),
            (model.forward_masks, ["encoder", *pyramid, "mask_head"]),
            (model, ["encoder", *pyramid, "head", "mask_head"]),
        ]:
            called.clear()
            function(*self.inputs(self.image()))
            assert sorted(called) == expected
        for hook in hooks:
            hook.remove()

    def test_batch_of_one_in_training_is_refused_for_both(self) -> None:
        with pytest.raises(ValueError, match="at least two samples in training mode"):
            self.build().train()(self.image(1))

    def test_reset_masks(self) -> None:
        model = self.build().train()
        model.reset_masks(3)
        logits, masks = model(*self.inputs(self.image()))
        assert logits.shape == (2, self.num_classes) and masks.shape == (2, 3, 64, 96)
        assert model.model_args["mask_classes"] == 3
        with pytest.raises(ValueError, match="=0 must be at least 1"):
            model.reset_masks(0)
        assert model.mask_classes == 3


class TwoModalityInputs:
    """An image and a stack of another size."""

    drop_rates: ClassVar[dict[str, float]] = dict(drop_rate=0.0, drop_path_rate=0.0, modality_drop_rate=0.0)
    beside_the_image = ("stem.",)

    def inputs(self, x: Tensor) -> tuple[Tensor, ...]:
        turned = x.transpose(2, 3)
        return x, torch.stack([turned, turned.flip(2), 0.5 * turned, -turned], dim=1)


class TestClassifier(ClassifierContract):
    name = "mfsf2_tiny_cls"

    def test_identity_in_the_head_s_place(self) -> None:
        model = self.build()
        features = model.forward_features(self.image())
        model.head = nn.Identity()
        assert torch.equal(model(self.image()), features)
        assert model.train()(self.image(1)).shape == (1, *features.shape[1:])

    def test_the_head_of_masks_is_missing(self, model: Any) -> None:
        check_missing_head(
            model,
            self.inputs(self.image()),
            "no segmentation head (mask_head): use a model named *_clsseg, or MFSF2(mask_classes=...)",
            properties=("mask_classes",),
            methods=("forward_masks", "forward_deep"),
        )
        with pytest.raises(ValueError, match=r"no segmentation head \(mask_head\)"):
            model.reset_masks(1)


class TestSegmenter(SegmenterContract):
    name = "mfsf2_tiny_seg"


class TestClassifierSegmenter(BothHeadsContract):
    name = "mfsf2_tiny_clsseg"


class TestTwoModalityClassifier(TwoModalityInputs, ClassifierContract):
    name = "mfsf2_tiny_rcm_cls"
    num_classes = 8


class TestTwoModalitySegmenter(TwoModalityInputs, SegmenterContract):
    name = "mfsf2_tiny_rcm_seg"


class TestTwoModalityClassifierSegmenter(TwoModalityInputs, BothHeadsContract):
    name = "mfsf2_tiny_rcm_clsseg"
    num_classes = 8


class TestTinyClassifierSegmenter(BothHeadsContract):
    """The one network in a size that people use; it has what all the others have."""

    name = "mfsf2_tiny_clsseg"
    is_micro = False


def check_missing_head(
    model: Any, inputs: tuple[Tensor, ...], message: str, properties: tuple[str, ...], methods: tuple[str, ...]
) -> None:
    """Properties and methods of a head that is not there name it."""
    for name in properties:
        assert not hasattr(model, name)
        with pytest.raises(AttributeError, match=re.escape(message)):
            getattr(model, name)
    for name in methods:
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(model, name)(*(inputs[:1] if name == "forward_head" else inputs))


def test_a_network_needs_a_head() -> None:
    for kind in (mfsf2.MFSF2, mfsf2.MFSF2TwoModality):
        with pytest.raises(ValueError, match="num_classes and mask_classes are both None"):
            kind(num_classes=None, device="meta")


@pytest.mark.parametrize(
    ("heads", "argument"),
    [
        ((None, 1), dict(drop_rate=0.5)),
        ((None, 1), dict(global_pool="max")),
        ((None, 1), dict(head_hidden_size=8)),
        ((7, None), dict(mask_drop_rate=0.5)),
    ],
)
def test_arguments_of_a_missing_head(heads: tuple[int | None, int | None], argument: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(argument))}.*: pass {'mask' if heads[0] else 'num'}_classes"):
        mfsf2.MFSF2(*heads, **argument, device="meta")


def test_unknown_attributes_are_named_as_ever() -> None:
    model = mfsf2.MFSF2(device="meta")
    with pytest.raises(AttributeError, match="'MFSF2' object has no attribute 'no_such_thing'"):
        model.no_such_thing  # noqa: B018


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mfsf2_cls", 59_729_419),
        ("mfsf2_small_cls", 38_626_315),
        ("mfsf2_tiny_cls", 16_177_835),
        ("mfsf2_tiny_seg", 15_514_929),
        ("mfsf2_tiny_clsseg", 16_442_680),
        ("mfsf2_tiny_rcm_cls", 16_179_187),
        ("mfsf2_tiny_rcm_seg", 15_515_256),
        ("mfsf2_tiny_rcm_clsseg", 16_444_032),
    ],
)
def test_size(name: str, parameters: int) -> None:
    model = mfsf2.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["mfsf2_cls", "mfsf2_small_cls"])
def test_init_weights_of_the_larger_networks(name: str) -> None:
    model: Any = mfsf2.create_model(name, device="meta").to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(float("nan") if tensor.is_floating_point() else 9)
    model.init_weights()
    with torch.no_grad():
        assert model.eval()(torch.randn(1, 3, 64, 64)).isfinite().all()


@pytest.mark.parametrize(
    ("cnn", "transformer"),
    [
        ("regnetx_002", "pvt_v2_b0"),
        ("convnext_atto", "pvt_v2_b0"),
        ("resnet18", "efficientformerv2_s0"),
        ("mobilenetv3_small_050", "pvt_v2_b2_li"),
    ],
)
def test_other_backbones(cnn: str, transformer: str) -> None:
    size = 224 if "efficientformer" in transformer else 75
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", cnn=cnn, transformer=transformer, drop_path_rate=0.05)
    y = model(torch.randn(2, 3, size, size))
    assert y.shape == (2, 7)
    y.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert all(regex.startswith(r"^encoder\.") for regex, _ in model.group_matcher()["blocks"])
    model.eval()
    x = torch.randn(1, 3, size, size)
    torch.testing.assert_close(model.forward_head(model.forward_features(x)), model(x))


def test_unknown_backbone() -> None:
    for wrong in (5, nn.Identity):
        with pytest.raises(ValueError, match="unknown backbone"):
            mfsf2.create_model("mfsf2_tiny_cls", transformer=wrong)
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet51'.*nearest: resnet5"):
        mfsf2.create_model("mfsf2_tiny_cls", cnn="resnet51")


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_vit"])
def test_backbone_without_four_levels(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' has maps at strides \[16.*four maps at \(4, 8, 16, 32\)"):
        mfsf2.create_model("mfsf2_tiny_cls", transformer=name, drop_path_rate=0)


def test_backbone_without_stochastic_depth() -> None:
    with pytest.raises(ValueError, match="'vgg11' has no stochastic depth: pass drop_path_rate=0"):
        mfsf2.create_model("mfsf2_tiny_cls", transformer="vgg11")
