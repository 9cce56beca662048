"""Does the check for shortcuts find a planted mark, stay silent without one, and which method shows the mark best?

Trains tiny models on hand signs and on digits, with a glyph in a corner of 60% of one class, and without; models with
plain patches, and with the stem of convolutions that small images get by default. For each model it stores, for several
density ratios, the largest excess of a class, what the check says, and how often predictions follow the places that
were suspected: the limits in `use/explain/shortcuts.py` and `exchange.py` are between those of the two kinds. It also
stores the share of relevance on the glyph by method.

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
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.shortcut_check import check_shortcuts
from vitreous.use.explain.shortcuts import MIN_IMAGES, is_concentrated, places_near_border, relevance_within

DATA = {"sign-digits": (sign_digits, 12.0), "mnist": (mnist, 8.0)}
METHODS_ON_MARKS = tuple(name for name in METHODS if name not in ("attention", "rollout", "shapley"))
RATIOS = (2.0, 3.0, 4.0, 6.0)


def largest_excess(values: np.ndarray, predicted: np.ndarray, ratio: float) -> tuple[float, str]:
    """Return the largest excess of a class over the median of the others, with its place."""
    places = places_near_border(*values.shape[1:])
    areas = np.array([place.mean() for place in places.values()])
    there = is_concentrated(relevance_within(values, places.values()), areas, ratio)
    large = [number for number in np.unique(predicted) if (predicted == number).sum() >= MIN_IMAGES]
    rates = np.stack([there[predicted == number].mean(axis=0) for number in large])
    excess = np.stack([rates[row] - np.median(np.delete(rates, row, axis=0), axis=0) for row in range(len(large))])
    row, column = np.unravel_index(excess.argmax(), excess.shape)
    return float(excess[row, column]), list(places)[column]


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
        checked = check_shortcuts(run.path, open_object(held_out)).shortcuts
        model, images, classes = run.model, normalized(run, held_out), run.classes
    with torch.inference_mode():
        predicted = torch.cat([model(batch).argmax(dim=1) for batch in images.split(128)]).numpy()
    values = torch.cat([METHODS[DEFAULT](model, batch).values for batch in images.split(64)]).numpy()
    true = np.array([classes.index(held_out.classes[label]) for label in held_out.labels])
    result: dict[str, Any] = {
        "accuracy": float(np.mean(predicted == true)),
        "sentences": list(checked.sentences),
        "found": {f"{each.class_name}, {each.place}": each.followed for each in checked.found},
        "dismissed": {f"{each.class_name}, {each.place}": each.followed for each in checked.dismissed},
        "largest_excess": {str(ratio): largest_excess(values, predicted, ratio) for ratio in RATIOS},
    }
    if planted:
        result |= {"planted": [held_out.classes[number], corner], "on_mark": _on_mark(model, images, held_out, corner)}
    return result


def _on_mark(model: torch.nn.Module, images: torch.Tensor, photos: Photos, corner: str) -> dict[str, float]:
    """Return, by method, the share of relevance on the mark as a multiple of its share of the area: a median."""
    chosen = images[np.flatnonzero(photos.has_cue)[:50]]
    found = {}
    for name in METHODS_ON_MARKS:
        shares = METHODS[name](model, chosen).values.clamp(min=0)
        shares /= shares.sum(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        rows, columns = corner_of(shares.shape[1:], corner, 2)
        on_mark = shares[:, rows, columns].sum(dim=(1, 2)).median()
        found[name] = float(on_mark) * shares[0].numel() / 4
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
    excess = ", ".join(f"{ratio}: {value:.2f}" for ratio, (value, _) in found["largest_excess"].items())
    print(f"{key}: accuracy {found['accuracy']:.3f}; largest excess by density ratio {excess}")
    for kind in ("found", "dismissed"):
        for place, followed in found[kind].items():
            print(f"    {kind}: {place}; predictions follow {followed:.0%} of the exchanges")
    for name, multiple in found.get("on_mark", {}).items():
        print(f"    {name}: {multiple:.1f} times the share of the area")
    for sentence in found["sentences"]:
        print(f"    {sentence}")


if __name__ == "__main__":
    main()
