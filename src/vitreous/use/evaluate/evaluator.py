"""Run or model file, optionally other data, or a table of predictions -> Evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitreous.data.loader import EvalLoader
from vitreous.data.sources import Source
from vitreous.data.sources.rows import is_table_name
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.training.fit.evaluate import Score, compute_logits
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.load import progress_to
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.evaluate.known import count_known, find_splits
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.evaluate.metrics.costs import Costs, read_costs
from vitreous.use.evaluate.multilabel import LabelEvaluation
from vitreous.use.evaluate.outputs import Outputs, evaluate_outputs
from vitreous.use.evaluate.paired import classify_all, paired_difference
from vitreous.use.predict.predictor import Predictor
from vitreous.use.predict.table import read_labeled
from vitreous.wording import plural

BATCH_SIZE = 256
_NO_RECORD = " (the model comes without a record of its training images, so those among these are not recognized)"


def evaluate(
    run: Path,
    data: str | Source | None = None,
    *,
    root: str | None = None,
    num_views: int = 1,
    device: torch.device | str = "cpu",
    cost: Costs = (),
    listener: Listener = ignore,
) -> Evaluation | LabelEvaluation:
    """Score a trained model, or predictions of any tool.

    `run` is a run folder, a model file if `data` is given, or a table of predictions; see `read_labeled`. `data` and
    `cost` are those of `Run.evaluate`. `root` is the folder of the images of a table or an export. With several views,
    what averaging over them gains is measured too.

    Raises:
        ConfigError: There are not that many views. A cost is not valid, or needs probabilities that are not known.
        NotARunError: There is no model at `run`, or no run folder although `data` is None.
        DataNotFoundError: The data of the run is not where it was.
        DataError: The data has changed since the run, has unknown classes, or has no readable image.
    """
    run = expanded(run)
    if is_table_name(run.name) and not run.is_dir():
        if data is not None or root is not None:
            raise ConfigError(f"run={run}: is a table of predictions, which needs no other data and no root; omit them")
        if num_views != 1:
            raise ConfigError(f"tta={num_views}: needs a model, and {run} is a table of predictions; omit it")
        return _evaluate_table(run, cost)
    predictor = Predictor.load(run, device).with_views(num_views)
    costs = read_costs(cost, predictor.classes, are_labels=predictor.thresholds is not None)
    images = labeled_images(run, predictor, data, root=root, listener=listener)
    name, source, indices, splits = images.name, images.source, images.indices, None
    if not images.are_own:
        splits = find_splits(run, source, indices, progress_to(listener, "reading"))
        name += _NO_RECORD if splits is None else ""
    store, true = images.decode(predictor, indices, listener)
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    logits, _ = compute_logits(predictor.model, loader, "fp32")
    outputs = Outputs(
        name, predictor.classes, logits, true, predictor.temperature, images.fitted_temperature,
        thresholds=predictor.thresholds, indices=store.source_indices,
    )  # fmt: skip
    evaluation = evaluate_outputs(outputs, costs)
    if num_views > 1:
        averaged = classify_all(predictor, store, true)
        gain = paired_difference(averaged - classify_all(replace(predictor, views=None), store, true))
        evaluation = replace(evaluation, views={"num_views": num_views, "accuracy": averaged.mean(), "gain": gain})
    if splits is not None:
        decoded = splits[np.isin(indices, store.source_indices)]
        known = count_known(decoded, predictor.metadata, logits, true, predictor.classes)
        evaluation = replace(evaluation, known=known)
    return evaluation


def _evaluate_table(path: Path, cost: Costs) -> Evaluation:
    """Score a table of true and predicted classes."""
    classes, true, predicted, given = read_labeled(path)
    name, is_complete = path.name, given is not None and given.shape[1] == len(classes) > 1
    if len(cost) and not is_complete:
        raise ConfigError(f"cost: needs the probability of each class; add the columns p_CLASS to {name}")
    costs = read_costs(cost, classes)
    found = count_classes(name, Score(len(true), int((true == predicted).sum()), np.nan), true, predicted, classes)
    if given is None or not is_complete:
        return replace(found, confidence=None if given is None else given[:, 0])
    of_true, of_predicted = (given[np.arange(len(true)), numbers] for numbers in (true, predicted))
    if num_others := int((of_predicted < given.max(axis=1)).sum()):
        name += f" (another class than the predicted one is most probable in {plural(num_others, 'row')})"
    loss = float(-np.log(np.maximum(of_true, np.finfo(np.float64).tiny)).mean())
    return replace(found, data=name, score=replace(found.score, loss=loss), probabilities=given, costs=costs)
