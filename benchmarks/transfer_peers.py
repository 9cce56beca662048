"""Pretrained weights, photo folders -> accuracy of other tools that fine-tune the same weights in the same time.

    python benchmarks/transfer_peers.py WEIGHTS --data ../shared/data --minutes 4 --envs timm=ENV/bin/python hf=...
    python benchmarks/transfer_peers.py WEIGHTS --data ../shared/data --minutes 4 --peers hf fastai --envs hf=...

Each tool is a program in transfer_peers/, whose docstring cites the documentation that it follows. All tools get the
same files at 126 px: the training, validation and test images of vitreous' split. Like vitreous, they may choose a
checkpoint on the validation images. They train in bf16 if they can on a CPU. Only the number of epochs is ours: the
whole process, from its start to its predictions, must end within the minutes. Three short runs per tool and data set
measure start-up, first epoch and further epoch; they do not count. AutoGluon is given the time itself, and scikit-learn
has no epochs. A process that takes 15% longer than the minutes is ended and tries once more with fewer epochs.

Accuracy is that of validation and test images together. vitreous' own runs are those of transfer.py. The difference is
paired: its 95% interval is for other images of the same kind, not for other seeds. Results go to
benchmarks/results/HARDWARE/transfer_peers.json as they are measured; a run that is already there is skipped.
"""

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import vitreous as vt
from held_out import Photo, answers, share_correct, split_photos
from peer_process import PEERS, Bench
from results import command_line, results_file
from vitreous.model.weights import export_weights
from vitreous.use.series.compare import paired_interval

