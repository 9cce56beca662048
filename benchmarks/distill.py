"""A teacher -> the accuracy of a small model on the digits with it (recipe `distill`) and without it.

    python benchmarks/distill.py

Trains a teacher (`vitreous train digits`), then students for 5 epochs with three seeds; about four minutes on two
cores. Results go to benchmarks/results/HARDWARE/distill.json.
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
    """Train, store and print."""
    path, stored = results_file("distill")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        teacher = vt.train("digits", out=folder / "teacher")
        stored["teacher"] = teacher.metrics["test"]
        plan = {"data.max_shift": 0.06, "data.max_scale": 0.1, "data.mixup_alpha": 0.2} | SMALL
        for kind, config in (
            ("without teacher", plan),
            ("with teacher", SMALL | {"objective.teacher": str(teacher.path)}),
        ):
            recipe = "distill" if kind == "with teacher" else None
            for seed in SEEDS:
                out = folder / f"{kind} {seed}"
                run = vt.train("digits", recipe=recipe, out=out, config=config | {"train.seed": seed})
                stored.setdefault(kind, {})[str(seed)] = run.metrics["test"]
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{kind}, seed {seed}: {run.accuracy:.2%}", flush=True)
    for kind in ("without teacher", "with teacher"):
        accuracies = [found["accuracy"] for found in stored[kind].values()]
        print(f"{kind}: {statistics.mean(accuracies):.2%} ({min(accuracies):.2%} to {max(accuracies):.2%})")
    print(f"teacher: {stored['teacher']['accuracy']:.2%}")


if __name__ == "__main__":
    main()
