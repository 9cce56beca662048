"""Planted faults -> what the data doctor finds without and with the features of pretrained weights.

    python benchmarks/doctor_pretrained.py ../shared/data weights.safetensors
    python benchmarks/doctor_pretrained.py ../shared/data weights.safetensors --images 500 --img-size 126

Drawn from the training images of clothing-96px and sign-digits, per seed: 5% of the labels are changed; of 5% of the
images, a copy is added that is cropped to 90% of its sides, 1.2 times as bright, and encoded as JPEG of quality 50; and
2% foreign images are added, hands to clothes and clothes to hands. The images are the same for all seeds. Results go to
benchmarks/results/HARDWARE/doctor_pretrained.json.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import normalize

from results import results_file
from vitreous.data.doctor.cropped import find_cropped_duplicates
from vitreous.data.doctor.mislabeled import find_doubtful_labels, thumbnail_features
from vitreous.data.doctor.near_duplicates import find_near_duplicates
from vitreous.data.doctor.outliers import LIMIT, outlier_scores
from vitreous.data.sources import open_source
from vitreous.use.embed.embedder import Embedder
from vitreous.use.embed.embeddings import Embeddings

SETS = ("clothing-96px", "sign-digits")
WRONG_LABELS, COPIES, FOREIGN = 0.05, 0.05, 0.02


def drawn(place: Path, count: int) -> tuple[list[Image.Image], NDArray[np.int64]]:
    """Return training images, drawn at random, and their labels."""
    source = open_source(str(place))
    pool = np.flatnonzero(~np.isin(source.splits, ("val", "test")))
    chosen = np.random.default_rng(0).permutation(pool)[:count]
    return [source.image(int(index)).convert("RGB") for index in chosen], source.labels[chosen]


def changed(image: Image.Image) -> Image.Image:
    """Return the copy that is planted."""
    width, height = image.size
    left, top = round(0.05 * width), round(0.05 * height)
    brighter = ImageEnhance.Brightness(image.crop((left, top, width - left, height - top))).enhance(1.2)
    file = io.BytesIO()
    brighter.save(file, "JPEG", quality=50)
    return Image.open(file)


def share(hits: int, total: int) -> float:
    """Return a share, rounded; 0 of 0 is 0."""
    return round(hits / max(total, 1), 4)


def copies_found(images: Embeddings, copies: Embeddings, originals: NDArray[np.int64]) -> dict[str, Any]:
    """Return how the planted copies are found: by thumbnails, by thumbnails with crops, and by features only."""
    count, num = len(images.names), len(originals)
    gray, color = (np.concatenate(parts) for parts in zip(images.thumbnails, copies.thumbnails, strict=True))
    found: dict[str, Any] = {}
    for name, find in (("without crops", find_near_duplicates), ("with crops", find_cropped_duplicates)):
        family = find(gray, color)
        planted = family[originals] == family[count:]
        groups = [np.flatnonzero(family == number) for number in np.unique(family[np.bincount(family)[family] > 1])]
        true = sum(any(count + n in group for n in np.flatnonzero(planted)) for group in groups)
        found[name] = {"recall": share(int(planted.sum()), num), "groups": len(groups), "groups with a copy": true}
    vectors = normalize(np.concatenate([images.vectors, copies.vectors]))
    cosine = vectors @ vectors.T
    np.fill_diagonal(cosine, -1)
    rank = (cosine[count:] > cosine[np.arange(count, count + num), originals][:, None]).sum(axis=1)
    truth = np.zeros(cosine.shape, dtype=bool)
    truth[originals, np.arange(count, count + num)] = True
    upper = np.triu_indices(len(cosine), 1)
    found["features"] = {
        "average precision": round(float(average_precision_score(truth[upper], cosine[upper])), 4),
        "original among the 10 nearest": share(int((rank < 10).sum()), num),
    }
    return found


def labels_found(features: NDArray[np.float32], labels: NDArray[np.int64], wrong: NDArray[np.int64]) -> dict[str, Any]:
    """Return how the changed labels are found."""
    doubts = find_doubtful_labels(features, labels)
    hits = int(np.isin(doubts.positions, wrong).sum())
    score = np.zeros(len(labels))
    score[doubts.positions] = np.arange(len(doubts.positions), 0, -1)
    average = average_precision_score(np.isin(np.arange(len(labels)), wrong), score)
    return {
        "regression is right": round(doubts.accuracy, 4), "doubted": len(doubts.positions),
        "recall": share(hits, len(wrong)), "precision": share(hits, len(doubts.positions)),
        "average precision": round(float(average), 4),
    }  # fmt: skip


def foreign_found(features: NDArray[np.float32], foreign: NDArray[np.float32]) -> dict[str, Any]:
    """Return how foreign images are found."""
    scores = outlier_scores(np.concatenate([features, foreign]))
    truth = np.arange(len(scores)) >= len(features)
    hits, reported = int((scores[truth] > LIMIT).sum()), int((scores > LIMIT).sum())
    return {
        "reported": reported, "recall": share(hits, len(foreign)), "precision": share(hits, reported),
        "average precision": round(float(average_precision_score(truth, scores)), 4),
    }  # fmt: skip


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with clothing-96px and sign-digits")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--img-size", type=int, default=126)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    embedder = Embedder.load(options.weights, img_size=(options.img_size, options.img_size))
    path, stored = results_file("doctor_pretrained")
    stored |= {"images": options.images, "img_size": options.img_size}
    pools = {name: drawn(options.data / name, options.images) for name in SETS}
    embedded = {name: embedder.embed(images) for name, (images, _) in pools.items()}
    for name, other in (SETS, SETS[::-1]):
        images, labels = pools[name]
        own = {"thumbnails": thumbnail_features(*embedded[name].thumbnails), "model": embedded[name].vectors}
        theirs = {"thumbnails": thumbnail_features(*embedded[other].thumbnails), "model": embedded[other].vectors}
        for seed in range(options.seeds):
            random = np.random.default_rng(seed)
            wrong = random.permutation(len(labels))[: round(WRONG_LABELS * len(labels))]
            planted, num_classes = labels.copy(), int(labels.max()) + 1
            planted[wrong] = (labels[wrong] + random.integers(1, num_classes, len(wrong))) % num_classes
            foreign = random.permutation(len(theirs["model"]))[: round(FOREIGN * len(images))]
            originals = random.permutation(len(images))[: round(COPIES * len(images))]
            copies = embedder.embed([changed(images[n]) for n in originals])
            stored.setdefault("runs", {})[f"{name}, seed {seed}"] = found = {
                "copies": copies_found(embedded[name], copies, originals),
                "labels": {basis: labels_found(values, planted, wrong) for basis, values in own.items()},
                "outliers": {basis: foreign_found(values, theirs[basis][foreign]) for basis, values in own.items()},
            }
            path.write_text(json.dumps(stored, indent=1) + "\n")
            print(name, seed, json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
