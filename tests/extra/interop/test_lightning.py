"""Lightning: training, validation, checkpoints."""

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from micro import create
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Classifier(lightning.LightningModule):
    def __init__(self, num_classes: int = 2, lr: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.model = create("cls", num_classes=num_classes)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, labels = batch
        loss = F.cross_entropy(self.model(x), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        x, labels = batch
        self.log("val_loss", F.cross_entropy(self.model(x), labels))

    def predict_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.model(batch[0]).softmax(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams["lr"])


def test_training_and_checkpoint(tmp_path: Path) -> None:
    x = torch.randn(8, 3, 64, 64)
    loader = DataLoader(TensorDataset(x, torch.tensor([0, 1] * 4)), batch_size=4)
    best = ModelCheckpoint(tmp_path, monitor="val_loss")
    options: dict[str, Any] = dict(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer = lightning.Trainer(max_epochs=2, callbacks=[best], default_root_dir=tmp_path, **options)
    module = Classifier()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    trainer.fit(module, loader, loader)
    assert not any(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    restored = Classifier.load_from_checkpoint(best.best_model_path)
    (logits, *_) = trainer.predict(restored, loader)
    # The checkpoint is one of mfsf2's, too: the prefix `model.` and the hyperparameters beside the weights are known.
    model = create("cls", num_classes=2, checkpoint_path=best.best_model_path).eval()
    torch.testing.assert_close(model(x[:4]).softmax(1), logits)
    # Training goes on from it.
    again = lightning.Trainer(max_epochs=3, default_root_dir=tmp_path, **options)
    again.fit(Classifier(), loader, ckpt_path=best.best_model_path)
    assert again.current_epoch == 3
