"""Two checkouts -> the tensors that differ after training on digits, on photos, and across a resume.

    python benchmarks/same_weights.py BEFORE AFTER

Each case trains in both checkouts with the same seed and compares every tensor of `model.safetensors`. In the last case
the run starts in BEFORE, is interrupted there, and is resumed in AFTER. Exits with 1 if any tensor differs.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

CLASSES = {"disk": (200, 60, 40), "ring": (40, 160, 60), "square": (50, 80, 200)}
IMAGES_PER_CLASS = 40


def make_photos(folder: Path) -> Path:
    """Write a folder of class folders: noisy JPEGs of a disk, a ring or a square, of different sizes."""
    draw = np.random.default_rng(0)
    for name, color in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES_PER_CLASS):
            height, width = draw.integers(48, 80, 2)
            rows, columns = np.mgrid[:height, :width]
            y, x, radius = height * draw.uniform(0.4, 0.6), width * draw.uniform(0.4, 0.6), draw.uniform(10, 18)
            distance = np.hypot(rows - y, columns - x)
            inside = {
                "disk": distance < radius,
                "ring": (distance < radius) & (distance > radius / 2),
                "square": np.maximum(abs(rows - y), abs(columns - x)) < radius,
            }[name]
            pixels = draw.normal(128, 30, (height, width, 3))
            pixels[inside] += np.array(color) - 128
            Image.fromarray(pixels.clip(0, 255).astype("uint8")).save(folder / name / f"{number:03}.jpg", quality=90)
    return folder


def command(checkout: Path, *words: object) -> "subprocess.Popen[str]":
    """Start `vitreous train` from a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve() / "src")}
    line = [sys.executable, "-m", "vitreous", "train", *map(str, words)]
    return subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def train(checkout: Path, *words: object) -> None:
    """Run `vitreous train` from a checkout to its end."""
    process = command(checkout, *words)
    _, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{checkout}: vitreous train {' '.join(map(str, words))} failed:\n{errors}")


def train_until_checkpoint(checkout: Path, out: Path, *words: object) -> None:
    """Start a run, and interrupt it like Ctrl-C once it has written a checkpoint."""
    process = command(checkout, *words, "--out", out)
    while process.poll() is None and not list(out.glob("checkpoints/*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate()
    if (out / "model.safetensors").exists():
        raise SystemExit(f"{out}: the run ended before it could be interrupted; give it more epochs")


def differences(before: Path, after: Path) -> list[str]:
    """Return the names of the tensors that differ between two runs."""
    first, second = (load_file(run / "model.safetensors") for run in (before, after))
    names = sorted({*first, *second})
    shared = first.keys() & second.keys()
    return [name for name in names if name not in shared or not torch.equal(first[name], second[name])]


def main() -> None:
    """Train every case in both checkouts and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    paths = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        photos = make_photos(place / "photos")
        cases = {
            "digits": ("digits", "--epochs", 5),
            "photos": (photos, "--epochs", 3, "--img-size", 48),
            "photos, resumed": (photos, "--epochs", 12, "--img-size", 48, "--train.checkpoint_every_s", 0.5),
        }
        for name, words in cases.items():
            before, after = place / f"{name}-before", place / f"{name}-after"
            train(paths.before, *words, "--out", before)
            if name.endswith("resumed"):
                train_until_checkpoint(paths.before, after, *words)
                train(paths.after, "--resume", after)
            else:
                train(paths.after, *words, "--out", after)
            differ = differences(before, after)
            failed |= bool(differ)
            print(f"{name}: {'the same weights, bit for bit' if not differ else f'differ in {differ}'}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
