"""Dropped branches and patches -> the speed-up of whole training steps.

    .venv/bin/python benchmarks/skipping.py

Compares three cases with a model that computes everything: stochastic depth at rate 0.5 in every block, patch dropout
at rate 0.5, and both. The model has width 128 and depth 6, with images of 28 px and batches of 128. The cases take
turns, and a ratio is the median over rounds. Results go to benchmarks/results/HARDWARE/skipping.json with quartiles.
"""

import argparse
import json
import statistics
from typing import Any

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

from results import command_line, results_file  # noqa: E402
from vitreous.recipe import keys  # noqa: E402
from vitreous.training.measure.speed import training_pace  # noqa: E402

WHOLE: dict[str, Any] = {
    "data.source": "none", "data.img_size": (28, 28), "data.in_chans": 3, "data.num_classes": 10,
    "data.batch_size": 128, "model.patch_size": 4, "model.embed_dim": 128, "model.depth": 6, "model.num_heads": 4,
    "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip
PATHS: dict[str, Any] = {"model.drop_path_rate": 0.5, "model.drop_path_schedule": "constant"}
PATCHES: dict[str, Any] = {"model.patch_drop_rate": 0.5}
CASES = {"half of the paths": PATHS, "half of the patches": PATCHES, "half of both": PATHS | PATCHES}


def main() -> None:
    """Measure, store, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: must be at least 2 to compute quartiles")
    configs = {name: keys.assemble("skipping", WHOLE | changes) for name, changes in {"nothing": {}, **CASES}.items()}
    path, stored = results_file("skipping")
    rounds = []
    for _ in range(options.rounds):
        seconds = {name: training_pace(config).mean_s(0.0, 1.0) for name, config in configs.items()}
        rounds.append({name: seconds["nothing"] / seconds[name] for name in CASES})
    stored |= {"command": command_line(), "cases": {}}
    for name in CASES:
        ratios = [one[name] for one in rounds]
        quartiles = [round(value, 2) for value in statistics.quantiles(ratios, n=4)[::2]]
        stored["cases"][name] = {"ratio": round(statistics.median(ratios), 2), "quartiles": quartiles}
        print(name, stored["cases"][name])
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
