"""Changes of a recipe -> the accuracy of each: the evidence behind `recipe/rules.py` and the shipped recipes.

    python benchmarks/ablations.py digits --epochs 20 --seeds 0 1 2 --changes base model.init=timm --out results.jsonl

Each change is a group of `key=value` pairs that override the plan (`model=…` sets the model). Every group runs with
every seed, each run in a process of its own with one thread. Results are appended to the file as runs end; runs that
are already in the file are skipped. The table at the end shows the mean and the range over the seeds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch


def run_one(data: str, change: str, epochs: float, seed: int, device: str) -> dict[str, object]:
    """Train one run in this process and return its cost and its scores on validation and test images."""
    from vitreous.training.machine.device import describe_hardware
    from vitreous.training.request import TrainRequest
    from vitreous.training.start import run_training
    from vitreous.use.run import Run

    torch.set_num_threads(1)
    values: dict[str, object] = {"train.epochs": epochs, "train.seed": seed, "train.device": device}
    pairs = dict(pair.split("=", 1) for pair in change.split() if pair != "base")
    model = pairs.pop("model", None)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        request = TrainRequest(data=data, model=model, values=values | pairs, out=Path(folder) / "run")
        run = Run(run_training(request).path)
        return {
            "data": Path(data).name,
            "change": change,
            "epochs": epochs,
            "seed": seed,
            "seconds": round(time.perf_counter() - began, 1),
            "hardware": describe_hardware(torch.device(device)),
            **run.metrics,
        }


def main() -> None:
    """Run the groups that are not in the file yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--epochs", type=float, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--changes", nargs="+", default=["base"])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        found = run_one(options.data, options.changes[0], options.epochs, options.seeds[0], options.device)
        print(json.dumps(found))
        return
    done = read(options.out)
    wanted = [(change, seed) for seed in options.seeds for change in options.changes]

    def run(change_and_seed: tuple[str, int]) -> None:
        change, seed = change_and_seed
        if any((r["data"], r["change"], r["epochs"], r["seed"]) ==
               (Path(options.data).name, change, options.epochs, seed) for r in done):  # fmt: skip
            return
        words = ["--epochs", str(options.epochs), "--seeds", str(seed), "--changes", change, "--device", options.device]
        command = [sys.executable, __file__, options.data, "--one", "--out", str(options.out), *words]
        found = subprocess.run(command, check=False, capture_output=True, text=True)
        if found.returncode:
            print(f"{change}: failed: {found.stderr.strip().splitlines()[-1]}", flush=True)
            return
        with options.out.open("a") as file:
            file.write(found.stdout)

    with ThreadPoolExecutor(options.processes) as pool:
        list(pool.map(run, wanted))
    print_table(
        [r for r in read(options.out) if r["data"] == Path(options.data).name and r["epochs"] == options.epochs]
    )


def read(path: Path) -> list[dict]:
    """Return the results in a file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_table(runs: list[dict]) -> None:
    """Print the mean accuracy of each change over its seeds; choose by validation accuracy, not by test accuracy."""
    print("| change | seeds | validation | test | range | seconds |\n|---|---|---|---|---|---|")
    for change in dict.fromkeys(run["change"] for run in runs):
        group = [run for run in runs if run["change"] == change]
        val, test = ([100 * run[split]["accuracy"] for run in group] for split in ("val", "test"))
        seconds = statistics.median(run["seconds"] for run in group)
        print(f"| {change} | {len(group)} | {statistics.mean(val):.2f} | {statistics.mean(test):.2f} "
              f"| {min(test):.2f} to {max(test):.2f} | {seconds:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
