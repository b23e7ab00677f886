"""Names, tags, arguments; the same networks through timm."""

import sys
from typing import Any

import pytest
import timm
import torch

import mfsf2
import mfsf2.timm_models

CLASSIFIERS = ["mfsf2_cls", "mfsf2_small_cls", "mfsf2_tiny_cls"]
TASKS = ["cls", "clsseg", "rcm_cls", "rcm_clsseg", "rcm_seg", "seg"]
NAMES = [f"{size}_{task}" for size in ("mfsf2", "mfsf2_small", "mfsf2_tiny") for task in TASKS]


def test_list_models() -> None:
    assert mfsf2.list_models() == sorted(NAMES)
    assert mfsf2.list_models("*y_seg") == ["mfsf2_tiny_seg"]
    assert mfsf2.list_models("mfsf2_rcm*") == ["mfsf2_rcm_cls", "mfsf2_rcm_clsseg", "mfsf2_rcm_seg"]
    assert mfsf2.list_models(["*tiny*", "*small*"]) == sorted(NAMES[6:])
    assert mfsf2.list_models("resnet*") == []


def test_list_pretrained() -> None:
    trained = {"mfsf2_tiny_cls", "mfsf2_tiny_seg", "mfsf2_tiny_clsseg"}
    tags = {name: ["ham10000", "in1k_backbones"] if name in trained else ["in1k_backbones"] for name in NAMES}
    assert mfsf2.list_pretrained() == [f"{name}.{tag}" for name in sorted(NAMES) for tag in tags[name]]
    assert mfsf2.list_pretrained("*small_cls") == ["mfsf2_small_cls.in1k_backbones"]


@pytest.mark.parametrize(
    ("name", "near"), [("mfsf2_tinycls", "mfsf2_tiny_cls"), ("msfs2_cls", "mfsf2_cls"), ("x", "mf")]
)
def test_unknown_name(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"unknown model '{name}'; nearest: {near}.*list_models"):
        mfsf2.create_model(name)


def test_unknown_tag_and_source() -> None:
    with pytest.raises(ValueError, match="no pretrained tag 'imagenet': it has in1k_backbones"):
        mfsf2.create_model("mfsf2_cls.imagenet")
    for name in ("s3:bucket/model", "local-dir:", ":mfsf2_cls"):
        with pytest.raises(ValueError, match=rf"unknown source '{name}': use local-dir:FOLDER, hf-hub:OWNER/NAME"):
            mfsf2.create_model(name)
    with pytest.raises(ValueError, match=r"unknown model '\./runs/best'.*local-dir:FOLDER"):
        mfsf2.create_model("./runs/best")
    with pytest.raises(ValueError, match=r"unknown model 'someone/lesions'.*hf-hub:OWNER/NAME"):
        mfsf2.create_model("someone/lesions")


def test_unknown_argument_is_named() -> None:
    with pytest.raises(TypeError, match="num_clases"):
        mfsf2.create_model("mfsf2_tiny_cls", num_clases=3)


@pytest.mark.parametrize(
    ("task", "name", "hint"),
    [
        ("cls", "num_clases", "; nearest: num_classes"),
        ("seg", "mask_classes", ": num_classes is the number of its mask channels"),
        ("cls", "mask_classes", ": it has no masks"),
        ("rcm_cls", "mask_classes", ": it has no masks"),
        ("rcm_seg", "mask_classes", ": num_classes is the number of its mask channels"),
        ("rcm_seg", "global_pool", ""),
        ("seg", "mask_drop_rate", "; nearest: drop_rate"),
        ("cls", "num_slices", ""),
        ("clsseg", "drop_paths_rate", "; nearest: drop_path_rate"),
        ("rcm_cls", "encoder_args", ""),
    ],
)
def test_unknown_argument_of_which_network(task: str, name: str, hint: str) -> None:
    with pytest.raises(TypeError, match=f"^mfsf2_tiny_{task} has no argument '{name}'{hint}"):
        mfsf2.create_model(f"mfsf2_tiny_{task}", **{name: 3}, device="meta")


