"""Labeled images, or many images with a few labels -> what pretraining on them is worth in equal total minutes.

    python benchmarks/pretrain.py --data ../shared/data                                   all cases, three seeds
    python benchmarks/pretrain.py --data ../shared/data --cases sign-digits/10m --seeds 1
    python benchmarks/pretrain.py --cases digits/40s --seeds 1                             a trial without files

A case is a data set, perhaps the percentage of its training images that have labels, and the minutes in all:
`cifar10@10/10m`. With all labels, `--recipe pretrain-finetune` has the whole budget. With some, `vitreous pretrain` has
half of it for all training images, and `vitreous train --pretrained` the other half for the labeled ones. Both are
compared with `vitreous train --pretrained none`, which has the whole budget for the labeled images.

Each command is a process of its own. Its answers for the test images are stored, so the difference has a paired
interval: answers are averaged over seeds, and images are the sample. Results go to
benchmarks/results/HARDWARE/pretrain.json as they are measured; a run that is already there is skipped.
"""

import argparse
import csv
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import command_line, results_file
from transfer import opened
from vitreous.training.request import parse_budget

CASES = [
    *(f"{name}/{budget}" for name in ("clothing-96px", "sign-digits") for budget in ("4m", "10m", "30m")),
    *(f"cifar10@{percent}/{budget}" for percent in (1, 10) for budget in ("10m", "30m")),
]
METHODS = ("supervised", "pretrained")
SHARE = 0.5
"""Share of the total time in which images without labels are learned."""


def main() -> None:
    """Run the cases, methods and seeds that are not stored yet, then print accuracies and differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cases", nargs="+", default=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    path, stored = results_file("pretrain")
    runs = stored.setdefault("runs", {})
    for seed in range(options.seeds):
        for case in options.cases:
            for method in METHODS:
                name = f"{case}, {method}, seed {seed}"
                if name not in runs:
                    runs[name] = run_case(options.data, case, method, seed) | {"command": command_line()}
                    path.write_text(json.dumps(stored, indent=1) + "\n")
    for case in options.cases:
        print(summary(case, runs))


def run_case(data: Path, case: str, method: str, seed: int) -> dict[str, object]:
    """Train by one method in the time of the case; return the seconds and the answers for the test images."""
    what, budget = case.rsplit("/", 1)
    name, _, percent = what.partition("@")
    total_s = parse_budget(budget)["train.budget_s"]
    with tempfile.TemporaryDirectory() as scratch:
        images = opened(data, name) if name != "digits" else Path(name)
        labeled = draw_labeled(images, float(percent), seed, Path(scratch) / "labeled") if percent else images
        out, began = Path(scratch) / "run", time.perf_counter()
        if method == "supervised":
            vitreous("train", labeled, out, seed, total_s, "--pretrained", "none")
        elif not percent:
            vitreous("train", labeled, out, seed, total_s, "--recipe", "pretrain-finetune")
        else:
            first = Path(scratch) / "pretrained"
            vitreous("pretrain", images, first, seed, SHARE * total_s)
            left_s = total_s - (time.perf_counter() - began)
            vitreous("train", labeled, out, seed, left_s, "--pretrained", str(first))
        wall_s = time.perf_counter() - began
        with (out / "predictions.csv").open(encoding="utf-8", newline="") as file:
            rows = sorted((row["path"].removeprefix(scratch), row) for row in csv.DictReader(file))
    correct = "".join(str(int(row["true"] == row["predicted"])) for _, row in rows)
    return {"wall_s": round(wall_s, 1), "accuracy": correct.count("1") / len(correct), "correct": correct}


def vitreous(command: str, data: Path, out: Path, seed: int, budget_s: float, *options: str) -> None:
    """Run a command of vitreous in a process of its own."""
    words = [command, str(data), "--out", str(out), "--seed", str(seed), "--budget", f"{budget_s:.0f}s", *options]
    subprocess.run([sys.executable, "-m", "vitreous", *words], check=True, stdout=subprocess.DEVNULL)


def draw_labeled(images: Path, percent: float, seed: int, folder: Path) -> Path:
    """Copy the test images, and this percentage of the training images of each class, at least two."""
    shutil.copytree(images / "test", folder / "test")
    for label in sorted((images / "train").iterdir()):
        files = sorted(label.iterdir())
        random.Random(f"{seed} {label.name}").shuffle(files)
        (folder / "train" / label.name).mkdir(parents=True)
        for file in files[: max(2, round(len(files) * percent / 100))]:
            shutil.copyfile(file, folder / "train" / label.name / file.name)
    return folder


def summary(case: str, runs: dict[str, dict]) -> str:
    """Return the mean accuracies of a case and their paired difference with its 95% interval, in points."""
    found = {method: [runs[key] for key in sorted(runs) if key.startswith(f"{case}, {method}, ")] for method in METHODS}
    pairs = list(zip(*found.values(), strict=False))
    changes = [[int(b) - int(a) for a, b in zip(x["correct"], y["correct"], strict=True)] for x, y in pairs]
    differences = [statistics.mean(seeds) for seeds in zip(*changes, strict=True)]
    mean, half = statistics.mean(differences), 1.96 * statistics.stdev(differences) / math.sqrt(len(differences))
    shown = ", ".join(
        f"{method} {statistics.mean(run['accuracy'] for run in each):.1%}" for method, each in found.items()
    )
    interval = f"{100 * mean:+.1f} points ({100 * (mean - half):+.1f} to {100 * (mean + half):+.1f})"
    return f"{case}: {shown}; {interval}, {len(pairs)} seeds"


if __name__ == "__main__":
    main()
