"""transformers: Auto classes and the pipeline for image classification, on folders of ``save_pretrained``."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForImageClassification

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
