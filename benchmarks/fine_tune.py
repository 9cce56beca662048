"""Pretrained weights -> the accuracy on a small data set with them and without, for the same model, epochs and seeds.

    python benchmarks/fine_tune.py ../shared/data/weights/mnist-vit/vit_mnist_gpu.pt

The file is a ViT trained on MNIST by another project. It is fine-tuned on the 1,797 digits of scikit-learn, which have
8x8 px and come from other writers. Results go to benchmarks/results/HARDWARE/fine_tune.json as they are measured; cases
and seeds that are already there are skipped.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import vitreous as vt
from results import results_file

ARCHITECTURE = {
    "model.patch_size": 4, "model.embed_dim": 64, "model.depth": 6, "model.num_heads": 4, "model.head_dim": 64,
    "model.mlp_ratio": 2.0, "model.act": "relu", "model.qkv_bias": False, "model.pool": "token", "data.img_size": 28,
}  # fmt: skip
OPEN = {"model.num_heads": 4, "model.head_dim": 64, "model.act": "relu"}
"""What the file does not specify."""

CASES: dict[str, tuple[dict[str, object], bool, float]] = {
    # name: (keys, True to start from the file, factor on the epochs; the epochs of a linear probe cost almost nothing)
    "from scratch": ({}, False, 1),
    "fine-tune": ({}, True, 1),
    "lora, rank 4": ({"train.lora_rank": 4, "optim.lr": 5e-3}, True, 1),
    "linear-probe": ({"train.freeze": "backbone"}, True, 30),
}


def main() -> None:
    """Run the cases and seeds that are not stored yet, then print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    path, stored = results_file("fine_tune")
    runs = stored.setdefault("runs", {})
    for seed in range(options.seeds):
        for case, (changes, is_pretrained, times) in CASES.items():
            name = f"{case}, {times * options.epochs:g} epochs, seed {seed}"
            if name not in runs:
                start = {"train.pretrained": str(options.weights), **OPEN} if is_pretrained else ARCHITECTURE
                runs[name] = run_case({**start, **changes, "train.seed": seed}, times * options.epochs)
                path.write_text(json.dumps(stored, indent=1) + "\n")
    for case, (_, _, times) in CASES.items():
        group = f"{case}, {times * options.epochs:g} epochs"
        found = [run["accuracy"] for name, run in runs.items() if name.startswith(group)]
        print(f"{group}: {statistics.mean(found):.2%} ({min(found):.2%} to {max(found):.2%}), {len(found)} seeds")


def run_case(config: dict[str, object], epochs: float) -> dict[str, object]:
    """Train once and return the scores."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = vt.train("digits", epochs=epochs, config=config, out=Path(folder) / "run")
        test = run.metrics["test"]
    return {
        "accuracy": test["accuracy"],
        "interval_95": test["interval_95"],
        "loss": test["loss"],
        "wall_s": round(time.perf_counter() - began, 1),
        "config": {key: value for key, value in config.items() if key != "train.pretrained"},
    }


if __name__ == "__main__":
    main()
