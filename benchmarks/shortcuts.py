"""Does the check for shortcuts find a planted mark, stay silent without one, and which method shows the mark best?

Trains tiny models on hand signs and on digits, with a glyph in a corner of 60% of one class, and without; models with
plain patches, and with the stem of convolutions that small images get by default. For each model it stores what the
check finds, and the places that move most predictions: `MAX_CHANCE` in `use/explain/shortcuts.py` is between those of
the two kinds. It also stores the share of relevance on the glyph by method.

Finished models are skipped: `python benchmarks/shortcuts.py --seeds 3`.
"""

import argparse
import json
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from results import results_file

sys.path.append(str(Path(__file__).parents[1]))
from tests.learning.planted import CORNERS, PLAIN, Photos, corner_of, marked, mnist, normalized, sign_digits, trained

from vitreous.data.sources import open_object
from vitreous.use.evaluate.labeled_images import LabeledImages, labeled_images
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.shortcut_check import moved_predictions
from vitreous.use.explain.shortcuts import classes_to_check, find_shortcuts, places_near_border
from vitreous.use.predict.predictor import Predictor

DATA = {"sign-digits": (sign_digits, 12.0), "mnist": (mnist, 8.0)}
METHODS_ON_MARKS = tuple(name for name in METHODS if name not in ("attention", "rollout", "shapley"))
NUM_SHOWN = 5
"""Number of places that are stored for each model, those that move most predictions."""


def measure(name: str, stem: str, planted: bool, seed: int) -> dict[str, Any]:
    """Train one model and check it."""
    load, epochs = DATA[name]
    photos, corner = load(), list(CORNERS)[seed % 4]
    number = 3 * seed % len(photos.classes)
    if planted:
        photos = marked(photos, number, corner, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        keys = PLAIN if stem == "plain" else {}
        run, held_out = trained(photos, Path(folder) / "run", seed=seed, epochs=epochs, **keys)
        predictor = Predictor.load(run.path)
        found = {"planted": f"{held_out.classes[number]}, {corner} corner"} if planted else {}
        found |= checked(predictor, labeled_images(run.path, predictor, open_object(held_out)))
        if planted:
            found["on_mark"] = on_mark(predictor.model, normalized(run, held_out), held_out, corner)
    return found


def checked(predictor: Predictor, images: LabeledImages) -> dict[str, Any]:
    """Return what the check finds, and the share of images in which the best places move the prediction."""
    sample = Sample.draw(images, predictor, 1_000)
    predicted, grid_size = sample.predicted().numpy(), predictor.model.config.grid_size
    places, numbers = places_near_border(*grid_size), classes_to_check(predicted, len(predictor.classes), grid_size)
    moved = moved_predictions(sample, predicted, numbers, list(places.values()), lambda done, total: None)
    shares = {
        f"{predictor.classes[number]}, {place}": float(share)
        for number in numbers
        for place, share in zip(places, moved[predicted == number].mean(axis=0), strict=True)
    }
    shortcuts = find_shortcuts(moved, predicted, numbers, predictor.classes, places)
    return {
        "accuracy": float(np.mean(predicted == sample.labels)),
        "found": {f"{each.class_name}, {each.place}": each.followed for each in shortcuts.found},
        "moved": dict(sorted(shares.items(), key=lambda entry: -entry[1])[:NUM_SHOWN]),
    }


def on_mark(model: torch.nn.Module, images: torch.Tensor, photos: Photos, corner: str) -> dict[str, float]:
    """Return, by method, the share of relevance on the mark as a multiple of its share of the area: a median."""
    chosen = images[np.flatnonzero(photos.has_cue)[:50]]
    found = {}
    for name in METHODS_ON_MARKS:
        shares = METHODS[name](model, chosen).values.clamp(min=0)
        shares /= shares.sum(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        rows, columns = corner_of(shares.shape[1:], corner, 2)
        found[name] = float(shares[:, rows, columns].sum(dim=(1, 2)).median()) * shares[0].numel() / 4
    return found


def main() -> None:
    """Run what is not stored yet, and print all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    path, results = results_file("shortcuts")
    stored = results.setdefault("models", {})
    for seed, name, stem, planted in product(range(asked.seeds), asked.data, ("plain", "default"), (True, False)):
        key = f"{name}, {stem} stem, {'planted' if planted else 'clean'}, seed {seed}"
        if key not in stored:
            stored[key] = measure(name, stem, planted, seed)
            path.write_text(json.dumps(results, indent=1) + "\n")
        show(key, stored[key])


def show(key: str, found: dict[str, Any]) -> None:
    """Print one model."""
    print(f"{key}: accuracy {found['accuracy']:.3f}; planted: {found.get('planted', 'nothing')}")
    for place, share in found["moved"].items():
        print(f"    {place} moves {share:.0%} of predictions{': found' if place in found['found'] else ''}")
    for name, multiple in found.get("on_mark", {}).items():
        print(f"    {name}: {multiple:.1f} times the share of the area")


if __name__ == "__main__":
    main()
