"""Models with folded batch norms compute what they computed before."""

import copy
import warnings
from typing import Any

import pytest
import torch
from micro import TASKS, build, randomize_norms
from test_export import error, inputs_of, network
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrizations, prune

from mfsf2.deploy import fold_batch_norm


def num_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*TASKS, "mfsf2_tiny_clsseg"])
def test_models(name: str) -> None:
    model = network(name)
    folded = fold_batch_norm(model)
    assert num_norms(folded) == 0
    assert num_norms(model) > 0
    inputs = inputs_of(model, 2, 65, 71)
    assert error(folded(*inputs), model(*inputs)) <= 1e-5
    assert error(folded.forward_features(*inputs), model.forward_features(*inputs)) <= 1e-4
    exact = copy.deepcopy(model).double()
    inputs = tuple(x.double() for x in inputs)
    assert error(fold_batch_norm(exact)(*inputs), exact(*inputs)) <= 1e-12


@pytest.mark.parametrize("name", ["cls", "seg", "rcm_cls"])
def test_features(name: str) -> None:
    features = build(name, features_only=True, out_indices=(0, 2))
    inputs = inputs_of(features.model, 2, 65, 71)
    assert error(fold_batch_norm(features)(*inputs), features(*inputs)) <= 1e-4


# The norms that stay follow a concatenation, a sum or a map that has other uses; those of tiny_vit's blocks of windows
# are out of the tracer's reach.
BACKBONES = {
    "efficientnet_b0": 0,
    "regnety_002": 0,
    "mobilenetv4_conv_small": 0,
    "tf_efficientnet_lite0": 0,  # Conv2dSame
    "ghostnet_100": 0,
    "vovnet39a": 0,  # slices of nn.Sequential
    "inception_next_atto": 15,
    "repvgg_a0": 17,
    "mixnet_s": 34,
    "tiny_vit_5m_224": 10,
}


@pytest.mark.parametrize("cnn", BACKBONES)
def test_backbones(cnn: str) -> None:
    model = build(cnn=cnn)
    with warnings.catch_warnings(record=True) as caught:
        folded = fold_batch_norm(model)
    assert num_norms(folded) == BACKBONES[cnn]
    assert [str(w.message).partition(" of ")[0] for w in caught] == [str(n) for n in [BACKBONES[cnn]] if n]
    x = torch.randn(1, 3, 224 if "tiny_vit" in cnn else 64, 224 if "tiny_vit" in cnn else 64)
    check_equal(folded, model, x, 1e-5)
    with warnings.catch_warnings(action="ignore"):
        check_equal(fold_batch_norm(model.double()), model, x.double(), 1e-12)


def check_equal(folded: nn.Module, model: nn.Module, x: Tensor, tolerance: float) -> None:
    with torch.no_grad():
        expected = model(x)
        assert error(folded(x), expected) <= tolerance * max(1, expected.abs().max().item())


def layers() -> dict[str, tuple[nn.Module, nn.Module, tuple[int, ...]]]:
    """Layers, norms and shapes of inputs that fold."""
    from timm.layers import BatchNormAct2d, Conv2dSame, FrozenBatchNormAct2d, SyncBatchNormAct

    size = (2, 4, 9, 9)
    sync = SyncBatchNormAct(6)
    sync.act = nn.SiLU()
    return {
        "sync": (nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6), size),
        "act": (nn.Conv2d(4, 6, 3, bias=False), BatchNormAct2d(6, drop_layer=nn.Dropout2d), size),
        "no act": (nn.Conv2d(4, 6, 3), BatchNormAct2d(6, apply_act=False), size),
        "sync act": (nn.Conv2d(4, 6, 3), sync, size),
        "frozen act": (nn.Conv2d(4, 6, 3), FrozenBatchNormAct2d(6), size),
        "same": (Conv2dSame(4, 6, 3, stride=2), nn.BatchNorm2d(6), size),
        "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding_mode="reflect", padding=1), nn.BatchNorm2d(8), size),
        "not affine": (nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, affine=False), size),
        "1d": (nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6), (2, 4, 9)),
        "3d": (nn.Conv3d(4, 6, 3), nn.BatchNorm3d(6), (2, 4, 5, 5, 5)),
        "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), size),
        "transposed groups": (nn.ConvTranspose2d(4, 6, 3, 3, groups=2, bias=False), nn.BatchNorm2d(6), size),
        "linear": (nn.Linear(4, 6), nn.BatchNorm1d(6), (3, 4)),
    }


