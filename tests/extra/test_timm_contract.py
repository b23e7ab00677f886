"""timm's own generic tests, from its source distribution, on the tiny classification network.

``MFSF2_TIMM_TESTS`` names the folder of its tests; ``.ci/extra timm`` fetches it for the installed version.
"""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

import mfsf2.timm_models  # noqa: F401

NAME = "mfsf2_tiny_cls"


def load_timm_tests() -> ModuleType:
    folder = os.environ.get("MFSF2_TIMM_TESTS")
    if not folder:
        raise RuntimeError("MFSF2_TIMM_TESTS must name the tests folder of timm's source distribution")
    spec = importlib.util.spec_from_file_location("timm_test_models", Path(folder) / "test_models.py")
    if spec is None or spec.loader is None:
        raise RuntimeError(f"no test_models.py in {folder}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


timm_tests = load_timm_tests()

# The tests that timm runs over the names of all its models, and those it runs over a few that hold for any.
WITH_BATCH = {
    "test_model_forward": 1,
    "test_model_backward": 2,
    "test_model_forward_features": 1,
    "test_model_forward_intermediates_features": 1,
    "test_model_forward_intermediates": 1,
    "test_model_forward_fx": 1,
    "test_model_backward_fx": 2,
    "test_model_forward_fx_torchscript": 1,
}
BY_NAME = [
    "test_reset_classifier_keeps_pool",
    "test_prune_intermediate_layers_params_used",
    "test_forward_after_prune_intermediate_layers",
    "test_prune_intermediate_layers_contract",
    "test_features_only_grad_checkpointing_backward",
    "test_features_only_feature_cls_class",
]
WITH_KWARGS = ["test_head_hidden_size", "test_model_init_weights_after_to_empty"]

# Left out, with the reason:
LEFT_OUT = {
    "test_model_inference": "needs weights and images from the Hub",
    "test_model_load_pretrained": "needs weights from the Hub; tests/test_hub.py does the same on a local one",
    "test_model_features_pretrained": "the same",
    "test_model_default_cfgs_non_std": "for models without a map as features; the standard test runs",
    "test_model_forward_torchscript": "timm's ResNet.forward_intermediates is not scriptable; traced networks are",
}


@pytest.mark.parametrize("test", WITH_BATCH)
def test_generic(test: str) -> None:
    getattr(timm_tests, test)(NAME, WITH_BATCH[test])


def test_default_cfgs() -> None:
    for name in (NAME, f"{NAME}.in1k_backbones"):
        timm_tests.test_model_default_cfgs(name, 1, "meta")


@pytest.mark.parametrize("test", BY_NAME)
def test_by_name(test: str) -> None:
    getattr(timm_tests, test)(NAME)


@pytest.mark.parametrize("stop_early_final", [False, True])
def test_last_feature(stop_early_final: bool) -> None:
    timm_tests.test_prune_intermediate_layers_last_feature(NAME, stop_early_final)


@pytest.mark.parametrize("test", WITH_KWARGS)
def test_with_kwargs(test: str) -> None:
    getattr(timm_tests, test)(NAME, {})


def test_nothing_is_left_out_silently() -> None:
    """Every test of timm's that runs over all model names is run here, or named with its reason."""
    source = Path(timm_tests.__file__ or "").read_text()
    over_all = set(re.findall(r"list_models\((?:(?!\ndef |\n    def ).)*?\n *def (test_\w+)", source, re.DOTALL))
    generic = {name for name in over_all if re.search(rf"def {name}\(model_name, batch_size", source)}
    assert generic <= {*WITH_BATCH, "test_model_default_cfgs", *LEFT_OUT}, generic
