"""Two checkouts -> how many times as fast the second one is, in inference and in training steps.

    .venv/bin/python benchmarks/same_speed.py BEFORE AFTER

Each checkout has its own process; the two take turns on every cell, so that a slow moment of the machine hits both.
The ratio is the median over rounds of seconds before over seconds after, stored with its quartiles in
benchmarks/results/HARDWARE/same_speed.json. Above 1, AFTER is faster.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

CELLS = {
    "pico, 28 px": ("vit_pico_patch4_28", 128, {"in_chans": 1}),
    "micro, 32 px": ("vit_micro_patch4_32", 64, {}),
    "Ti/16, 224 px": ("vit_tiny_patch16_224", 8, {}),
    "S/16, 224 px": ("vit_small_patch16_224", 8, {}),
}
WORKER = """
import json, sys, time
from vitreous.threads import let_threads_sleep
let_threads_sleep()
import torch
from vitreous.model import create_model
try:
    from vitreous.model import trim_last_block
except ImportError:  # an earlier checkout trims by itself
    trim_last_block = lambda model: model
models = {}
for line in sys.stdin:
    name, batch_size, options, training, precision = json.loads(line)
    if name not in models:
        model = trim_last_block(create_model(name, num_classes=10, seed=0, **options))
        models[name] = model, torch.randn(batch_size, model.config.in_chans, *model.config.img_size)
    model, images = models[name]
    model.train(training)
    start = time.perf_counter()
    for _ in range(3):
        with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        if training:
            logits.float().square().sum().backward()
            model.zero_grad(set_to_none=True)
    print(time.perf_counter() - start, flush=True)
"""


class Checkout:
    """A process that runs cells with the code of one checkout."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder.resolve() / "src")}
        command = [sys.executable, "-c", WORKER]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def seconds(self, cell: str, training: bool, precision: str) -> float:
        """Return the seconds of three passes."""
        name, batch_size, options = CELLS[cell]
        print(json.dumps([name, batch_size, options, training, precision]), file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main() -> None:
    """Measure, store, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options = parser.parse_args()
    from results import command_line, results_file

    path, stored = results_file("same_speed")
    stored |= {"command": command_line(), "cells": {}}
    checkouts = Checkout(options.before), Checkout(options.after)
    for cell in options.cells:
        for training in (False, True):
            for precision in ("fp32", "bf16"):
                ratios = []
                for number in range(options.rounds + 1):
                    order = (0, 1) if number % 2 else (1, 0)
                    taken = {which: checkouts[which].seconds(cell, training, precision) for which in order}
                    ratios.append(taken[0] / taken[1])
                ratios = ratios[1:]  # the first round warms up
                name = f"{cell}, {'training' if training else 'inference'}, {precision}"
                quartiles = [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]]
                stored["cells"][name] = {"ratio": round(statistics.median(ratios), 3), "quartiles": quartiles}
                print(name, stored["cells"][name], flush=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
