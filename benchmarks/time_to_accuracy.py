"""A time budget -> the accuracy of vitreous and of timm's training script, on the same images and machine.

    .venv-bench/bin/python benchmarks/time_to_accuracy.py --data ../shared/data --minutes 10 --seeds 0 1 2

For vitreous, this runs `vitreous train DATA --budget 10m` without other options. For timm, it repeats what timm's
`train.py` does with the parts of its package: its loader with its default augmentation, a timm Vision Transformer with
the same patch size, label smoothing 0.1, drop path 0.1, AdamW and a cosine schedule with warm-up, as its documentation
trains ViTs. The number of epochs is estimated from the first seconds so that it fits the time; a user of the script
would have to guess it. `train.py` does not hold out validation images, so timm trains on our training and validation
images together, and its last weights are tested on our test images. By default timm's crops have 8% to 100% of the area
of an image, which suits ImageNet; `--scale 0.6` selects milder ones. Both run at the same time, each on its own core,
so that they share the same conditions. Cases that are already in the results are skipped.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from parity import define_missing_operators
from results import results_file

CASES = {
    # name: (source, patch size, image size for timm)
    "sign-digits": ("{data}/sign-digits", 8, 64),
    "fashion-mnist": ("fashion-mnist", 4, 28),
    "clothing-96px": ("{data}/clothing-96px", 8, 64),
}
TIMM_SIZES = {"vit_tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
              "vit_micro": {"embed_dim": 128, "depth": 6, "num_heads": 4}}  # fmt: skip
"""timm's smallest model with a name, and one as small as ours, which a user of timm would have to define."""
RATES = {"lr": 1e-3, "weight_decay": 0.05, "batch_size": 128, "smoothing": 0.1, "drop_path_rate": 0.1}
WARMUP_SHARE = 0.05
TIMM_SCALE = 0.08
"""Default of timm's script for the smallest fraction of an image in a crop."""


def write_images(source: str, folder: Path) -> None:
    """Write the images of a data set to `train/` (with the validation images) and `test/`, for timm's folder reader."""
    from vitreous.data.sources import open_source
    from vitreous.data.survey.facts import survey

    surveyed = survey(open_source(source))
    for split, indices in surveyed.indices.items():
        for index in indices:
            name = surveyed.source.classes[surveyed.source.labels[index]].replace("/", "-")
            path = folder / ("test" if split == "test" else "train") / name
            path.mkdir(parents=True, exist_ok=True)
            surveyed.source.image(int(index)).save(path / f"{index}.png")


def train_with_timm(
    folder: Path, size: str, patch_size: int, img_size: int, budget_s: float, seed: int, scale: float
) -> None:
    """Train as timm's script does, and print the result as a line of JSON."""
    define_missing_operators()
    import timm
    from timm.data import create_dataset, create_loader
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    began = time.perf_counter()
    timm.utils.random_seed(seed)
    batch_size = RATES["batch_size"]
    datasets = {split: create_dataset("", root=str(folder), split=split, is_training=split == "train")
                for split in ("train", "test")}  # fmt: skip
    shape = (3, img_size, img_size)
    common = {"input_size": shape, "batch_size": min(batch_size, len(datasets["train"])), "use_prefetcher": False,
              "num_workers": 1, "device": torch.device("cpu")}  # fmt: skip
    loader = create_loader(datasets["train"], is_training=True, scale=(scale, 1.0), **common)
    held_out = create_loader(datasets["test"], is_training=False, crop_pct=1.0, **common)
    num_classes = len(datasets["train"].reader.class_to_idx)
    model = timm.models.VisionTransformer(
        img_size=img_size, patch_size=patch_size, num_classes=num_classes, drop_path_rate=RATES["drop_path_rate"],
        **TIMM_SIZES[size],
    )  # fmt: skip
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATES["lr"], weight_decay=RATES["weight_decay"])
    criterion = LabelSmoothingCrossEntropy(RATES["smoothing"])

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    model.train()
    steps, probe_began = 0, time.perf_counter()
    for images, labels in loader:
        step(images, labels)
        steps += 1
        if time.perf_counter() - probe_began > 0.03 * budget_s:
            break
    step_s = (time.perf_counter() - probe_began) / steps
    left_s = budget_s - (time.perf_counter() - began) - 0.3 * step_s * len(held_out)
    num_epochs = max(1, int(left_s / (step_s * len(loader))))
    timm.utils.random_seed(seed)
    model.init_weights()
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=num_epochs, warmup_epochs=max(1, round(WARMUP_SHARE * num_epochs)),
        warmup_lr=1e-5, step_on_epochs=False, updates_per_epoch=len(loader),
    )  # fmt: skip
    optimizer.state.clear()
    updates = 0
    for _ in range(num_epochs):
        for images, labels in loader:
            step(images, labels)
            updates += 1
            scheduler.step_update(updates)
    model.eval()
    with torch.inference_mode():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in held_out)
    wall_s = time.perf_counter() - began
    found = {"accuracy": right / len(datasets["test"]), "num_images": len(datasets["test"]), "wall_s": round(wall_s, 1),
             "epochs": num_epochs, "model": size, "parameters": sum(p.numel() for p in model.parameters())}  # fmt: skip
    print(json.dumps(found))


