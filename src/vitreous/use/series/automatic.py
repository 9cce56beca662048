"""Finished run that few images tested -> folds that show how certain its accuracy is, if its budget leaves the time."""

from vitreous.data.sources import Source
from vitreous.model.weights import read_metadata
from vitreous.recipe import keys
from vitreous.recipe.files import read_config
from vitreous.recipe.pace import FOLD_S, OUTSIDE_S
from vitreous.training.folder.records import Listener, read_records
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series, settled_by
from vitreous.training.weights.transfer import FEW_TESTED, num_folds
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.series.page import write_summary

_LEAST_SHARE = 0.8
"""Each fold must get this share of the training time of the run, as it trains on about the same number of images."""
_UNUSED_S = 6.0
"""Seconds of the `OUTSIDE_S` that each fold reserves and does not need, as its process has started."""
_OWN_KEYS = ("train.budget_s", "data.num_folds", "data.test_ratio")
"""Keys that the folds do not take over, in addition to those that the runs of any series have for themselves."""


def add_folds(folder: RunFolder, listener: Listener, source: Source | None = None) -> SeriesFolder | None:
    """Train folds with the settings of a run, so that each image is tested once by a model that was not trained on it.

    An interrupted series is continued. The folds get no report of their own. `source` is the data of a run that got it
    from Python.

    Returns:
        The series in the folder of the run; None if the accuracy is certain enough without, the images to test on were
        given, the weights are not pretrained, or the budget does not suffice.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the run itself is complete.
    """
    if folder.folds.series.is_file():
        return run_series(TrainRequest(resume=folder.folds.path, source=source), _update_summary, listener)
    left_s = _seconds_left(folder)
    if left_s <= 0:
        return None
    config = read_config(folder.config)
    settled = settled_by(config, is_same_data=False)
    number = num_folds(keys.take_apart(config))
    budget_s = left_s + number * _UNUSED_S
    values = {"train.seed": config.train.seed, "train.budget_s": budget_s, "data.root": config.data.root}
    request = TrainRequest(
        data=None if source is not None else config.data.source,
        source=source,
        values={key: value for key, value in values.items() if value is not None},
        settled={key: value for key, value in settled.items() if key not in _OWN_KEYS},
        folds=number,
        out=folder.folds.path,
    )
    return run_series(request, _update_summary, listener)


def _update_summary(fold: RunFolder) -> None:
    write_summary(SeriesFolder(fold.path.parent))


def _seconds_left(folder: RunFolder) -> float:
    """Return the seconds that all folds may take together; 0 if there are to be none."""
    config, metrics = read_config(folder.config), read_metadata(folder.model)["metrics"]
    split = scored_split(metrics)
    is_open = config.train.budget_s and config.train.pretrained is not None and not config.data.num_folds
    if not is_open or split is None or metrics[split]["num_images"] >= FEW_TESTED:
        return 0.0
    first = {record["kind"]: record for record in reversed(read_records(folder.records))}
    if not {"data", "fit", "end"} <= first.keys() or first["data"].get("brings_test", True):
        return 0.0
    left_s = config.train.budget_s - first["end"]["elapsed_s"] - OUTSIDE_S
    fold_s = _LEAST_SHARE * (first["end"]["time"] - first["fit"]["time"]) + FOLD_S
    return left_s if left_s >= num_folds(keys.take_apart(config)) * fold_s else 0.0
