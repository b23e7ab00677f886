"""transformers: Auto classes and the pipeline for image classification, on folders of ``save_pretrained``."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.nn import functional as F
from transformers import AutoModelForImageClassification, pipeline

import mfsf2
import mfsf2.timm_models


def test_auto_model(tmp_path: Path) -> None:
    x = torch.randn(2, 3, 64, 64)
    for index, kwargs in enumerate([dict(pretrained=True), dict(num_classes=3)]):
        model: Any = mfsf2.create_model("mfsf2_tiny_cls", **kwargs).eval()
        folder = tmp_path / str(index)
        mfsf2.save_pretrained(model, folder)
        wrapped = AutoModelForImageClassification.from_pretrained(folder)
        assert torch.equal(wrapped.eval()(x).logits, model(x))
        F.cross_entropy(wrapped.train()(x).logits, torch.tensor([0, 1])).backward()
        with tempfile.TemporaryDirectory() as again:
            wrapped.save_pretrained(again)
            twin = AutoModelForImageClassification.from_pretrained(again).eval()
            assert torch.equal(twin(x).logits, wrapped.eval()(x).logits)


def test_pipeline(tmp_path: Path) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", pretrained=True).eval()
    mfsf2.save_pretrained(model, tmp_path)
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (150, 200, 3), dtype=np.uint8))
    answers = pipeline("image-classification", model=str(tmp_path), top_k=7)(image)
    transform = create_transform(**resolve_data_config(model=model))
    probabilities = model(transform(image)[None]).softmax(1)[0]
    expected = dict(zip(model.pretrained_cfg["label_names"], probabilities.tolist()))
    assert {answer["label"]: answer["score"] for answer in answers} == pytest.approx(expected, abs=1e-6)