SHOWN = {
    "timm": "timm, `train.py`",
    "hf": "transformers, `Trainer`",
    "fastai": "fastai, `fine_tune`",
    "autogluon": "AutoGluon, `MultiModalPredictor`",
    "lightly": "LightlyTrain",
    "scikit-learn": "scikit-learn, logistic regression",
}
"""Names in the table."""
CASES = ("clothing-96px", "sign-digits")
COUNTS_STEPS = ("hf", "lightly")
"""Tools that can stop within an epoch."""
WITHOUT_EPOCHS = ("autogluon", "scikit-learn")
PROBES = ((128, 1), (384, 1), (384, 2))
"""Training images and epochs of the runs that measure the speed of a tool."""
PLANNED, LIMIT = 0.95, 1.15
"""Shares of the time: for which epochs are planned, and after which a process is ended."""
FEWER = 0.8
"""Share of the planned epochs with which a tool that was ended tries once more; one epoch less for whole epochs."""
PREPROCESSING = {"size": 126, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def write_weights(weights: Path, folder: Path) -> None:
    """Write the weights as each tool expects them: `hf/` and `timm/` with their configuration, and `meta.pth`."""
    model = vt.load_model(weights)
    side, mean, std = PREPROCESSING.values()
    export_weights(model, folder / "hf", to="hf")
    processor = {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": side}, "resample": 3,
                 "crop_size": {"height": side, "width": side}, "image_mean": mean, "image_std": std}  # fmt: skip
    (folder / "hf" / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "timm").mkdir()
    export_weights(model, folder / "timm" / "model.safetensors", to="timm")
    config = {"input_size": [3, side, side], "mean": mean, "std": std, "interpolation": "bicubic", "crop_pct": 1.0,
              "num_classes": 0, "fixed_input_size": True,
              "first_conv": "patch_embed.proj", "classifier": "head"}  # fmt: skip
    described = {"architecture": "vit_small_patch14_dinov2", "num_classes": 0, "pretrained_cfg": config}
    (folder / "timm" / "config.json").write_text(json.dumps(described))
    export_weights(model, folder / "meta.pth", to="meta")


def lay_out(split: Mapping[str, list[Photo]], folder: Path, share: float = 1.0) -> None:
    """Copy photos to `folder/SPLIT/CLASS/NUMBER.SUFFIX`, where the number is the position in its split.

    Args:
        split: The photos of `train`, `val` and `test`.
        folder: Where to write.
        share: Share of each class of each split to copy, at least one photo.
    """
    for name, photos in split.items():
        for label in sorted({label for _, label in photos}):
            own = [(number, path) for number, (path, true) in enumerate(photos) if true == label]
            target = folder / name / label
            target.mkdir(parents=True)
            for number, path in own[: max(1, math.ceil(share * len(own)))]:
                shutil.copyfile(path, target / f"{number:05d}{path.suffix.lower()}")


def measure_pace(bench: Bench, split: Mapping[str, list[Photo]]) -> dict[str, float]:
    """Measure a tool on a few photos.

    Returns:
        `start_s`, the time of a process without images; `first_s`, the time per training image in the first epoch,
        predictions included; and `further_s`, that of each further epoch.
    """
    walls, counts = [], []
    for wanted, epochs in PROBES:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            photos = Path(folder) / "photos"
            lay_out(split, photos, wanted / len(split["train"]))
            counts.append(sum(path.is_file() for path in (photos / "train").rglob("*")))
            walls.append(bench.run(photos, epochs=epochs, seconds=600, limit_s=600, seed=0)["wall_s"])
    first_s = max(0.0, walls[1] - walls[0]) / (counts[1] - counts[0])
    return {
        "start_s": round(max(0.0, walls[0] - first_s * counts[0]), 1),
        "first_s": round(first_s, 5),
        "further_s": round(max(0.0, walls[2] - walls[1]) / counts[2], 5),
    }


def planned_epochs(pace: Mapping[str, float], num_train: int, seconds: float, *, counts_steps: bool) -> float:
    """Return how many epochs fit the time; a whole number unless the tool can stop within an epoch."""
    left_s = PLANNED * seconds - pace["start_s"]
    first_s, further_s = num_train * pace["first_s"], num_train * pace["further_s"]
    if left_s < first_s or not further_s:
        return max(0.0, left_s / first_s) if counts_steps else 1.0
    epochs = 1 + (left_s - first_s) / further_s
    return epochs if counts_steps else float(math.floor(epochs))


def run_case(bench: Bench, photos: Path, minutes: float, seed: int, stored: dict[str, Any]) -> dict[str, Any]:
    """Run a tool for some minutes and return its answers, time and settings."""
    split, seconds, epochs, pace = split_photos(photos), 60 * minutes, None, None
    if bench.peer not in WITHOUT_EPOCHS:
        paces = stored.setdefault("pace", {})
        pace = paces.get(f"{bench.peer}/{photos.name}") or measure_pace(bench, split)
        paces[f"{bench.peer}/{photos.name}"] = pace
        counts_steps = bench.peer in COUNTS_STEPS
        epochs = round(planned_epochs(pace, len(split["train"]), seconds, counts_steps=counts_steps), 2)
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        copied = Path(folder) / "photos"
        lay_out(split, copied)
        try:
            found = bench.run(copied, epochs=epochs or 1, seconds=seconds, limit_s=LIMIT * seconds, seed=seed)
        except subprocess.TimeoutExpired:
            if epochs is None or (bench.peer not in COUNTS_STEPS and epochs < 2):
                raise
            epochs = round(FEWER * epochs, 2) if bench.peer in COUNTS_STEPS else epochs - 1
            found = bench.run(copied, epochs=epochs, seconds=seconds, limit_s=LIMIT * seconds, seed=seed)
    correct = "".join(_answers(name, split[name], found["predicted"]) for name in ("val", "test"))
    return {
        "wall_s": found["wall_s"],
        "num_images": len(correct),
        "num_correct": correct.count("1"),
        "correct": correct,
        "epochs": epochs,
        "settings": found["settings"],
    }


def _answers(name: str, photos: list[Photo], predicted: Mapping[str, str]) -> str:
    """Return the answers of one split, whose copies are named by their positions."""
    by_number = {int(Path(path).stem): label for path, label in predicted.items() if path.startswith(f"{name}/")}
    return answers(photos, {path: by_number[number] for number, (path, _) in enumerate(photos)})


def table_rows(peers: Mapping[str, Any], ours: Mapping[str, Any], minutes: float = 4.0) -> list[str]:
    """Return a row of docs/transfer.md for vitreous and for each tool that has results.

    Args:
        peers: Runs of transfer_peers.json.
        ours: Runs of transfer.json.
        minutes: The time of the runs to show.
    """
    found = {"vitreous": _by_case(ours, "", minutes)}
    found |= {peer: _by_case(peers, f"{peer}/", minutes) for peer in PEERS}
    rows = []
    for tool, runs in found.items():
        if not runs:
            continue
        cells = [f"{share_correct(runs[case]).mean():.1%}" if case in runs else "–" for case in CASES]
        every = [run for case in runs.values() for run in case]
        epochs = [f"{statistics.mean(run['epochs'] for run in case):.1f}"
                  for case in runs.values() if case[0]["epochs"] is not None]  # fmt: skip
        seeds = min(len(case) for case in runs.values())
        wall_s = statistics.mean(run["wall_s"] for run in every)
        rows.append(
            f"| {SHOWN.get(tool, tool)} | {' | '.join(cells)} | {_difference(found['vitreous'], runs, tool)} | "
            f"{wall_s:.0f} s | {', '.join(epochs) or '–'} | {seeds} |"
        )
    return rows if len(rows) > 1 else []


def _by_case(runs: Mapping[str, Any], prefix: str, minutes: float) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of each case that have answers for each image."""
    found = {
        case: [run for key, run in runs.items() if key.startswith(f"{prefix}{case}/{minutes:g}m, seed")]
        for case in CASES
    }
    return {case: own for case, all_ in found.items() if (own := [run for run in all_ if "correct" in run])}


def _difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], tool: str) -> str:
    """Return by how many points vitreous is better on the images of all common cases, with its 95% interval."""
    common = [case for case in ours if case in theirs]
    if tool == "vitreous" or not common:
        return "–"
    differences = np.concatenate([share_correct(ours[case]) - share_correct(theirs[case]) for case in common])
    low, high = (100 * end for end in paired_interval(differences))
    return f"{100 * differences.mean():+.1f} ({low:+.1f} to {high:+.1f})"


def main() -> None:
    """Run the tools that have no stored result yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the photo folders")
    parser.add_argument("--minutes", type=float, default=4.0)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--cases", nargs="*", choices=CASES, default=CASES)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--envs", nargs="*", default=[], metavar="PEER=PYTHON", help="the Python of a tool")
    parser.add_argument("--timm", default="", metavar="FOLDER", help="a checkout of timm, for its train.py")
    options = parser.parse_args()
    path, stored = results_file("transfer_peers")
    runs = stored.setdefault("runs", {})
    pythons = dict(pair.split("=", 1) for pair in options.envs)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_weights(options.weights, folder)
        for seed in range(options.seeds):
            for peer in options.peers:
                bench = Bench(peer, pythons.get(peer, sys.executable), options.timm, folder, folder)
                for case in options.cases:
                    key = f"{peer}/{case}/{options.minutes:g}m, seed {seed}"
                    if key not in runs:
                        try:
                            runs[key] = run_case(bench, options.data / case, options.minutes, seed, stored)
                        except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
                            print(f"{key}: no result. {error}\n{error.output or ''}", flush=True)
                            continue
                        path.write_text(json.dumps(stored | {"command": command_line()}, indent=1) + "\n")
                    found = runs[key]
                    print(f"{key}: {found['num_correct'] / found['num_images']:.1%} in {found['wall_s']} s", flush=True)
    ours = path.with_name("transfer.json")
    print("\n".join(table_rows(runs, json.loads(ours.read_text())["runs"] if ours.exists() else {}, options.minutes)))


if __name__ == "__main__":
    main()
