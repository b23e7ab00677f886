"""What works with no extra installed: build, run, save, load. Run outside the source tree."""

import importlib.util
import tempfile

import torch

import mfsf2
import mfsf2.deploy

extras = ("matplotlib", "onnx", "onnxscript", "pytest", "scipy")
present = [name for name in extras if importlib.util.find_spec(name)]
if present:
    raise SystemExit(f"not a minimal environment: {present} installed")

model = mfsf2.create_model("mfsf2_tiny_cls").eval()
x = torch.randn(1, 3, 64, 64)
with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
    mfsf2.save_pretrained(model, folder)
    if not torch.equal(mfsf2.create_model(f"local-dir:{folder}").eval()(x), model(x)):
        raise SystemExit("a saved network computes something else")
    program = mfsf2.deploy.export_program(model)
    try:
        mfsf2.deploy.export_onnx(program, f"{folder}/model.onnx")
    except ImportError as error:
        print(error)
    else:
        raise SystemExit("ONNX export worked without its extra")
trained = mfsf2.create_model("mfsf2_tiny_clsseg", pretrained=True).eval()
with torch.no_grad():
    if trained(torch.zeros(1, 3, 128, 128)).logits.shape != (1, 7):
        raise SystemExit("the package's weights do not work")
print("minimal environment: passed")
