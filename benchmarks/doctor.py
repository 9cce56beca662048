"""The data doctor -> its time for 60,000 files, and the planted copies and wrong labels that it finds.

    python benchmarks/doctor.py --data ../shared/data

`vitreous inspect` examines Fashion-MNIST's training images as 60,000 PNG files, in a process of its own. Copies of 200
images and 5% wrong labels are planted in the digits and in each data set below `--data`; missing data sets are skipped.
Results go to benchmarks/results/HARDWARE/doctor.json.
"""

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from results import results_file
from vitreous.data.doctor.mislabeled import find_doubtful_labels, thumbnail_features
from vitreous.data.doctor.near_duplicates import find_near_duplicates
from vitreous.data.doctor.summaries import ImageSummaries, summarize_source
from vitreous.data.sources import ArraySource, Source, open_source
from vitreous.seeding import derive, permutation

SETS = ("digits", "sign-digits", "clothing-96px")
NUM_COPIES = 200
WRONG_LABELS = 0.05


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 75": lambda image: _jpeg(image, 75),
    "JPEG quality 30": lambda image: _jpeg(image, 30),
    "half the size": lambda image: _scaled(image, 0.5),
    "1.5 times the size": lambda image: _scaled(image, 1.5),
    "1.4 times as bright": lambda image: ImageEnhance.Brightness(image).enhance(1.4),
    "mirrored": ImageOps.mirror,
    "cropped by 5%": lambda image: ImageOps.crop(image, max(1, round(0.05 * min(image.size)))),
}


class Images(ArraySource):
    """A source of PIL images of any size."""

    def __init__(self, images: list[Image.Image]) -> None:
        nothing = np.zeros((len(images), 1, 1), dtype=np.uint8)
        labels = np.zeros(len(images), dtype=np.int64)
        super().__init__(name="copies", classes=("any",), images=nothing, labels=labels, splits=[""] * len(images))
        self._pictures = images

    def encoded(self, index: int) -> NDArray[np.uint8]:
        """Return the pixels of an image."""
        return np.asarray(self._pictures[index])

    def content(self, index: int) -> bytes:
        """Return the bytes of an image."""
        return self._pictures[index].tobytes()


def planted_copies(source: Source, summaries: ImageSummaries) -> dict[str, float]:
    """Return the fraction of planted copies that is found, by kind, and the images grouped without planting."""
    chosen = permutation(derive(0, "copies"), len(summaries))[:NUM_COPIES]
    found = {}
    for kind, change in COPIES.items():
        made = summarize_source(Images([change(source.image(int(summaries.indices[i]))) for i in chosen]), {})
        family = find_near_duplicates(
            np.concatenate([summaries.gray, made.gray]), np.concatenate([summaries.color, made.color])
        )
        found[kind] = round(float((family[len(summaries) :] == family[chosen]).mean()), 4)
    family = find_near_duplicates(summaries.gray, summaries.color)
    sizes = np.bincount(family)
    return found | {"images in groups as they come": int(sizes[sizes > 1].sum()), "images": len(summaries)}


def planted_labels(summaries: ImageSummaries) -> dict[str, float]:
    """Return recall and precision of the doctor on labels that were changed to a wrong class."""
    num_classes = int(summaries.labels.max()) + 1
    wrong = permutation(derive(0, "labels"), len(summaries))[: int(WRONG_LABELS * len(summaries))]
    labels = summaries.labels.copy()
    labels[wrong] = (labels[wrong] + 1 + np.arange(len(wrong)) % (num_classes - 1)) % num_classes
    doubts = find_doubtful_labels(thumbnail_features(summaries.gray, summaries.color), labels)
    hits = int(np.isin(doubts.positions, wrong).sum())
    return {
        "regression is right": round(doubts.accuracy, 4),
        "planted": len(wrong),
        "doubted": len(doubts.positions),
        "planted and doubted": hits,
        "recall": round(hits / len(wrong), 4),
        "precision": round(hits / max(len(doubts.positions), 1), 4),
    }


def write_files(folder: Path) -> None:
    """Write Fashion-MNIST's training images as files, except those that already exist."""
    source = open_source("fashion-mnist")
    for index in np.flatnonzero(source.splits == "train").tolist():
        path = folder / source.classes[source.labels[index]].replace("/", " or ") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            source.image(index).save(path)


def seconds_for_files(folder: Path) -> dict[str, Any]:
    """Measure the command on the files."""
    write_files(folder)
    started, load = time.monotonic(), os.getloadavg()[0]
    command = [sys.executable, "-m", "vitreous", "inspect", str(folder), "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "command": "vitreous inspect fashion-mnist-as-60000-png-files --json",
        "files": found["num_images"],
        "seconds": round(time.monotonic() - started, 1),
        "CPU seconds": round(spent.ru_utime + spent.ru_stime, 1),
        "load of the machine at the start": round(load, 1),
        "peak memory MB": round(spent.ru_maxrss / 1e3),
        "findings": {finding["kind"]: finding["title"] for finding in found["findings"]},
        "labels": found["labels"]["verdict"],
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with sign-digits and clothing-96px")
    parser.add_argument("--files", type=Path, help="folder in which to keep the 60,000 files; default: a temporary one")
    parser.add_argument("--only", choices=["speed", "planted"], help="only one of the two questions")
    options = parser.parse_args()
    path, stored = results_file("doctor")
    if options.only != "planted":
        with tempfile.TemporaryDirectory(prefix="doctor-") as temporary:
            stored["speed"] = seconds_for_files(options.files or Path(temporary))
        print(json.dumps(stored["speed"], indent=1))
        path.write_text(json.dumps(stored, indent=1) + "\n")
    for name in [] if options.only == "speed" else SETS:
        place = name if name == "digits" else (options.data or Path()) / name
        if not Path(place).is_dir() and name != "digits":
            print(f"{name}: not found, skipped")
            continue
        source = open_source(place)
        summaries = summarize_source(source, {})
        stored.setdefault("copies", {})[name] = planted_copies(source, summaries)
        stored.setdefault("labels", {})[name] = planted_labels(summaries)
        print(name, json.dumps({"copies": stored["copies"][name], "labels": stored["labels"][name]}, indent=1))
        path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
