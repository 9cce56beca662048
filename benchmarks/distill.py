"""A teacher -> the accuracy of a small model with it (recipe `distill`) and without it, on the digits or on photos.

    python benchmarks/distill.py                                                                the digits
    python benchmarks/distill.py --teacher auto --photos ../shared/data/sign-digits --budgets 1m 4m --seeds 3

On the digits, a teacher is trained (`vitreous train digits`), then students for 5 epochs with three seeds; about four
minutes on two cores. On photos, both students have the same time, in a process of their own: with the teacher,
`vitreous train PHOTOS --recipe distill --teacher TEACHER --budget TIME`; without it, the same with `--teacher none`.
Results go to benchmarks/results/HARDWARE/distill.json as they are measured; a run that is already there is skipped.
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
from results import results_file

EPOCHS, SEEDS = 5.0, (0, 1, 2)
SMALL = {"model.embed_dim": 64, "model.depth": 4, "model.num_heads": 4, "model.patch_size": 2, "train.epochs": EPOCHS}
KINDS = ("without teacher", "with teacher")


def digits_runs(path: Path, stored: dict) -> dict[str, list[float]]:
    """Train teacher and students on the digits, and store each of them; return the accuracies by kind."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        teacher = vt.train("digits", out=folder / "teacher")
        stored["teacher"] = teacher.metrics["test"]
        plan = {"data.max_shift": 0.06, "data.max_scale": 0.1, "data.mixup_alpha": 0.2} | SMALL
        for kind, config in zip(KINDS, (plan, SMALL | {"objective.teacher": str(teacher.path)}), strict=True):
            recipe = "distill" if kind == "with teacher" else None
            for seed in SEEDS:
                out = folder / f"{kind} {seed}"
                run = vt.train("digits", recipe=recipe, out=out, config=config | {"train.seed": seed})
                stored.setdefault(kind, {})[str(seed)] = run.metrics["test"]
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{kind}, seed {seed}: {run.accuracy:.2%}", flush=True)
    print(f"teacher: {stored['teacher']['accuracy']:.2%}")
    return {kind: [found["accuracy"] for found in stored[kind].values()] for kind in KINDS}


def photo_run(photos: Path, teacher: str, budget: str, seed: int) -> dict[str, object]:
    """Train a student in a process of its own; return its accuracy, size and time, and what the teacher took."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["train", str(photos), "--recipe", "distill", "--teacher", teacher, "--budget", budget]
        words += ["--seed", str(seed), "--out", str(out)]
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "vitreous", *words], check=True, stdout=subprocess.DEVNULL)
        wall_s = time.perf_counter() - began
        splits = [found for split, found in vt.load_run(out).metrics.items() if split in ("val", "test")]
        size_bytes = (out / "model.safetensors").stat().st_size
        records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    taught = next((record for record in records if record["kind"] == "taught"), {})
    return {
        "wall_s": round(wall_s, 1),
        "num_images": sum(found["num_images"] for found in splits),
        "num_correct": sum(found["num_correct"] for found in splits),
        "size_mb": round(size_bytes / 1e6, 2),
        "epochs": max((record["epoch"] for record in records if record["kind"] == "step"), default=0.0),
        "teacher": {key: taught.get(key) for key in ("num_images", "img_size", "seconds", "cross_validated")},
    }


def photo_runs(path: Path, stored: dict, options: argparse.Namespace) -> dict[str, list[float]]:
    """Train students on photos with and without the teacher, unless they are stored; return the accuracies by kind."""
    runs, found = stored.setdefault("photos", {}), dict[str, list[float]]()
    for seed in range(options.seeds):
        for photos in options.photos:
            for budget in options.budgets:
                for kind in KINDS:
                    case = f"{photos.name}/{budget}, {kind}"
                    if str(seed) not in runs.setdefault(case, {}):
                        teacher = options.teacher if kind == "with teacher" else "none"
                        runs[case][str(seed)] = photo_run(photos, teacher, budget, seed)
                        path.write_text(json.dumps(stored, indent=1) + "\n")
                    run = runs[case][str(seed)]
                    found.setdefault(case, []).append(run["num_correct"] / run["num_images"])
                    print(f"{case}, seed {seed}: {found[case][-1]:.2%} in {run['wall_s']} s", flush=True)
    return found


def main() -> None:
    """Train, store and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", nargs="*", type=Path, default=[], help="folders of photos; none: the digits")
    parser.add_argument("--teacher", default="auto", help="teacher for photos")
    parser.add_argument("--budgets", nargs="*", default=["4m"])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, on photos")
    options = parser.parse_args()
    path, stored = results_file("distill")
    found = photo_runs(path, stored, options) if options.photos else digits_runs(path, stored)
    for case, accuracies in found.items():
        print(f"{case}: {statistics.mean(accuracies):.2%} ({min(accuracies):.2%} to {max(accuracies):.2%})")


if __name__ == "__main__":
    main()
