"""Run or model file, optionally other data -> Evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vitreous.data.loader import EvalLoader
from vitreous.data.sources import Source
from vitreous.paths import expanded
from vitreous.recipe.files import read_config
from vitreous.tensors import Logits, Targets
from vitreous.training.fit.evaluate import compute_logits, cross_fitted_temperatures, score
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.use.evaluate.calibration import measure_calibration, top_k_accuracy
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.evaluate.known import count_known, find_splits
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.evaluate.multilabel import LabelEvaluation, score_each_label
from vitreous.use.evaluate.paired import classify_all, paired_difference
from vitreous.use.predict.predictor import Predictor

BATCH_SIZE = 256
_TOP = (2, 3, 5)
"""Numbers k for which the accuracy of the k most probable classes is computed."""


def evaluate(
    run: Path,
    data: str | Source | None = None,
    *,
    root: str | None = None,
    num_views: int = 1,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> Evaluation | LabelEvaluation:
    """Score a trained model.

    Args:
        run: Run folder; a model file is enough if `data` is given.
        data: A folder, table or named set: its test split if it has one, else all its images. None, or the data set
            that the run was given from Python, selects the run's own test images (validation images if it has no test
            images).
        root: The folder that a table's paths are relative to.
        num_views: With more than 1, also measure what averaging over this many views of each image gains.
        device: Where to compute.
        listener: Receives the progress.

    Raises:
        ConfigError: There are not that many views.
        NotARunError: There is no model at `run`, or no run folder although `data` is None.
        DataNotFoundError: The data of the run is not where it was.
        DataError: The data has changed since the run, has classes that the model does not know, or has no readable
            image.
    """
    run = expanded(run)
    predictor = Predictor.load(run, device).with_views(num_views)
    images = labeled_images(run, predictor, data, root=root, listener=listener)
    name, source, indices, splits = images.name, images.source, images.indices, None
    if not images.are_own:
        splits = find_splits(run, source, indices, progress_to(listener, "reading"))
        name += _by_path(run, str(data)) if splits is None else ""
    store, true = images.decode(predictor, indices, listener)
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    logits, _ = compute_logits(predictor.model, loader, "fp32")
    temperatures = torch.tensor(predictor.temperature)
    if images.fitted_temperature and predictor.temperature != 1 and predictor.thresholds is None:
        temperatures = cross_fitted_temperatures(logits, true)
    evaluation = _scores(name, predictor, logits, true, temperatures)
    if num_views > 1:
        averaged = classify_all(predictor, store, true)
        gain = paired_difference(averaged - classify_all(replace(predictor, views=None), store, true))
        evaluation = replace(evaluation, views={"num_views": num_views, "accuracy": averaged.mean(), "gain": gain})
    if splits is None:
        return evaluation
    decoded = splits[np.isin(indices, store.source_indices)]
    return replace(evaluation, known=count_known(decoded, predictor.metadata, logits, true, predictor.classes))


def _scores(
    name: str, predictor: Predictor, logits: Logits, true: Targets, temperatures: Tensor
) -> Evaluation | LabelEvaluation:
    total = score(logits, true, predictor.classes)
    if predictor.thresholds is None:
        found = count_classes(name, total, true, logits.argmax(dim=1), predictor.classes)
        probabilities, numbers = (logits.double() / temperatures).softmax(dim=1).numpy(), true.numpy()
        top_k = {k: top_k_accuracy(probabilities, numbers, k) for k in _TOP if k < len(predictor.classes)}
        return replace(found, calibration=measure_calibration(probabilities, numbers), top_k=top_k)
    of_labels, truth = predictor.probabilities(logits).numpy(), true.numpy() > 0.5
    return score_each_label(name, of_labels, truth, total.loss, predictor.classes, predictor.thresholds)


def _by_path(run: Path, data: str) -> str:
    """Return a warning about `data` for a run of an older version, which has no record of its images."""
    config = RunFolder(run).config
    if config.is_file():
        trained_on = read_config(config).data.source
        if data == trained_on or expanded(data).resolve() == Path(trained_on):
            return " (the model was trained on most of these images)"
    return " (the model comes without a record of its training images, so those among these are not recognized)"
