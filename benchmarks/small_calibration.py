"""Small folder with train/ and val/ -> how good the probabilities are by the images that fit the temperature.

    python benchmarks/small_calibration.py                     digits; a few minutes on two cores
    python benchmarks/small_calibration.py --photos FOLDER     a folder of class folders instead, at 32 px

A run trains on 300 images and reports its accuracy on 100 validation images. All other images (at most 1,000) are test
images, which only score. The temperature is fitted to

- val: the validation images, as vitreous does; they are not trained on;
- train: the training images;
- augmented: the training images as the run augments them;
- held out: 10% of the training images, which a second run does not train on;
- none: it is 1.

`best` is fitted to the test images, so no other temperature can be better. "val, cross-fitted" scores the validation
images as `predictions.csv` does: it should equal the loss of "val" on the test images up to noise. Results go to
benchmarks/results/HARDWARE/small_calibration.json as they are measured; runs that are already there are skipped.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import vitreous as vt
from results import command_line, results_file
from vitreous.data.build import build_augment
from vitreous.data.loader import EvalLoader, TrainLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import open_source
from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import compute_logits, cross_fitted_temperatures, fit_temperature, mean_loss
from vitreous.use.predict.predictor import Predictor

NUM_TRAIN, NUM_VAL, MOST_TEST = 300, 100, 1000
NUM_VIEWS = 4
Scored = tuple[torch.Tensor, torch.Tensor]
"""Logits and labels."""


def read_images(photos: Path | None) -> tuple[list[Image.Image], np.ndarray]:
    """Return all images, and their class numbers."""
    if photos is None:
        digits = load_digits()
        return [Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in digits.images], digits.target
    source = open_source(str(photos))
    classes = [source.classes[number] for number in source.labels]
    files = [photos / source.describe(number) for number in range(len(source))]
    return [Image.open(file).convert("RGB").resize((32, 32)) for file in files], np.unique(
        classes, return_inverse=True
    )[1]


def write(images: list[Image.Image], labels: np.ndarray, indices: np.ndarray, folder: Path) -> None:
    """Write images as PNG files, with a folder for each class."""
    for index in indices:
        (folder / str(labels[index])).mkdir(parents=True, exist_ok=True)
        images[index].save(folder / str(labels[index]) / f"{index}.png")


def split(labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return which images serve what; `most` and `held_out` are parts of `train`."""
    rest, train = train_test_split(np.arange(len(labels)), test_size=NUM_TRAIN, stratify=labels, random_state=seed)
    test, val = train_test_split(rest, test_size=NUM_VAL, stratify=labels[rest], random_state=seed)
    most, held_out = train_test_split(train, test_size=0.1, stratify=labels[train], random_state=seed)
    return {"train": train, "val": val, "test": test[:MOST_TEST], "most": most, "held_out": held_out}


def run_case(photos: Path | None, seed: int, epochs: float) -> dict[str, dict[str, float]]:
    """Train with and without the held-out images; return the loss on the test images for each way to calibrate."""
    images, labels = read_images(photos)
    parts = split(labels, seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, train, val in (("all", "train", "val"), ("fewer", "most", "held_out")):
            write(images, labels, parts[train], folder / kind / "train")
            write(images, labels, parts[val], folder / kind / "val")
        write(images, labels, parts["test"], folder / "test")
        runs = {
            kind: vt.train(folder / kind, epochs=epochs, config={"train.seed": seed}, out=folder / f"run-{kind}")
            for kind in ("all", "fewer")
        }
        predictor = Predictor.load(runs["all"].path)

        def loader(path: Path) -> EvalLoader:
            source = open_source(str(path))
            return EvalLoader(
                load_store(source, np.arange(len(source)), predictor.preprocess), predictor.preprocess, 256
            )

        def score(model: torch.nn.Module, path: Path) -> Scored:
            return compute_logits(model, loader(path), "fp32")

        train_folder, test_folder = folder / "all" / "train", folder / "test"
        test, val = score(predictor.model, test_folder), score(predictor.model, folder / "all" / "val")
        source, data = open_source(str(train_folder)), read_config(runs["all"].path / "config.yaml").data
        views = TrainLoader(
            load_store(source, np.arange(len(source)), predictor.preprocess), predictor.preprocess, build_augment(data),
            batch_size=100, seed=seed + 1,
        )  # fmt: skip
        augmented = compute_logits(
            predictor.model, (views.batch(step) for step in range(int(NUM_VIEWS * views.steps_per_epoch))), "fp32"
        )
        train = score(predictor.model, train_folder)
        fitted_to = {"val": val, "train": train, "augmented": augmented, "best": test}
        temperatures = {"none": 1.0} | {name: fit_temperature(*scored) for name, scored in fitted_to.items()}
        losses = {name: mean_loss(test[0] / temperature, test[1]) for name, temperature in temperatures.items()}
        fewer = Predictor.load(runs["fewer"].path)
        test_of_fewer = score(fewer.model, test_folder)
        temperatures["held out"] = fit_temperature(*score(fewer.model, folder / "fewer" / "val"))
        losses["held out"] = mean_loss(test_of_fewer[0] / temperatures["held out"], test_of_fewer[1])
        losses["val, cross-fitted"] = mean_loss(val[0] / cross_fitted_temperatures(*val), val[1])
    right = {"all": test, "fewer": test_of_fewer, "train": train}
    return {
        "loss": {name: round(float(loss), 4) for name, loss in losses.items()},
        "temperature": {name: round(float(value), 3) for name, value in temperatures.items()},
        "accuracy": {name: round(float((x.argmax(dim=1) == y).float().mean()), 4) for name, (x, y) in right.items()},
    }


def main() -> None:
    """Run all cases that have no result yet, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=float, default=40.0)
    options = parser.parse_args()
    path, stored = results_file("small_calibration")
    stored.setdefault("cases", {})
    data = "digits" if options.photos is None else options.photos.name
    found = []
    for seed in range(options.seeds):
        case = f"{data}, {options.epochs:g} epochs, seed {seed}"
        if case not in stored["cases"]:
            stored["cases"][case] = run_case(options.photos, seed, options.epochs)
            stored["command"] = command_line().replace(str(options.photos), data)
            path.write_text(json.dumps(stored, indent=2) + "\n")
        found.append(stored["cases"][case])
    for kind in ("loss", "temperature", "accuracy"):
        for name in found[0][kind]:
            values = [result[kind][name] for result in found]
            print(f"{kind:12}{name:20}{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}")


if __name__ == "__main__":
    main()
