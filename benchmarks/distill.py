"""What does a teacher give? A small model on the digits, by recipe `distill`, and the same run without the teacher.

    python benchmarks/distill.py

Trains a teacher (`vitreous train digits`), then students of 5 epochs with three seeds; about four minutes on two cores.
"""

import json
import statistics
import tempfile
from pathlib import Path

import vitreous as vt
from results import results_file

EPOCHS, SEEDS = 5.0, (0, 1, 2)
SMALL = {"model.embed_dim": 64, "model.depth": 4, "model.num_heads": 4, "model.patch_size": 2, "train.epochs": EPOCHS}


def main() -> None:
    """Train, keep, print."""
    path, stored = results_file("distill")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        teacher = vt.train("digits", out=folder / "teacher")
        stored["teacher"] = teacher.metrics["test"]
        plan = {"data.max_shift": 0.06, "data.max_scale": 0.1, "data.mixup_alpha": 0.2} | SMALL
        for kind, config in (("alone", plan), ("taught", SMALL | {"objective.teacher": str(teacher.path)})):
            recipe = "distill" if kind == "taught" else None
            for seed in SEEDS:
                out = folder / f"{kind}-{seed}"
                run = vt.train("digits", recipe=recipe, out=out, config=config | {"train.seed": seed})
                stored.setdefault(kind, {})[str(seed)] = run.metrics["test"]
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{kind}, seed {seed}: {100 * run.accuracy:.2f} %", flush=True)
    for kind in ("alone", "taught"):
        accuracies = [100 * found["accuracy"] for found in stored[kind].values()]
        print(f"{kind}: {statistics.mean(accuracies):.2f} % ({min(accuracies):.2f} to {max(accuracies):.2f})")
    print(f"teacher: {100 * stored['teacher']['accuracy']:.2f} %")


if __name__ == "__main__":
    main()
