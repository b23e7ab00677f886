"""torchao: int8 weights, and int8 activations too, in the linear layers of the trained tiny classifier."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8Tensor, Int8WeightOnlyConfig, quantize_

import mfsf2

CONFIGS = {"weights": Int8WeightOnlyConfig, "activations": Int8DynamicActivationInt8WeightConfig}


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_int8(kind: str, tmp_path: Path) -> None:
    model: Any = mfsf2.create_model("mfsf2_tiny_cls", pretrained=True).eval()
    transform = create_transform(**resolve_data_config(model=model))
    paths = sorted(Path(__file__).parents[2].glob("lesions/*.png"))
    x = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    expected = model(x).softmax(1)
    quantize_(model, CONFIGS[kind]())
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    state = model.state_dict()
    assert linear
    assert all(isinstance(state[f"{name}.weight"], Int8Tensor) for name in linear)
    got = model(x).softmax(1)
    assert 0 < (got - expected).abs().max() < 0.05
    assert torch.equal(got.argmax(1), expected.argmax(1))

    torch.save(state, tmp_path / "int8.pt")
    with torch.device("meta"):
        twin: Any = mfsf2.create_model("mfsf2_tiny_cls")
    twin.load_state_dict(torch.load(tmp_path / "int8.pt", weights_only=True), assign=True)
    assert torch.equal(twin.eval()(x).softmax(1), got)
    # Its configuration would not rebuild the quantized layers.
    with pytest.raises(ValueError, match="save before folding or quantizing"):
        mfsf2.save_pretrained(model, tmp_path / "saved")
