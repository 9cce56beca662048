"""Changed labels, models trained on them -> how many of the most doubtful labels are changed ones.

    python benchmarks/label_errors.py --data ../shared/data/sign-digits --run-from none
    python benchmarks/label_errors.py --data ../shared/data/clothing-96px --run-from weights.safetensors --budget 10m

5% of the labels of the training images are changed. A table of all images with these labels is trained on, once with
folds and once without, and the images are ranked by the margin of `vitreous inspect RUN`. Precision is the share of
changed labels among the top 5%. If cleanlab is installed, its ranking of the same probabilities is measured too.
`--run-from` is a run or weights to start from, or none. Results go to benchmarks/results/HARDWARE/label_errors.json.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from results import command_line, results_file
from vitreous.data.doctor.mislabeled import find_doubtful_labels, label_margins
from vitreous.data.sources import Source, open_source
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest, with_options
from vitreous.training.series import run_series
from vitreous.training.start import run_training
from vitreous.use.evaluate.images.label_errors import predict_unseen

WRONG_LABELS = 0.05


def changed_labels(source: Source, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the labels, of which 5% of those that may be trained on are changed, and which ones are."""
    random = np.random.default_rng(seed)
    pool = random.permutation(np.flatnonzero(~np.isin(source.splits, ("val", "test"))))
    wrong = pool[: round(WRONG_LABELS * len(pool))]
    labels = source.labels.copy()
    labels[wrong] = (labels[wrong] + random.integers(1, len(source.classes), len(wrong))) % len(source.classes)
    return labels, np.isin(np.arange(len(source)), wrong)


def write_table(path: Path, source: Source, labels: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """Write the images that may be trained on as one set without splits; return their numbers."""
    chosen = np.flatnonzero(~np.isin(source.splits, ("val", "test")))
    chosen = np.sort(np.random.default_rng(0).permutation(chosen)[:most])
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = ((Path(source.describe(index)).resolve(), source.classes[labels[index]]) for index in chosen.tolist())
        csv.writer(file).writerows([("path", "label"), *rows])
    return chosen


def quality(probabilities: NDArray[np.float64], labels: NDArray[np.int64], wrong: NDArray[np.bool_]) -> dict[str, Any]:
    """Return the precision of the ranking at 5%, and what `vitreous inspect` would list."""
    top = round(WRONG_LABELS * len(labels))
    doubts = find_doubtful_labels(probabilities, labels, are_probabilities=True)
    hits = int(wrong[doubts.positions].sum())
    found = {
        "accuracy": round(doubts.accuracy, 4),
        "precision at 5%": share(wrong[np.argsort(-label_margins(probabilities, labels), kind="stable")[:top]]),
        "listed": len(doubts.positions),
        "listed precision": round(hits / max(1, len(doubts.positions)), 4),
        "listed recall": round(hits / max(1, int(wrong.sum())), 4),
    }
    try:
        from cleanlab.rank import order_label_issues
    except ImportError:
        return found
    everything = np.ones(len(labels), dtype=bool)
    for name in ("normalized_margin", "self_confidence"):
        order = order_label_issues(
            everything, labels, probabilities, rank_by=name, rank_by_kwargs={"adjust_pred_probs": True}
        )
        found[f"cleanlab, {name}, precision at 5%"] = share(wrong[order[:top]])
    return found


def share(hits: NDArray[np.bool_]) -> float:
    """Return the share of hits, rounded."""
    return round(float(hits.mean()), 4)


def table_rows(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Return a row of docs/corrections.md per data set, kind of run and start: accuracy and precision."""
    rows = []
    for key, found in runs.items():
        data, kind, start, _ = key.split(", ")
        kind, start = kind.replace("folds", "5 folds"), start.removeprefix("from ").replace("none", "scratch")
        shares = [found[name] for name in ("accuracy", "precision at 5%")]
        shares.append(found.get("cleanlab, normalized_margin, precision at 5%"))
        percentages = ["–" if share is None else f"{share:.0%}" for share in shares]
        rows.append(f"| {' | '.join([data, kind, start, found['budget'], *percentages])} |")
    return rows


def main() -> None:
    """Train, measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders")
    parser.add_argument("--run-from", default="none", help="a run or weights to start from, or none")
    parser.add_argument("--budget", default="10m", help="for all folds together, and for the single run")
    parser.add_argument("--folds", type=int, default=5, help="0 measures only the single run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, help="at most this many images")
    options = parser.parse_args()
    path, stored = results_file("label_errors")
    source = open_source(options.data)
    for seed in range(options.seeds):
        labels, wrong = changed_labels(source, seed)
        with tempfile.TemporaryDirectory(prefix="label-errors-") as temporary:
            table = Path(temporary) / "labels.csv"
            chosen = write_table(table, source, labels, options.images)
            for folds in dict.fromkeys((options.folds, 0)):
                kind = "folds" if folds else "single run"
                out = Path(temporary) / kind
                asked = {"pretrained": options.run_from, "seed": seed}
                request = with_options(TrainRequest(data=str(table), out=out, folds=folds), asked, options.budget)
                _ = run_series(request, _nothing) if folds else run_training(request)
                surveyed, indices, probabilities = predict_unseen(out)
                seen = surveyed.source.labels[indices]
                found = quality(probabilities, seen, wrong[chosen][indices])
                start = "none" if options.run_from == "none" else "pretrained weights"
                key = f"{options.data.name}, {kind}, from {start}, seed {seed}"
                stored.setdefault("runs", {})[key] = {
                    "command": command_line(), "budget": options.budget, "images": len(indices), **found
                }  # fmt: skip
                print(key, json.dumps(found, indent=1), flush=True)
                path.write_text(json.dumps(stored, indent=1) + "\n")


def _nothing(run: RunFolder) -> None:
    """Do nothing after a run."""


if __name__ == "__main__":
    main()
