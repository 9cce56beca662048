"""Digits -> a vitreous model trained by Lightning's Trainer, in a file that `vitreous.load_model` opens.

    pip install lightning
    python examples/lightning_loop.py digits.safetensors

Use this if your project already has a Lightning loop. `vitreous train` needs no loop, and writes a report.
"""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import vitreous as vt
from vitreous.model import save_model

Batch = tuple[Tensor, Tensor]


class Digits(lightning.LightningModule):
    """A small Vision Transformer for images of 8x8 px, and how it is optimized."""

    def __init__(self) -> None:
        super().__init__()
        self.model = vt.create_model("vit_pico", num_classes=10, in_chans=1, img_size=8, patch_size=2, seed=0)

    def training_step(self, batch: Batch, number: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.model(images), labels, label_smoothing=0.1)

    def validation_step(self, batch: Batch, number: int) -> None:
        images, labels = batch
        self.log("accuracy", (self.model(images).argmax(dim=1) == labels).double().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=3e-3, weight_decay=0.05)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(path: str, epochs: int = 15) -> None:
    lightning.seed_everything(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    held_out = torch.arange(len(images)) % 5 == 0
    train, test = (TensorDataset(images[rows], torch.from_numpy(digits.target)[rows]) for rows in (~held_out, held_out))
    module = Digits()
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=400))
    save_model(path, module.model.eval(), {})
    print(f"accuracy {trainer.callback_metrics['accuracy']:.1%}; the model is in {path}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
