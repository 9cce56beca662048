"""A run, other data sets -> how well it recognizes their images as unlike its training images, by each score.

    vitreous train ../shared/data/clothing-96px --budget 10m --out runs/clothing
    python benchmarks/unfamiliar.py runs/clothing --data ../shared/data/sign-digits digits fashion-mnist
    python benchmarks/unfamiliar.py runs/digits --data ../shared/data/clothing-96px --images 200

The test images of the run are compared with the images of each data set that --data names; its classes should not be
those of the run. For each score: AUROC, and the share of familiar images that have a larger score than the least 5% of
the unfamiliar ones (FPR at 95%). `flagged` is the share that `vitreous predict` marks, of which 5% are expected for the
test images. The score that the run uses was chosen by its probe, which has seen none of these data sets.

Results go to benchmarks/results/HARDWARE/unfamiliar.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from results import command_line, results_file
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import Source, open_source
from vitreous.recipe.files import read_config
from vitreous.training.fit.familiarity import FLAGGED, SCORES, head_inputs
from vitreous.training.folder.outputs import read_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.predict.predictor import Predictor

Outputs = tuple[torch.Tensor, torch.Tensor]
"""Input of the head, and logits."""


def outputs_of(predictor: Predictor, source: Source, indices: np.ndarray) -> Outputs:
    """Return what the model gives for these images of a source; those that do not decode are left out."""
    store = load_store(source, indices, predictor.preprocess)
    return head_inputs(predictor.model, (batch.images for batch in EvalLoader(store, predictor.preprocess, 256)))


def drawn(indices: np.ndarray, most: int) -> np.ndarray:
    """Return at most this many of the indices, at random but always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(indices)[:most])


def measure(predictor: Predictor, familiar: Outputs, unfamiliar: Outputs) -> dict[str, Any]:
    """Return AUROC and FPR at 95% by score, and the share of the unfamiliar images that are flagged."""
    known, found = predictor.familiarity, {}
    truth = np.repeat([0, 1], [len(familiar[0]), len(unfamiliar[0])])
    for name in SCORES:
        scores = np.concatenate([known.scores(name, *outputs).numpy() for outputs in (familiar, unfamiliar)])
        false_positives, true_positives, _ = roc_curve(truth, scores)
        fpr = float(false_positives[np.argmax(true_positives >= 0.95)])
        found[name] = {"auroc": round(float(roc_auc_score(truth, scores)), 4), "fpr_at_95": round(fpr, 4)}
    return {"num_images": len(unfamiliar[0]), "flagged": flagged(predictor, unfamiliar), **found}


def flagged(predictor: Predictor, outputs: Outputs) -> float:
    """Return the share of the images that `vitreous predict` would mark."""
    return round(float((predictor.familiarity.unfamiliar(*outputs) >= FLAGGED).mean()), 4)


def table_rows(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return the rows of docs/unfamiliar.md: shares that are marked, and the AUROC of the score that the run uses."""
    rows = []
    for name, cases in runs.items():
        rows.append(f"| {name} | its test images, {cases['data']} | {cases['flagged']:.0%} | – |")
        for data, found in cases.items():
            if isinstance(found, dict):
                rows.append(f"| {name} | {data} | {found['flagged']:.0%} | {found[cases['used']]['auroc']:.2f} |")
    return rows


def main() -> None:
    """Measure all data sets, store the results, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--images", type=int, default=1_000, help="at most, of each data set")
    options = parser.parse_args()
    folder, predictor = RunFolder(options.run), Predictor.load(options.run)
    if predictor.familiarity is None:
        parser.error(f"{folder.familiarity} is missing; train with at least 19 validation images")
    config, name = read_config(folder.config).data, predictor.metadata["data"]
    own = open_source(config.source, config.root, config.task)
    held_out = read_outputs(folder.outputs)
    familiar = outputs_of(predictor, own, drawn((held_out.get("test") or held_out["val"]).indices, options.images))
    path, stored = results_file("unfamiliar")
    cases = stored.setdefault("runs", {}).setdefault(options.run.name, {})
    cases |= {"data": name, "used": predictor.familiarity.score, "command": command_line()}
    cases |= {"num_images": len(familiar[0]), "flagged": flagged(predictor, familiar)}
    print(f"{name}: {cases['flagged']:.1%} of the test images flagged, by {cases['used']}")
    for data in options.data:
        source = open_source(data)
        unfamiliar = outputs_of(predictor, source, drawn(np.arange(len(source)), options.images))
        cases[source.name] = measure(predictor, familiar, unfamiliar)
        path.write_text(json.dumps(stored, indent=2) + "\n")
        scores = ", ".join(
            f"{score} AUROC {cases[source.name][score]['auroc']:.3f} FPR {cases[source.name][score]['fpr_at_95']:.1%}"
            for score in SCORES
        )
        print(f"{source.name}: {cases[source.name]['flagged']:.1%} flagged; {scores}")


if __name__ == "__main__":
    main()
