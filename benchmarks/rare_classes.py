"""A large and a small class -> what each way to react to it does to the recall of both.

    python benchmarks/rare_classes.py            about 4 minutes on two cores

The large class is the digits 0 to 4 of scikit-learn's set, the small one the digits 5 to 9. The test images are all
others. Accuracy is given at the class frequencies of the training images, so that it can be compared with always
predicting the large class. Results go to benchmarks/results/HARDWARE/rare_classes.json as they are measured; runs that
are already there are skipped.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

import vitreous as vt
from results import results_file

REACTIONS = {
    "none": {"data.sampler": "shuffle"},
    "balanced sampler": {"data.sampler": "balanced"},
    "class weights": {"data.sampler": "shuffle", "objective.class_weights": "balanced"},
    "logit adjustment": {"data.sampler": "shuffle", "objective.logit_adjustment": 1.0},
}
NUM_LARGE = 500
NUM_SMALL = (15, 50)


def write_photos(folder: Path, num_small: int, seed: int) -> None:
    """Write the images as PNG files into train/ and test/, with a folder for each class."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    for name, is_member, num in (("large", digits.target < 5, NUM_LARGE), ("small", digits.target >= 5, num_small)):
        members = [index for index in order if is_member[index]]
        for split, chosen in (("train", members[:num]), ("test", members[num:])):
            (folder / split / name).mkdir(parents=True)
            for index in chosen:
                pixels = (digits.images[index] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index}.png")


def run_case(num_small: int, reaction: str, seed: int, epochs: float) -> dict[str, float]:
    """Train once and return the recall of both classes, accuracy and balanced accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        write_photos(Path(folder) / "photos", num_small, seed)
        config = {**REACTIONS[reaction], "train.seed": seed}
        run = vt.train(Path(folder) / "photos", epochs=epochs, config=config, out=Path(folder) / "run")
        recalls = {row.name: row.recall for row in run.evaluate().classes}
    share = NUM_LARGE / (NUM_LARGE + num_small)
    return {
        **{f"recall of {name}": round(recall, 4) for name, recall in recalls.items()},
        "accuracy": round(share * recalls["large"] + (1 - share) * recalls["small"], 4),
        "balanced_accuracy": round((recalls["large"] + recalls["small"]) / 2, 4),
    }


def main() -> None:
    """Run the cases that are not stored yet, then print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=40.0)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    path, stored = results_file("rare_classes")
    runs = stored.setdefault("runs", {})
    for num_small in NUM_SMALL:
        for reaction in REACTIONS:
            for seed in range(options.seeds):
                name = f"{NUM_LARGE} and {num_small}, {reaction}, {options.epochs:g} epochs, seed {seed}"
                if name not in runs:
                    runs[name] = run_case(num_small, reaction, seed, options.epochs)
                    path.write_text(json.dumps(stored, indent=1) + "\n")
            group = f"{NUM_LARGE} and {num_small}, {reaction}, {options.epochs:g} epochs"
            found = [run for name, run in runs.items() if name.startswith(f"{group}, ")]
            means = {key: statistics.mean(run[key] for run in found) for key in ("accuracy", "balanced_accuracy")}
            print(f"{group}: {means['accuracy']:.1%}; {means['balanced_accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
