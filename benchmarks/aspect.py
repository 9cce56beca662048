"""Pretrained weights, photos of one aspect ratio -> accuracy on their square center and on the whole photo.

    .venv/bin/python benchmarks/aspect.py dinov2-small ../shared/data/clothing-256px

Photos of a folder of class folders (with or without `train/` and others above them) that are three quarters as wide as
high are cropped to a square, squashed to a square, or kept whole at a size with about the same number of patches. A
logistic regression of the frozen features is cross-validated (5 folds, 3 shuffles). Photos of a group cost the same.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vitreous
from results import command_line, results_file

ASPECT, NUM_PHOTOS, SHUFFLES = 0.75, 1400, 3
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
CASES = (((98, 98), "crop"), ((98, 98), "squash"), ((112, 84), "whole"), ((126, 126), "crop"), ((126, 126), "squash"),
         ((140, 112), "whole"))  # fmt: skip


def photos_in(folder: Path) -> list[Path]:
    """Return some photos of the right aspect ratio, always the same ones."""
    fitting = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            if abs(image.width / image.height / ASPECT - 1) < 0.05:
                fitting.append(path)
    chosen = np.random.default_rng(0).permutation(len(fitting))[:NUM_PHOTOS]
    return [fitting[number] for number in sorted(chosen)]


def features(weights: str, paths: list[Path], size: tuple[int, int], fit: str) -> np.ndarray:
    """Return the class token of each photo, `[photos, width]`."""
    model, parts = vitreous.load_model(weights, img_size=size), []
    for start in range(0, len(paths), 32):
        batch = []
        for path in paths[start : start + 32]:
            image, target = Image.open(path).convert("RGB"), (size[1], size[0])
            image = (
                image.resize(target, Image.BICUBIC) if fit == "squash" else ImageOps.fit(image, target, Image.BICUBIC)
            )
            batch.append((np.asarray(image, dtype=np.float32) / 255 - MEAN) / STD)
        with torch.inference_mode():
            parts.append(model(torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)).numpy())
    return np.concatenate(parts)


def main() -> None:
    """Print one line per case, and store the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights that load_model opens without further arguments")
    parser.add_argument("photos", type=Path, help="folder of class folders")
    options = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    paths = photos_in(options.photos)
    labels = [path.parent.name for path in paths]
    path, stored = results_file("aspect")
    stored |= {"command": command_line(), "photos": len(paths), "classes": len(set(labels)), "cases": []}
    for size, fit in CASES:
        began = time.perf_counter()
        found = features(options.weights, paths, size, fit)
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        accuracies = [
            cross_val_score(classifier, found, labels, cv=StratifiedKFold(5, shuffle=True, random_state=seed)).mean()
            for seed in range(SHUFFLES)
        ]
        case = {"size": size, "fit": fit, "accuracy": float(np.mean(accuracies)), "std": float(np.std(accuracies))}
        stored["cases"].append(case | {"wall_s": round(time.perf_counter() - began, 1)})
        path.write_text(json.dumps(stored, indent=1) + "\n")
        print(f"{size[0]}x{size[1]} px, {fit}: {case['accuracy']:.1%} ± {case['std']:.1%}", flush=True)


if __name__ == "__main__":
    main()
