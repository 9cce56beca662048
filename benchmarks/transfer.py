"""Pretrained weights, photo folders -> accuracy and time of `vitreous train PHOTOS --pretrained WEIGHTS --budget TIME`.

    python benchmarks/transfer.py WEIGHTS --data ../shared/data                       all data sets, budgets and seeds
    python benchmarks/transfer.py WEIGHTS --data ../shared/data --cases clothing-96px/4m
    python benchmarks/transfer.py WEIGHTS --data ../shared/data --cases clothing-96px/4m --set optim.lr=1e-4

Each run is a process of its own, without any option but the two and those of --set, which are stored with the result.
Accuracy is that of validation and test images together where the data has both splits; nothing was fitted to either,
except the choice between the weights and their average, and the temperature. `correct` has the answer for each of these
images (held_out.py), so that transfer_peers.py can compare other tools on them. Results go to
benchmarks/results/HARDWARE/transfer.json as they are measured; a run that is already there is skipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vitreous as vt
from held_out import answers, split_photos
from results import results_file
from vitreous.use.predict.table import read_held_out

CASES = [
    *(f"clothing-96px/{budget}" for budget in ("1m", "4m", "10m")),
    "sign-digits/4m",
    *(f"clothing-256px/{budget}" for budget in ("1m", "4m", "10m")),
]


def run_case(weights: Path, photos: Path, budget: str, seed: int, changes: list[str]) -> dict[str, object]:
    """Train in a process of its own and return time, scores and the decisions of the plan."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--pretrained", str(weights), "--budget", budget, "--seed", str(seed), "--out", str(out)]
        for change in changes:
            key, value = change.split("=", 1)
            options += [f"--{key}", value]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vitreous", "train", str(photos), *options], check=True, stdout=subprocess.DEVNULL
        )
        wall_s = time.perf_counter() - began
        run = vt.load_run(out)
        metadata, metrics = run.metadata, run.metrics
        correct = correct_answers(run, photos)
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "step"]
    splits = [metrics[split] for split in ("val", "test") if split in metrics]
    first = next((record for record in records if record["kind"] == "first_model"), None)
    plan = next(record for record in records if record["kind"] == "plan")
    return {
        "wall_s": round(wall_s, 1),
        "num_images": sum(split["num_images"] for split in splits),
        "num_correct": sum(split["num_correct"] for split in splits),
        "test_accuracy": metrics["test"]["accuracy"],
        "correct": correct,
        "first_model_s": None if first is None else first["seconds"],
        "first_model_accuracy": None if first is None or first["val"] is None else first["val"]["accuracy"],
        "weights": metadata["weights"],
        "epochs": steps[-1]["epoch"] if steps else 0.0,
        "plan": {choice["key"]: choice["value"] for choice in plan["choices"] if choice["key"] != "train.pretrained"
                 and choice["key"] != "data.source"},
    }  # fmt: skip


def correct_answers(run: vt.Run, photos: Path) -> str:
    """Return the answers for the validation and test images; the run has stored its predictions for one of them."""
    split = split_photos(photos)
    held_out = [*split["val"], *split["test"]]
    predicted = {Path(row.path): row.predicted for row in read_held_out(run.path / "predictions.csv")}
    others = [path for path, _ in held_out if path not in predicted]
    predicted |= {path: found.label for path, found in zip(others, run.predict(others), strict=True)}
    return answers(held_out, predicted)


def table_rows(runs: dict[str, dict]) -> list[str]:
    """Return a row of docs/transfer.md for each case without --set: accuracies, image size and first model."""
    rows = []
    for case in CASES:
        found = [run for key, run in runs.items() if key.startswith(f"{case}, seed")]
        if not found:
            continue
        photos, budget = case.rsplit("/", 1)
        accuracies = [run["num_correct"] / run["num_images"] for run in found]
        first, first_s = (
            statistics.mean(run[key] for run in found) for key in ("first_model_accuracy", "first_model_s")
        )
        plan, epochs = found[0]["plan"], statistics.mean(run["epochs"] for run in found)
        num_frozen = plan.get("train.freeze_blocks", 0)
        frozen = f", {num_frozen} of {plan['model.depth']} blocks frozen" if num_frozen else ""
        spread = f" ({min(accuracies):.1%} to {max(accuracies):.1%})" if len(found) > 1 else ""
        rows.append(
            f"| {photos} | {budget} | {statistics.mean(accuracies):.1%}{spread} | {len(found)} | {first:.1%} after "
            f"{first_s:.0f} s | {plan['data.img_size'][0]} px, {epochs:.1f} epochs{frozen} |"
        )
    return rows


def main() -> None:
    """Run the cases that are not stored yet, then print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the photo folders")
    parser.add_argument("--cases", nargs="*", default=CASES, help="folder/budget")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="keys to set, to compare with")
    options = parser.parse_args()
    path, stored = results_file("transfer")
    runs = stored.setdefault("runs", {})
    names = [" ".join([case, *options.set]) for case in options.cases]
    for seed in range(options.seeds):
        for case, name in zip(options.cases, names, strict=True):
            key = f"{name}, seed {seed}"
            if key not in runs:
                photos, budget = case.rsplit("/", 1)
                runs[key] = run_case(options.weights, options.data / photos, budget, seed, options.set)
                path.write_text(json.dumps(stored, indent=1) + "\n")
            found = runs[key]
            print(f"{key}: {found['num_correct'] / found['num_images']:.1%} in {found['wall_s']} s", flush=True)
    print("\n".join(table_rows(runs)))


if __name__ == "__main__":
    main()
