"""Batch size, tokens, processes -> time and memory of a training step, measured and predicted by two formulas.

    .venv/bin/python benchmarks/scaling.py

A model of width 128 and depth 6 is trained on random images with whole training steps: forward, backward, clipping,
AdamW, average. Batch sizes vary at 50 tokens, numbers of tokens at a batch size of 16. All cells take turns for
`--rounds` rounds, and the time of a cell is the median. The cost model is fitted with the least sum of squared relative
errors:

    seconds = a + batch (b · FLOPs of the matrices + c · FLOPs of attention)

Memory is the peak of a step minus the memory before it, compared with `activation_bytes` and the gradients of the
weights. Processes: `vitreous train` with one process and with two that share the cores, on the same images and batches.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from results import command_line, results_file  # noqa: E402
from stopwatch import working_memory_mib  # noqa: E402
from vitreous.model.build import build_model  # noqa: E402
from vitreous.model.cost.count import count_flops, count_parameters  # noqa: E402
from vitreous.model.cost.memory import activation_bytes  # noqa: E402
from vitreous.recipe import keys  # noqa: E402
from vitreous.recipe.run_config import RunConfig  # noqa: E402
from vitreous.training.folder.records import read_records  # noqa: E402
from vitreous.training.folder.run_folder import RunFolder  # noqa: E402
from vitreous.training.measure.speed import training_pace  # noqa: E402

CELLS = [(batch, 28) for batch in (1, 4, 16, 64, 256)] + [(16, side) for side in (16, 40, 56, 80)]
"""(batch size, side of the images in px); patches have 4 px."""


def config_of(batch: int, side: int) -> RunConfig:
    """Return the configuration of a run with this batch size and image size."""
    return keys.assemble("scaling", {
        "data.source": "none", "data.img_size": (side, side), "data.in_chans": 3, "data.num_classes": 10,
        "data.batch_size": batch, "model.patch_size": 4, "model.embed_dim": 128, "model.depth": 6,
        "model.num_heads": 4, "train.device": "cpu", "train.precision": "fp32",
    })  # fmt: skip


def flops_of(config: RunConfig) -> tuple[float, float]:
    """Return the training FLOPs of one image: products with weights, and products of tokens with tokens."""
    model = config.model
    attention = 3.0 * model.depth * 4 * model.num_tokens**2 * model.attn_dim
    return 3.0 * count_flops(model) - attention, attention


def fit(rows: list[tuple[float, float, float]], seconds: list[float]) -> tuple[list[float], list[float]]:
    """Return the three coefficients of the cost model and its relative errors."""
    scaled = np.array(rows) / np.array(seconds)[:, None]
    found = np.linalg.lstsq(scaled, np.ones(len(rows)), rcond=None)[0]
    return found.tolist(), (scaled @ found - 1).tolist()


def memory_of(config: RunConfig) -> dict[str, float]:
    """Return measured and predicted memory in MiB."""
    model = build_model(config.model)
    batch = config.data.batch_size
    images, labels = torch.randn(batch, 3, *config.model.img_size), torch.zeros(batch, dtype=torch.int64)

    def step() -> None:
        F.cross_entropy(model(images), labels).backward()
        model.zero_grad(set_to_none=True)

    step()
    predicted = activation_bytes(config.model, batch) + 4 * count_parameters(config.model)
    return {
        "measured_mib": working_memory_mib(step, torch.device("cpu")) or 0.0,
        "said_mib": round(predicted / 2**20, 1),
    }


def images_per_s_of(num_processes: int) -> float:
    """Return the median speed in the records of `vitreous train` on the digits."""
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "run"
        words = ["train", "digits", "--epochs", "4", "--model", "vit_micro", "--data.batch_size", "128"]
        subprocess.run([sys.executable, "-m", "vitreous", *words, "--nproc", str(num_processes), "--out", str(out)],
                       check=True, stdout=subprocess.DEVNULL)  # fmt: skip
        steps = [record for record in read_records(RunFolder(out).records) if record["kind"] == "step"]
        return statistics.median(record["images_per_s"] for record in steps[1:])


def main() -> None:
    """Measure, fit, store, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    path, stored = results_file("scaling")
    configs = [config_of(*cell) for cell in CELLS]
    rounds = [[training_pace(config).mean_s(0.0, 1.0) for config in configs] for _ in range(options.rounds)]
    seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]
    rows = []
    for config in configs:
        matrices, attention = flops_of(config)
        rows.append((1.0, config.data.batch_size * matrices, config.data.batch_size * attention))
    (base_s, per_flop, per_attention_flop), errors = fit(rows, seconds)
    stored["command"] = command_line()
    stored["cost_model"] = {
        "seconds_a_step": round(base_s, 5),
        "matrices_gflops_per_s": round(1e-9 / per_flop, 1),
        "attention_gflops_per_s": round(1e-9 / per_attention_flop, 1),
        "median_error": round(statistics.median(map(abs, errors)), 3),
        "largest_error": round(max(map(abs, errors)), 3),
    }
    stored["cells"] = [
        {"batch": batch, "tokens": config.model.num_tokens, "seconds": round(took, 5),
         "images_per_s": round(batch / took, 1), "cost_model_error": round(error, 3), **memory_of(config),
         "rounds_s": [round(one[number], 5) for one in rounds]}
        for number, ((batch, _), config, took, error) in enumerate(zip(CELLS, configs, seconds, errors, strict=True))
    ]  # fmt: skip
    turns = [{num: images_per_s_of(num) for num in (1, 2)} for _ in range(options.rounds)]
    stored["processes"] = {str(num): round(statistics.median(turn[num] for turn in turns), 1) for num in (1, 2)}
    path.write_text(json.dumps(stored, indent=1) + "\n")
    show(stored)


def show(stored: dict[str, Any]) -> None:
    """Print the cells, the cost model and the processes."""
    print("| batch | tokens | images/s | cost model | MiB | predicted |\n|---:|---:|---:|---:|---:|---:|")
    for cell in stored["cells"]:
        print(f"| {cell['batch']} | {cell['tokens']} | {cell['images_per_s']:,.0f} | {cell['cost_model_error']:+.0%} "
              f"| {cell['measured_mib']:.0f} | {cell['said_mib']:.0f} |")  # fmt: skip
    print(stored["cost_model"], "images/s by processes:", stored["processes"])


if __name__ == "__main__":
    main()
