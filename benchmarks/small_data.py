"""A time budget -> the accuracy of a model trained from scratch on a small data set, by one command.

    python benchmarks/small_data.py fashion-mnist --minutes 3 10 --seeds 0 1 2
    python benchmarks/small_data.py clothing-96px cifar10 --data ../shared/data --minutes 10 --tracks S P

A row is `vitreous train DATA --budget TIME --pretrained none` without other options (track S: the plan has a stem of
convolutions) or with `--model.stem linear` (track P: plain patches). Its accuracy is that on the test images,
which decide nothing before. The time is wall clock from the start of the command to its end. Next to it are the
floating-point operations of a training step per image, and the operations per second that this machine reaches in a
product of matrices. Rows that are already stored are skipped. Nothing else should run on the machine.

The command fails if more time gives a worse model: if the mean accuracy of a budget is more than 0.3 points below that
of the next shorter one.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import torch

import vitreous as vt
from results import results_file
from vitreous.model.cost.count import count_flops

CASES = {
    "fashion-mnist": "fashion-mnist",
    "cifar10": "{made}/cifar10",
    "sign-digits": "{data}/sign-digits",
    "clothing-96px": "{data}/clothing-96px",
    "clothing-256px": "{data}/clothing-256px",
    "mnist": "mnist",
    "digits": "digits",
    "cifar10@100": "{made}/cifar10@100",
    "cifar10-animals": "{made}/cifar10-animals",
    "sign-digits@40": "{made}/sign-digits@40",
}
TRACKS = {"S": [], "P": ["--model.stem", "linear"]}
SUBSETS = {
    "cifar10@100": ("{made}/cifar10", (), 100),
    "cifar10-animals": ("{made}/cifar10", ("bird", "cat", "deer", "dog", "frog", "horse"), None),
    "sign-digits@40": ("{data}/sign-digits", (), 40),
}
"""Data set, classes (all of them if there are none) and training images of each class."""
CIFAR10 = "cifar10-jpeg/cifar10_jpg_q75.tar.xz"
MOST_LOSS = 0.3
"""Points by which the accuracy may be below that of the next shorter budget: the seeds differ by as much."""
PEAK_SIZE, PEAK_REPEATS = 2048, 10


def make_subset(name: str, data: Path, made: Path) -> None:
    """Copy the images of a subset; all images in a folder `test` are kept."""
    source, classes, per_class = SUBSETS[name]
    folder, out = Path(source.format(data=data, made=made)), made / name
    for of_class in sorted({file.parent for file in folder.rglob("*") if file.is_file()} - {folder}):
        if classes and of_class.name not in classes:
            continue
        target = out / of_class.relative_to(folder)
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(of_class.iterdir())[: None if "test" in target.parts else per_class]:
            shutil.copy(file, target)


def train(source: str, minutes: float, track: str, seed: int, out: Path) -> dict[str, Any]:
    """Train in a process of its own, with all cores."""
    options = ["--budget", f"{minutes:g}m", "--pretrained", "none", *TRACKS[track], "--seed", str(seed)]
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "vitreous", "train", source, *options, "--out", str(out)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    wall_s = time.perf_counter() - began
    run = vt.load_run(out)
    records = map(json.loads, (out / "records.jsonl").read_text().splitlines())
    steps = [record for record in records if record["kind"] == "step"]
    flops = 3 * count_flops(run.model.config)  # a backward pass costs two forward passes
    return {
        "options": options,
        "wall_s": round(wall_s, 1),
        "val": run.metrics.get("val"),
        "test": run.metrics["test"],
        "epochs": steps[-1]["epoch"],
        "images_per_s": statistics.median(row["images_per_s"] for row in steps),
        "flops_per_image": flops,
        "architecture": run.metadata["architecture"],
    }


def peak_flops(dtype: torch.dtype) -> float:
    """Return the operations per second of a large product of matrices: the best of some repetitions."""
    left, right = (torch.randn(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(2))
    durations = []
    for _ in range(PEAK_REPEATS):
        began = time.perf_counter()
        left @ right
        durations.append(time.perf_counter() - began)
    return 2 * PEAK_SIZE**3 / min(durations)


def by_budget(runs: dict[str, dict[str, Any]]) -> dict[tuple[str, str], dict[float, list[dict[str, Any]]]]:
    """Return the runs of each data set and track by the minutes of the budget, shortest first."""
    found: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for key, run in sorted(runs.items(), key=lambda item: float(item[0].split("/")[2])):
        case, track, minutes, _ = key.split("/")
        found.setdefault((case, track), {}).setdefault(float(minutes), []).append(run)
    return dict(sorted(found.items()))


def table_rows(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a row per data set, track and time: mean accuracy, its standard error over the seeds, seconds, epochs."""
    rows = []
    for (case, track), budgets in by_budget(runs).items():
        for minutes, found in budgets.items():
            accuracies = [100 * run["test"]["accuracy"] for run in found]
            error = f" ± {statistics.stdev(accuracies) / len(found) ** 0.5:.1f}" if len(found) > 1 else ""
            seconds, epochs = (statistics.median(run[key] for run in found) for key in ("wall_s", "epochs"))
            mean = f"{statistics.mean(accuracies):.1f}{error}"
            rows.append(f"| {case} | {track} | {minutes:g} | {len(found)} | {mean} | {epochs:.3g} | {seconds:.0f} s |")
    return rows


