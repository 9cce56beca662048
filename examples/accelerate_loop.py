"""Digits -> a vitreous model trained by a loop with Accelerate, in a file that `vitreous.load_model` opens.

    pip install accelerate
    python examples/accelerate_loop.py digits.safetensors
    accelerate launch --num_processes 4 examples/accelerate_loop.py digits.safetensors

Use this if your project already has such a loop. `vitreous train` needs no loop, and writes a report.
"""

import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import vitreous as vt
from vitreous.model import save_model


def main(path: str, epochs: int = 15) -> None:
    set_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 8 - 1
    held_out = torch.arange(len(images)) % 5 == 0
    train, test = (TensorDataset(images[rows], torch.from_numpy(digits.target)[rows]) for rows in (~held_out, held_out))

    accelerator = Accelerator()
    model = vt.create_model("vit_pico", num_classes=10, in_chans=1, img_size=8, patch_size=2, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    train_loader, test_loader = DataLoader(train, batch_size=32, shuffle=True), DataLoader(test, batch_size=400)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=epochs * len(train_loader))
    model, optimizer, schedule, train_loader, test_loader = accelerator.prepare(
        model, optimizer, schedule, train_loader, test_loader
    )

    for _ in range(epochs):
        model.train()
        for batch, labels in train_loader:
            optimizer.zero_grad()
            accelerator.backward(F.cross_entropy(model(batch), labels, label_smoothing=0.1))
            optimizer.step()
            schedule.step()

    model.eval()
    correct = []
    with torch.no_grad():
        for batch, labels in test_loader:
            correct.append(accelerator.gather_for_metrics(model(batch).argmax(dim=1) == labels))
    if accelerator.is_main_process:
        save_model(path, accelerator.unwrap_model(model), {})
        print(f"accuracy {torch.cat(correct).double().mean():.1%}; the model is in {path}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
