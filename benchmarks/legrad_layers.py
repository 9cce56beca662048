"""Number of layers in LeGrad -> how well its order of the patches agrees with removing them.

    python benchmarks/legrad_layers.py RUN PHOTOS

Patches are removed in steps of a sixth, the most relevant first and the least relevant first. The number is the mean
difference of the explained logit between the two curves, over up to `--count` photos below the folder PHOTOS, with its
standard error. A random order gives 0. Results are stored under the name of the run in
benchmarks/results/HARDWARE/legrad_layers.json, next to those of other runs.
"""

import argparse
import json
import random
from pathlib import Path

import torch
from torch import Tensor

from results import command_line, results_file
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.removal import PatchRemoval
from vitreous.use.explain.target import Target
from vitreous.use.predict.inputs import list_images
from vitreous.use.predict.predictor import Predictor


def area(removal: PatchRemoval, target: Target, values: Tensor) -> list[float]:
    """Return the mean and standard error of the area between the curves, for the values of each image."""
    numbers, flat = torch.arange(len(values)), values.flatten(1)
    curves = []
    for descending in (False, True):
        ranks = flat.argsort(dim=1, descending=descending).argsort(dim=1)
        steps = range(0, removal.num_patches, -(-removal.num_patches // 6))
        scores = [target.scores(removal.logits(numbers, ranks >= removed)) for removed in steps]
        curves.append(torch.stack(scores).mean(dim=0))
    between = curves[0] - curves[1]
    return [round(float(between.mean()), 3), round(float(between.std() / len(between) ** 0.5), 3)]


def main() -> None:
    """Measure every number of layers and a random order, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished run, or its model file")
    parser.add_argument("photos", type=Path, help="folder of images that the run has not seen")
    parser.add_argument("--count", type=int, default=64)
    options = parser.parse_args()
    predictor = Predictor.load(options.run)
    files = list_images([options.photos])
    random.Random(0).shuffle(files)
    pixels = torch.stack([predictor.preprocess.pixels(file) for file in files[: options.count]])
    images = predictor.preprocess.normalize(pixels)
    with torch.no_grad():
        target = Target().fixed(predictor.model(images))
    removal, depth = PatchRemoval(predictor.model, images), predictor.model.config.depth
    torch.manual_seed(0)
    rows = {"random": area(removal, target, torch.rand(len(images), *removal.grid_size))}
    for count in sorted({1, 2, 3, depth // 2, depth} & set(range(1, depth + 1))):
        values = METHODS["legrad"](predictor.model, images, target, num_layers=count).values
        rows[f"last {count} of {depth}"] = area(removal, target, values)
        print(f"last {count} of {depth}: {rows[f'last {count} of {depth}']}", flush=True)
    path, stored = results_file("legrad_layers")
    stored.setdefault("runs", {})[options.run.name] = {
        "command": command_line(), "images": len(images), "pool": predictor.model.config.pool, "area": rows
    }  # fmt: skip
    path.write_text(json.dumps(stored, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