def bends(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a sentence for each budget that is over `MOST_LOSS` points less accurate than the next shorter one."""
    sentences = []
    for (case, track), budgets in by_budget(runs).items():
        means = {at: statistics.mean(100 * run["test"]["accuracy"] for run in found) for at, found in budgets.items()}
        for (shorter, before), (longer, after) in pairwise(means.items()):
            if before - after > MOST_LOSS:
                sentences.append(
                    f"{case}/{track}: {after:.1f}% in {longer:g} minutes, but {before:.1f}% in {shorter:g}"
                )
    return sentences


def command_rows(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a row per run of the plan's own model with seed 0, as in the README's table."""
    rows = []
    for key, found in runs.items():
        case, track, minutes, seed = key.split("/")
        if (track, seed) == ("S", "0"):
            test, (low, high) = found["test"], found["test"]["interval_95"]
            accuracy = f"{test['accuracy']:.1%} ({low:.1%} to {high:.1%})"
            command = f"vitreous train {case} --budget {minutes}m"
            rows.append(f"| `{command}` | {test['num_images']:,} | {accuracy} | {found['wall_s']:.0f} s |")
    return rows


def main() -> None:
    """Run what is not stored yet, and print the table of docs/small-data.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", choices=CASES)
    parser.add_argument("--data", type=Path, help="folder that holds the photos and CIFAR-10")
    parser.add_argument("--minutes", type=float, nargs="+", default=[3.0, 10.0])
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, default=["S"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    path, stored = results_file("small_data")
    runs = stored.setdefault("runs", {})
    stored["peak_flops"] = {name: peak_flops(dtype) for name, dtype in
                            (("fp32", torch.float32), ("bf16", torch.bfloat16))}  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        if any(case.startswith("cifar10") for case in options.cases):
            with tarfile.open(options.data / CIFAR10) as archive:
                archive.extractall(made, filter="data")
        for name in SUBSETS.keys() & set(options.cases):
            make_subset(name, options.data, made)
        for case, minutes, track, seed in product(options.cases, options.minutes, options.tracks, options.seeds):
            key = f"{case}/{track}/{minutes:g}/{seed}"
            if key not in runs:
                source = CASES[case].format(data=options.data, made=made)
                runs[key] = train(source, minutes, track, seed, made / f"run-{len(runs)}")
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{key}: {runs[key]['test']['accuracy']:.2%}", flush=True)
    print("\n| data | track | minutes | seeds | test accuracy | epochs | time |\n|---|---|---|---|---|---|---|")
    print("\n".join(table_rows(runs)))
    if found := bends(runs):
        sys.exit("more time gives a worse model: " + "; ".join(found))


if __name__ == "__main__":
    main()
