"""Pretrained weights, photo folders -> accuracy and time of `vitreous train PHOTOS --pretrained WEIGHTS --budget TIME`.

    python benchmarks/transfer.py WEIGHTS --data ../shared/data                       all data sets, budgets and seeds
    python benchmarks/transfer.py WEIGHTS --data ../shared/data --cases clothing-96px/4m
    python benchmarks/transfer.py WEIGHTS --data ../shared/data --cases clothing-96px/4m --set optim.lr=1e-4

Each run is a process of its own, without any option but the two and those of --set, which are stored with the result.
Accuracy is that of validation and test images together where the data has both splits; nothing was fitted to either,
except the choice between the weights and their average, and the temperature. `correct` has the answer for each of these
images (held_out.py), so that transfer_peers.py can compare other tools on them.

`clothing-96px@6` are 6 photos of each class in one folder, which vitreous splits; accuracy is then that of up to 100
other images per class, which the run has never seen, and `folds` is what the folds of the run say. Results go to
benchmarks/results/HARDWARE/transfer.json as they are measured; a run that is already there is skipped.
"""

import argparse
import functools
import json
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import vitreous as vt
from held_out import answers, split_photos
from results import results_file
from vitreous.use.evaluate.metrics.scores import wilson
from vitreous.use.predict.table import read_held_out

CASES = [
    *(f"clothing-96px/{budget}" for budget in ("1m", "4m", "10m")),
    "sign-digits/4m",
    *(f"clothing-256px/{budget}" for budget in ("1m", "4m", "10m")),
    "clothing-96px@6/4m",
    *(f"cifar10@{num}/4m" for num in (10, 100, 1000)),
]
MOST_JUDGED = 100
"""Images of each class that judge a run on few photos."""


@functools.cache
def opened(data: Path, name: str) -> Path:
    """Return the folder of a data set with its splits; CIFAR-10 is unpacked first."""
    if name != "cifar10":
        return data / name
    folder = Path(tempfile.mkdtemp(prefix="cifar10-"))
    with tarfile.open(data / "cifar10-jpeg" / "cifar10_jpg_q75.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder if (folder / "train").is_dir() else next(path.parent for path in folder.rglob("train"))


def draw_few(photos: Path, num: int, folder: Path) -> tuple[Path, Path]:
    """Copy `num` training photos of each class, and up to `MOST_JUDGED` other ones. Return the two folders."""
    for kept, splits, most in (("few", ["train"], num), ("judge", ["test", "validation"], MOST_JUDGED)):
        for label in sorted(path.name for path in (photos / "train").iterdir()):
            files = [file for split in splits for file in sorted((photos / split / label).glob("*"))]
            (folder / kept / label).mkdir(parents=True)
            for file in files[:most]:
                shutil.copyfile(file, folder / kept / label / f"{file.parent.parent.name}-{file.name}")
    return folder / "few", folder / "judge"


def run_few(weights: Path, photos: Path, num: int, budget: str, seed: int) -> dict[str, object]:
    """Train on a few photos of each class as `run_case` does, and judge the model on others."""
    with tempfile.TemporaryDirectory() as folder:
        few, judge = draw_few(photos, num, Path(folder))
        out = Path(folder) / "run"
        found = run_case(weights, few, budget, seed, [], out)
        judged = vt.load_run(out).evaluate(judge)
        summary = out / "folds" / "summary.json"
        by_seed = json.loads(summary.read_text())["by_seed"] if summary.is_file() else {}
    del found["correct"]
    score = judged.score
    folds = [{key: fold[key] for key in ("accuracy", "interval_95", "num_images")} for fold in by_seed.values()]
    return found | {"num_images": score.num_images, "num_correct": score.num_correct, "folds": folds}


def run_case(
    weights: Path, photos: Path, budget: str, seed: int, changes: list[str], out: Path | None = None
) -> dict[str, object]:
    """Train in a process of its own and return time, scores and the decisions of the plan."""
    with tempfile.TemporaryDirectory() as folder:
        out = out or Path(folder) / "run"
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


def table_rows(runs: dict[str, dict], *changes: str) -> list[str]:
    """Return a row of docs/transfer.md for each case with these values of --set: accuracies, plan, first model."""
    rows = []
    for case in CASES:
        found = [run for key, run in runs.items() if key.startswith(f"{' '.join([case, *changes])}, seed")]
        if not found:
            continue
        photos, budget = case.rsplit("/", 1)
        accuracies = [run["num_correct"] / run["num_images"] for run in found]
        first, first_s = (
            statistics.mean(run[key] for run in found) for key in ("first_model_accuracy", "first_model_s")
        )
        plan, epochs = found[0]["plan"], found[0]["epochs"]  # those of the first seed
        length = f"{epochs:.1f} epochs" if epochs else "only a head"
        num_frozen = plan.get("train.freeze_blocks", 0)
        frozen = f", {num_frozen} of {plan['model.depth']} blocks frozen" if num_frozen else ""
        spread = f" ({min(accuracies):.1%} to {max(accuracies):.1%})" if len(found) > 1 else ""
        rows.append(
            f"| {photos} | {budget} | {statistics.mean(accuracies):.1%}{spread} | {len(found)} | {first:.1%} after "
            f"{first_s:.0f} s | {plan['data.img_size'][0]} px, {length}{frozen} |"
        )
    return rows


def command_rows(runs: dict[str, dict]) -> list[str]:
    """Return a row per case of whole data sets with seed 0 and without --set, as in the README's table."""
    rows = []
    for case in CASES:
        found = runs.get(f"{case}, seed 0")
        if found is not None and "@" not in case:
            photos, budget = case.rsplit("/", 1)
            low, high = wilson(found["num_correct"], found["num_images"])
            accuracy = f"{found['num_correct'] / found['num_images']:.1%} ({low:.1%} to {high:.1%})"
            command = f"vitreous train {photos} --pretrained WEIGHTS --budget {budget}"
            rows.append(f"| `{command}` | {found['num_images']:,} | {accuracy} | {found['wall_s']:.0f} s |")
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
                name_of, _, num = photos.partition("@")
                folder = opened(options.data, name_of)
                if num:
                    runs[key] = run_few(options.weights, folder, int(num), budget, seed)
                else:
                    runs[key] = run_case(options.weights, folder, budget, seed, options.set)
                path.write_text(json.dumps(stored, indent=1) + "\n")
            found = runs[key]
            print(f"{key}: {found['num_correct'] / found['num_images']:.1%} in {found['wall_s']} s", flush=True)
    print("\n".join(table_rows(runs, *options.set)))


if __name__ == "__main__":
    main()