def test_names_must_be_strings() -> None:
    for name in (None, 5):
        with pytest.raises(TypeError, match=rf"name={name} must be a string: one of list_models\(\)"):
            mfsf2.create_model(name)  # type: ignore[arg-type]
    for filter in (3, None, ["*tiny*", 3]):
        with pytest.raises(TypeError):
            mfsf2.list_models(filter)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (0, ValueError, "^{name}=0: use an integer from 1 to 4"),
        (5, ValueError, "^{name}=5: use an integer from 1 to 4"),
        (True, ValueError, "^{name}=True: use an integer"),
        ([4], ValueError, r"^{name}=\[4\]: use at least one of the positions 0 to 3"),
        ([], ValueError, r"^{name}=\[\]: use at least one"),
        ([1.5], TypeError, ""),
        ("a", TypeError, ""),
        (1.5, TypeError, ""),
    ],
)
def test_indices_are_called_what_they_are(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message.format(name="out_indices") or None):
        mfsf2.create_model("mfsf2_tiny_cls", features_only=True, out_indices=value, device="meta")
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", device="meta")
    with pytest.raises(error, match=message.format(name="indices") or None):
        model.prune_intermediate_layers(value)


@pytest.mark.parametrize("pretrained", ["in1k", "yes", 1, None])
def test_pretrained_is_yes_or_no(pretrained: Any) -> None:
    with pytest.raises(TypeError, match=rf"pretrained={pretrained!r} must be True or False: a tag is part of the name"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=pretrained)


def test_none_leaves_the_default() -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", drop_rate=None, num_classes=None, device="meta")
    assert model.head.drop.p == 0.3 and model.num_classes == 7


def test_arguments_that_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"out_indices=\(1,\).*features_only"):
        mfsf2.create_model("mfsf2_tiny_cls", out_indices=(1,))
    with pytest.raises(ValueError, match="exclude each other"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained=True, checkpoint_path="weights.safetensors")
    with pytest.raises(ValueError, match=r"pretrained_backbones=True and the weights of 'weights.safetensors' exclude"):
        mfsf2.create_model("mfsf2_tiny_cls", pretrained_backbones=True, checkpoint_path="weights.safetensors")


def test_timm_has_every_network_of_one_image_and_its_classes() -> None:
    assert sorted(timm.list_models("mfsf2*")) == CLASSIFIERS
    assert timm.get_pretrained_cfg_value("mfsf2_cls", "num_classes") == 7


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_timm_builds_the_same_network(name: str) -> None:
    theirs = timm.create_model(name, num_classes=4, in_chans=2, drop_path_rate=0.2, device="meta")
    ours = mfsf2.create_model(name, num_classes=4, in_chans=2, drop_path_rate=0.2, device="meta")
    assert {k: v.shape for k, v in theirs.state_dict().items()} == {k: v.shape for k, v in ours.state_dict().items()}
    assert theirs.model_args == ours.model_args
    assert theirs.pretrained_cfg["architecture"] == name


def test_timm_features() -> None:
    for kwargs in ({}, dict(feature_cls="getter")):
        model = timm.create_model("mfsf2_tiny_cls", features_only=True, out_indices=(1, 3), **kwargs).eval()
        shapes = [tuple(f.shape) for f in model(torch.randn(1, 3, 64, 64))]
        assert shapes == [(1, 64, 8, 8), (1, 64, 2, 2)]
        assert model.feature_info.reduction() == [8, 32]
    with pytest.raises(ValueError, match="feature_cls='hook'"):
        timm.create_model("mfsf2_tiny_cls", features_only=True, feature_cls="hook")


def test_timm_refuses_unknown_arguments_and_tags() -> None:
    with pytest.raises(TypeError, match="not_an_argument"):
        timm.create_model("mfsf2_tiny_cls", not_an_argument=1)
    with pytest.raises((ValueError, RuntimeError), match="no_such_tag"):
        timm.create_model("mfsf2_tiny_cls.no_such_tag")


def test_public_names() -> None:
    """A name that vanishes breaks somebody's import."""
    assert sorted(mfsf2.__all__) == [
        "AxialAttention",
        "ClassificationHead",
        "CrossBranchGate",
        "DualBranchAlign",
        "FREQUENCY_TABLES",
        "FusionStage",
        "GlobalPool",
        "MFFE",
        "MFSF2",
        "MFSF2Encoder",
        "MFSF2TwoModality",
        "MultiFreqMultiScaleFusion",
        "MultiScalePyramid",
        "Outputs",
        "PyramidSplitAttention",
        "ReverseAttention",
        "SegmentationHead",
        "SliceStem",
        "TokenMFFE",
        "TwoModalityStem",
        "__version__",
        "adaptive_avg_pool",
        "add_mffe",
        "create_model",
        "dct_basis",
        "dct_filter_bank",
        "dct_frequencies",
        "list_models",
        "list_pretrained",
        "load_checkpoint",
        "load_host_state_dict",
        "load_pretrained",
        "push_to_hub",
        "remove_mffe",
        "save_pretrained",
    ]
    assert all(hasattr(mfsf2, name) for name in mfsf2.__all__)
    assert sys.modules["mfsf2"].__version__ == "0.2.0.dev0"