def run_pair(
    source: str, size: str, patch: int, img_size: int, folder: Path, minutes: float, seed: int, scale: float
) -> dict[str, Any]:
    """Run both at the same time, each on one core."""
    out, environment = folder.parent / f"run-{size}-{seed}", os.environ | {"OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "vitreous", "train", source, "--budget", f"{minutes}m", "--seed", str(seed)]
    began = time.perf_counter()
    ours = subprocess.Popen(
        ["taskset", "-c", "0", *words, "--out", str(out)], env=environment, stdout=subprocess.DEVNULL
    )
    theirs = subprocess.Popen(
        ["taskset", "-c", "1", sys.executable, __file__, "--timm", str(folder), "--size", size, "--minutes",
         str(minutes), "--seeds", str(seed), "--shape", str(patch), str(img_size), "--scale", str(scale)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    ours.wait()
    wall_s = time.perf_counter() - began
    output, _ = theirs.communicate()
    if ours.returncode or theirs.returncode:
        raise SystemExit(f"vitreous ended with {ours.returncode}, timm with {theirs.returncode}")
    import vitreous as vt

    run = vt.load_run(out)
    test = run.metrics["test"]
    return {
        "vitreous": {**test, "wall_s": round(wall_s, 1), "architecture": run.metadata["architecture"]},
        "timm": json.loads(output.strip().splitlines()[-1]),
    }


def print_table(runs: dict[str, Any]) -> None:
    """Print a row for each case and each size of timm's model."""
    print("\n| data | minutes | seeds | vitreous | timm | timm's model | difference |\n|---|---|---|---|---|---|---|")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for key, found in runs.items():
        case, minutes, size, _ = key.split("/")
        groups.setdefault((case, minutes, size), []).append(found)
    for (case, minutes, size), found in groups.items():
        ours, theirs = ([run[side]["accuracy"] for run in found] for side in ("vitreous", "timm"))
        texts = [f"{statistics.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})" for values in (ours, theirs)]
        points = 100 * np.subtract(ours, theirs).mean()
        print(f"| {case} | {minutes} | {len(found)} | {texts[0]} | {texts[1]} | {size} | {points:+.1f} |")


def main() -> None:
    """Run the selected cases that are not stored yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="default: all")
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with sign-digits and clothing-96px"
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--size", choices=TIMM_SIZES, default="vit_tiny", help="timm's model")
    parser.add_argument("--scale", type=float, default=TIMM_SCALE, help="smallest fraction of an image in timm's crops")
    parser.add_argument("--timm", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.timm is not None:
        train_with_timm(
            options.timm, options.size, *options.shape, 60 * options.minutes, options.seeds[0], options.scale
        )
        return
    path, stored = results_file("time_to_accuracy")
    runs = stored.setdefault("runs", {})
    for case in options.cases or CASES:
        named, patch, img_size = CASES[case]
        source = named.format(data=options.data)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "images"
            write_images(source, folder)
            for seed in options.seeds:
                named_size = options.size if options.scale == TIMM_SCALE else f"{options.size}, scale {options.scale:g}"
                key = f"{case}/{options.minutes:g}/{named_size}/{seed}"
                if key in runs:
                    continue
                runs[key] = run_pair(
                    source, options.size, patch, img_size, folder, options.minutes, seed, options.scale
                )
                path.write_text(json.dumps(stored, indent=1) + "\n")
                accuracies = [f"{side} {runs[key][side]['accuracy']:.1%}" for side in ("vitreous", "timm")]
                print(f"{key}: {', '.join(accuracies)}", flush=True)
    print_table(runs)


if __name__ == "__main__":
    main()
