"""Number of layers in LeGrad -> how well its order of the patches agrees with removing them.

    python benchmarks/legrad_layers.py ../shared/data/weights/mnist-vit/vit_mnist_gpu.pt ../shared/data/mnist
    python benchmarks/legrad_layers.py RUN PHOTOS

Patches are removed in steps of a sixth, the most relevant first and the least relevant first. The number is the mean
difference of the explained logit between the two curves, over up to `--count` images that the model has not seen, with
its standard error. A random order gives 0. Results are stored under the name of the model in
benchmarks/results/HARDWARE/legrad_layers.json, next to those of other models.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

import torch
from torch import Tensor

from results import command_line, results_file
from vitreous.model import VisionTransformer, load_model
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.target import Target
from vitreous.use.predict.inputs import list_images
from vitreous.use.predict.predictor import Predictor


def load(model: Path, folder: Path, count: int) -> tuple[VisionTransformer, Tensor]:
    """Return a model and normalized images for it: those of a run, or the published MNIST model."""
    if model.suffix == ".pt":
        data = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
        pixels = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 1, 28, 28)[:count]
        mnist = load_model(model, architecture={"num_heads": 4, "act": "relu", "norm_eps": 1e-5})
        return mnist.eval(), (pixels / 255 - 0.1307) / 0.3081
    predictor, files = Predictor.load(model), list_images([folder])
    random.Random(0).shuffle(files)
    pixels = torch.stack([predictor.preprocess.pixels(file) for file in files[:count]])
    return predictor.model, predictor.preprocess.normalize(pixels)


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
    parser.add_argument("model", type=Path, help="folder of a finished run, or the MNIST model")
    parser.add_argument("images", type=Path, help="folder of images, or of MNIST's files")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    model, images = load(options.model, options.images, options.count)
    with torch.no_grad():
        target = Target().fixed(model(images))
    removal, depth = PatchRemoval(model, images), len(model.encoder.blocks)
    torch.manual_seed(0)
    rows = {"random": area(removal, target, torch.rand(len(images), *removal.grid_size))}
    for count in sorted({1, 2, depth // 2, depth}):
        values = METHODS["legrad"](model, images, target, num_layers=count).values
        rows[f"last {count} of {depth}"] = area(removal, target, values)
        print(f"last {count} of {depth}: {rows[f'last {count} of {depth}']}", flush=True)
    path, stored = results_file("legrad_layers")
    stored.setdefault("models", {})[options.model.name] = {
        "command": command_line(), "images": len(images), "pool": model.config.pool, "area": rows
    }  # fmt: skip
    path.write_text(json.dumps(stored, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
