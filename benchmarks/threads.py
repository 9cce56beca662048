"""How OpenMP threads wait -> images/s of training steps, on an idle machine and next to other work.

    python benchmarks/threads.py --busy 0        # no other work
    python benchmarks/threads.py --busy 2        # two busy loops at the same time

Each setting runs in processes of its own, in turns, for three rounds. The medians are printed and stored in
benchmarks/results/HARDWARE/threads.json.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time

from results import command_line, results_file
from vitreous.threads import SPINS

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "short spin": {"GOMP_SPINCOUNT": str(SPINS)},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
MODELS = [("vit_pico", 8, 2, 1, 32), ("vit_pico", 28, 4, 1, 128), ("vit_micro", 64, 8, 3, 32)]
"""Name, image side in px, patch size in px, channels, batch size."""


def measure() -> dict[str, float]:
    """Return images/s of the three models in this process."""
    from vitreous.model.config.presets import parse_name
    from vitreous.recipe.keys import assemble
    from vitreous.training.measure.speed import training_pace

    found = {}
    for name, side, patch, channels, batch in MODELS:
        size = parse_name(name).size
        config = assemble("benchmark", {
            "data.source": "random", "data.img_size": (side, side), "data.in_chans": channels, "data.num_classes": 10,
            "data.batch_size": batch, "model.patch_size": patch, "model.embed_dim": size.embed_dim,
            "model.depth": size.depth, "model.num_heads": size.num_heads, "model.pool": "mean", "train.device": "cpu",
        })  # fmt: skip
        found[f"{name}, {config.model.num_tokens} tokens, batch {batch}"] = round(
            batch / training_pace(config).mean_s(), 1
        )
    return found


def spin() -> None:
    """Keep a core busy, like another program."""
    while True:
        pass


def main() -> None:
    """Measure the settings in turns, print and store their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--busy", type=int, default=0, help="busy loops to run at the same time")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure()))
        return
    loops = [multiprocessing.Process(target=spin, daemon=True) for _ in range(options.busy)]
    for loop in loops:
        loop.start()
    time.sleep(0.5)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(options.rounds):
        for name, settings in SETTINGS.items():
            inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
            command = [sys.executable, __file__, "--one"]
            output = subprocess.run(
                command, check=True, capture_output=True, text=True, env=inherited | settings
            ).stdout
            rounds[name].append(json.loads(output))
    for loop in loops:
        loop.kill()
    medians = {
        name: {model: statistics.median(found[model] for found in measured) for model in measured[0]}
        for name, measured in rounds.items()
    }
    path, stored = results_file("threads")
    stored[f"busy {options.busy}"] = {"command": command_line(), "medians": medians, "rounds": rounds}
    path.write_text(json.dumps(stored, indent=1) + "\n")
    for name, found in medians.items():
        print(name, found)


if __name__ == "__main__":
    main()
