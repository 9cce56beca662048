"""Pretrained weights, photo folders -> accuracy of a fitted head by layer and pool of the features.

    python benchmarks/pools.py WEIGHTS --data ../shared/data --img-size 126

For each photo folder, a head is fitted to the features of the training images as `vitreous train --pretrained` does,
after each of the last blocks and for the class token, the mean of the patch tokens, and both together. Accuracy is
cross-validated on the training images, and that of the validation and test images, which nothing was fitted to. It
answers whether runs should look for the best layer and pool themselves. Results go to
benchmarks/results/HARDWARE/pools.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vitreous as vt
from held_out import Photo, split_photos
from results import command_line, results_file
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model.change.reshape import resize_model
from vitreous.model.vit import VisionTransformer
from vitreous.training.weights.fitted_head import fit_head

SETS = ("clothing-96px", "sign-digits")
LAST = (12, 11, 10, 9)
"""Blocks after which features are taken, counted from 1."""
POOLS = ("class token", "mean of the patches", "both")


@torch.inference_mode()
def features_of(model: VisionTransformer, images: Tensor) -> dict[str, Tensor]:
    """Return the features of a batch by layer and pool, `[images, features]`, float32."""
    tokens_after: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _, __, out: tokens_after.append(out)) for block in model.encoder.blocks]
    with torch.autocast("cpu", torch.bfloat16):
        model(images)
        normalized = [model.encoder.norm(tokens).float() for tokens in tokens_after]
    for hook in hooks:
        hook.remove()
    found = {}
    for layer in LAST:
        tokens = normalized[layer - 1]
        first, mean = tokens[:, 0], tokens[:, model.config.num_prefix_tokens :].mean(dim=1)
        for pool, values in zip(POOLS, (first, mean, torch.cat([first, mean], dim=1)), strict=True):
            found[f"block {layer}, {pool}"] = values
    return found


def compute(model: VisionTransformer, photos: list[Photo], preprocess: Preprocess) -> dict[str, Tensor]:
    """Return the features of photos by layer and pool."""
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(photos), 128):
        pixels = torch.stack([preprocess.pixels(path) for path, _ in photos[start : start + 128]])
        parts.append(features_of(model, preprocess.normalize(pixels)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def main() -> None:
    """Compare layers and pools on each set, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the photo folders")
    parser.add_argument("--img-size", type=int, default=126)
    parser.add_argument("--most", type=int, default=3000, help="training images of each set")
    options = parser.parse_args()
    path, stored = results_file("pools")
    model = resize_model(vt.load_model(options.weights), (options.img_size, options.img_size)).eval()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    preprocess = Preprocess((options.img_size, options.img_size), 3, "crop", mean, std)
    for name in SETS:
        split = split_photos(options.data / name)
        train, held_out = (
            split["train"][:: max(1, len(split["train"]) // options.most)],
            [*split["val"], *split["test"]],
        )
        numbers = {label: number for number, label in enumerate(sorted({label for _, label in train}))}
        labels, true = (torch.tensor([numbers[label] for _, label in photos]) for photos in (train, held_out))
        features, others = compute(model, train, preprocess), compute(model, held_out, preprocess)
        for key in features:
            head = fit_head(features[key], labels, len(numbers), np.arange(len(labels)))
            right = (others[key] @ head.weight.T + head.bias).argmax(dim=1) == true
            cross_validated = None if head.cross_validated is None else head.cross_validated.accuracy
            row = {"cross_validated": cross_validated, "held_out": float(right.float().mean()), "method": head.method}
            stored.setdefault(f"{name}, {options.img_size} px", {})[key] = row
            print(f"{name}: {key}: {row['held_out']:.1%}, cross-validated {cross_validated:.1%}", flush=True)
        path.write_text(json.dumps(stored | {"command": command_line()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