def randomized(model: nn.Module) -> nn.Module:
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.affine and norm.running_mean is not None:
            randomize_norms(norm)
        elif getattr(norm, "running_mean", None) is not None:
            nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    return model.double().eval()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", layers())
def test_layers(name: str) -> None:
    layer, norm, size = layers()[name]
    if norm.__class__.__name__.startswith("Sync"):
        # On CPUs, it runs in evaluation mode only.
        norm.eval()
    model = randomized(nn.Sequential(layer, norm))
    folded = fold_batch_norm(model)
    assert not any(hasattr(module, "running_mean") for module in folded.modules())
    x = torch.randn(size, dtype=torch.float64)
    check_equal(folded, model, x, 1e-12)
    # The act remains.
    assert (folded(x).min() >= 0) == (name in ("act", "frozen act"))


class Twice(nn.Module):
    """A layer or its weight has another use."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "norm":
            return self.norm(self.conv(self.norm(x)))
        if self.kind == "conv":
            x = self.conv(x)
        if self.kind == "weight":
            x = nn.functional.conv2d(x, self.conv.weight, padding=1)
        y = self.conv(x)
        return self.norm(y) + y if self.kind == "output" else self.norm(y)


class Scaled(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, 2 * weight, bias)


def hooked(conv: nn.Module) -> nn.Module:
    conv.register_forward_hook(lambda module, args, output: 2 * output)
    return conv


def obstacles() -> dict[str, tuple[nn.Module, str]]:
    """Models with one norm that cannot be folded, and the reason."""
    from timm.layers import ScaledStdConv2d, StdConv2d

    def pair(conv: Any, **kwargs: Any) -> nn.Module:
        return nn.Sequential(conv, nn.BatchNorm2d(4, **kwargs))

    conv = nn.Conv2d(4, 4, 3, padding=1)
    own, computed = "which has a forward of its own: 1", "computes its weight or bias, for example"
    return {
        "first": (nn.Sequential(nn.BatchNorm2d(4), conv), "not right after a convolution or a linear layer: 0"),
        "relu": (nn.Sequential(conv, nn.ReLU(), nn.BatchNorm2d(4)), "not right after a convolution"),
        "std": (pair(StdConv2d(4, 4, 3)), f"after StdConv2d, {own}"),
        "scaled std": (pair(ScaledStdConv2d(4, 4, 3)), f"after ScaledStdConv2d, {own}"),
        "subclass": (pair(Scaled(4, 4, 3)), f"after Scaled, {own}"),
        "weight norm": (pair(parametrizations.weight_norm(nn.Conv2d(4, 4, 3))), computed),
        "pruned": (pair(prune.random_unstructured(nn.Conv2d(4, 4, 3), "weight", 0.5)), computed),
        "hook": (pair(hooked(nn.Conv2d(4, 4, 3))), "a forward hook sees the norm's input: 1"),
        "statistics": (pair(conv, track_running_stats=False), "without running statistics: 1"),
        "norm twice": (Twice("norm"), "called more than once: norm"),
        "conv twice": (Twice("conv"), "after a layer that is called more than once: norm"),
        "output": (Twice("output"), "after a layer whose output has another use: norm"),
        "weight": (Twice("weight"), "have another use: norm"),
        "linear": (nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(4)), "along another dimension than its outputs: 1"),
    }


@pytest.mark.parametrize("name", obstacles())
def test_what_stays_is_named(name: str) -> None:
    model, reason = obstacles()[name]
    model = randomized(model)
    x = torch.randn(2, 4, 4 if name == "linear" else 9, *([] if name == "linear" else [9]), dtype=torch.float64)
    with torch.no_grad():
        # A pruned layer can be copied after such a pass only.
        model(x)
    with pytest.warns(UserWarning, match=reason) as caught:
        folded = fold_batch_norm(model)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    check_equal(folded, model, x, 1e-12)


def test_a_norm_in_training_mode_stays() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)).eval()
    model[1].train()
    with pytest.warns(UserWarning, match="in training mode: 1"):
        assert num_norms(fold_batch_norm(model)) == 1


class Aliased(nn.Module):
    """A norm of two names, of which forward uses the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.unused = self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def test_two_names_of_one_norm() -> None:
    model = randomized(Aliased())
    folded = fold_batch_norm(model)
    assert num_norms(folded) == 0
    check_equal(folded, model, torch.randn(2, 4, 9, 9, dtype=torch.float64), 1e-12)
