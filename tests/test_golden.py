"""Every stored output of the published network, at the tolerances that belong to it."""

import pytest
import torch
from golden_data import CASES, GOLDEN, MODEL_KEYS, draw_inputs, draw_state, subsample
from torch import Tensor, nn

from mfsf2 import MFFE, MFSF2, FusionStage, MultiScalePyramid, PyramidSplitAttention
from mfsf2.weights import convert_authors_keys

MODULE_TOLERANCE = 1e-5
INNER_TOLERANCE = 5e-5
GRADIENT_TOLERANCE = 1e-3

# Where each published module stands in the whole network: names are converted there and cut off again.
_STAGE = ("fusion_stages.0.", "encoder.fusion.stages.0.")
_PYRAMID = ("third_branch.", "encoder.fusion.pyramid.")


def load_published(module: nn.Module, case: dict, prefix: str, place: tuple[str, str], inner: str = "") -> None:
    """Give a block the published weights of a case, by way of the whole network's key names."""
    state = draw_state(case["keys"], prefix)
    converted = convert_authors_keys({place[0] + inner + key: value for key, value in state.items()})
    names = [key.removeprefix(place[1]) for key in converted]
    own = {name.split(".", 1)[1] if inner else name: value for name, value in zip(names, converted.values())}
    module.load_state_dict(own)


def max_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mffe.")])
def test_mffe(name: str) -> None:
    case = CASES[name]
    args = case["args"]
    block = MFFE(
        args["in_channels"],
        args["reduction"],
        args["frequency_branches"],
        args["frequency_selection"],
        grid_size=args["dct_h"],
    )
    load_published(block, case, "mffe.", _STAGE, "mffe_res.")
    logits = block.logits(*draw_inputs(case))
    assert max_error(logits, GOLDEN[f"{name}.out0"].flatten(1)) <= MODULE_TOLERANCE


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("mfaf.")])
def test_fusion_stage(name: str) -> None:
    case = CASES[name]
    args = case["args"]
    stage = FusionStage(args["res_ch"], args["pvt_ch"], args["fuse_ch"], args["reduction"]).eval()
    load_published(stage, case, "mfaf.", _STAGE)
    assert max_error(stage(*draw_inputs(case)), GOLDEN[f"{name}.out0"]) <= MODULE_TOLERANCE


def test_pyramid_split_attention() -> None:
    case = CASES["psa"]
    psa = PyramidSplitAttention(case["args"]["inplans"], case["args"]["planes"])
    load_published(psa, case, "psa.", _PYRAMID, "psa.")
    (x,) = draw_inputs(case)
    golden = GOLDEN["psa.out0"]
    assert max_error(psa(x), golden) <= MODULE_TOLERANCE
    assert max_error(psa.pooled(x), golden.mean((2, 3))) <= MODULE_TOLERANCE


def test_channel_weights_of_pyramid_split_attention() -> None:
    case = CASES["eca"]
    (weight,) = draw_state(case["keys"], "eca.").values()
    psa = PyramidSplitAttention(16, 64)
    psa.fc.weight.data = weight.flatten(1)
    (x,) = draw_inputs(case)
    mean = x.mean((2, 3))
    # Of several branches all but one are zero: the softmax over them undone gives the weights themselves.
    attention = psa._attention([mean, *[torch.zeros_like(mean)] * 3])
    weights = (attention[:, 0] / attention[:, 1]).log() + 2.0
    assert max_error(weights, GOLDEN["eca.out0"].flatten(1)) <= MODULE_TOLERANCE


def test_pyramid() -> None:
    case = CASES["pmsf"]
    args = case["args"]
    pyramid = MultiScalePyramid([args["fuse_channels"]] * 4, args["adapter_channels"], args["out_channels"]).eval()
    load_published(pyramid, case, "pmsf.", _PYRAMID)
    maps = draw_inputs(case)
    assert max_error(pyramid(maps, pooled=True), GOLDEN["pmsf.out0"]) <= MODULE_TOLERANCE
    assert max_error(pyramid(maps).mean((2, 3)), GOLDEN["pmsf.out0"]) <= MODULE_TOLERANCE


@pytest.fixture(scope="module")
def network() -> MFSF2:
    model = MFSF2(num_classes=7)
    model.load_state_dict(convert_authors_keys(draw_state(MODEL_KEYS)))
    return model.eval()


def test_size(network: MFSF2) -> None:
    assert sum(p.numel() for p in network.parameters()) == 59_729_419


@pytest.mark.parametrize("name", ["model.224x224", "model.256x192"])
def test_network(network: MFSF2, name: str) -> None:
    (x,) = draw_inputs(CASES[name])
    with torch.no_grad():
        cnn_maps, transformer_maps = network.encoder(x)
        fused, pyramid = network.encoder.fusion(cnn_maps, transformer_maps)
        assert max_error(network(x), GOLDEN[f"{name}.out0"]) <= MODULE_TOLERANCE
    inner = {f"r{i}": m for i, m in enumerate(cnn_maps, 1)}
    inner |= {f"p{i}": m for i, m in enumerate(transformer_maps, 1)}
    inner |= {f"F{i}": m for i, m in enumerate(fused, 1)}
    inner["P"] = pyramid
    assert len(inner) == 13
    for key, value in inner.items():
        assert max_error(subsample(value), GOLDEN[f"{name}.{key}"]) <= INNER_TOLERANCE, key


def test_network_gradients(network: MFSF2) -> None:
    name = "model.224x224"
    (x,) = draw_inputs(CASES[name])
    network.zero_grad()
    network(x).square().mean().backward()
    keys = [key.removeprefix(f"{name}.grad.") for key in GOLDEN if key.startswith(f"{name}.grad.")]
    assert len(keys) == 8
    parameters = dict(network.named_parameters())
    for key in keys:
        # A conversion of one key needs another beside it, by which the authors' names are recognised.
        both = convert_authors_keys({key: torch.zeros(1, 1), "fusion_stages.": torch.zeros(1, 1)})
        gradient = parameters[next(iter(both))].grad
        assert gradient is not None
        golden = GOLDEN[f"{name}.grad.{key}"]
        assert max_error(gradient.flatten()[:256], golden) <= GRADIENT_TOLERANCE * golden.abs().max().item(), key


def test_norm_eps(network: MFSF2) -> None:
    """The logits hardly show a wrong eps, so each is named here."""
    seen = 0
    for name, module in network.named_modules():
        if isinstance(module, nn.LayerNorm):
            embedding_or_reduction = name.endswith(("patch_embed.norm", "downsample.norm", "attn.norm"))
            expected = 1e-5 if embedding_or_reduction else 1e-6
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            expected = 1e-5
        else:
            continue
        seen += 1
        assert module.eps == expected, name
    # PVTv2-B2: 16 blocks of two norms, 4 stage norms, 4 embeddings, 13 reductions. ResNet-50: 53. Fusion: 4 stages of
    # 4. Pyramid: 4. Head: 1.
    assert seen == 32 + 4 + 4 + 13 + 53 + 16 + 4 + 1
