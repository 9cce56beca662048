"""Run or model file, optionally other data -> Evaluation."""

from dataclasses import replace
from pathlib import Path
from shlex import quote

import numpy as np
import torch

from vitreous.data.label_cells import Task
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import Source, check_task, open_source
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError, NotARunError, nearest
from vitreous.paths import expanded
from vitreous.recipe.files import read_config
from vitreous.tensors import Logits, Targets
from vitreous.training.fit.evaluate import compute_logits, score
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.training.moved import survey_of_run
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split
from vitreous.use.evaluate.known import count_known, find_splits
from vitreous.use.evaluate.multilabel import LabelEvaluation, score_each_label
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

BATCH_SIZE = 256


def evaluate(
    run: Path,
    data: str | Source | None = None,
    *,
    root: str | None = None,
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
        device: Where to compute.
        listener: Receives the progress.

    Raises:
        NotARunError: There is no model at `run`, or no run folder although `data` is None.
        DataNotFoundError: The data of the run is not where it was.
        DataError: The data has changed since the run, has classes that the model does not know, or has no readable
            image.
    """
    run, splits = expanded(run), None
    predictor = Predictor.load(run, device)
    own = _held_out(run, predictor, listener, data) if data is None or isinstance(data, Source) else None
    if own is not None:
        surveyed, split = own
        source, indices = surveyed.source, surveyed.indices[split]
        name = f"{surveyed.facts.name}, {'validation' if split == 'val' else split} split"
    else:
        task: Task = "single" if predictor.thresholds is None else "multilabel"
        source = data if isinstance(data, Source) else open_source(str(data), root, task)
        check_task(source, task)
        is_test = source.splits == "test"
        indices = np.flatnonzero(is_test) if is_test.any() else np.arange(len(source))
        name = f"{source.name}, test split" if is_test.any() else f"all of {source.name}"
        splits = find_splits(run, source, indices, progress_to(listener, "reading"))
        name += _by_path(run, str(data)) if splits is None else ""
    numbers = _label_map(source, predictor)
    store = load_store(source, indices, predictor.preprocess, progress=progress_to(listener, "decoding"))
    listener("skipped", {"skipped": store.skipped})
    predictor.preprocess.scale.warn_of_clipped()
    if not len(store):
        raise DataError(
            f"{name}: none of its {plural(len(indices), 'image')} can be decoded; check them with `vitreous inspect`"
        )
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    logits, found = compute_logits(predictor.model, loader, "fp32")
    if predictor.thresholds is None:
        true = numbers[found]
    else:
        true = torch.zeros(len(found), len(predictor.classes)).index_copy_(1, numbers, found)
    evaluation = _scores(name, predictor, logits, true)
    if splits is None:
        return evaluation
    decoded = splits[np.isin(indices, store.source_indices)]
    return replace(evaluation, known=count_known(decoded, predictor.metadata, logits, true, predictor.classes))


def _scores(name: str, predictor: Predictor, logits: Logits, true: Targets) -> Evaluation | LabelEvaluation:
    total = score(logits, true, predictor.classes)
    if predictor.thresholds is None:
        return count_classes(name, total, true, logits.argmax(dim=1), predictor.classes)
    probabilities, truth = predictor.probabilities(logits).numpy(), true.numpy() > 0.5
    return score_each_label(name, probabilities, truth, total.loss, predictor.classes, predictor.thresholds)


def _held_out(run: Path, predictor: Predictor, listener: Listener, source: Source | None) -> tuple[Survey, str] | None:
    """Return the run's own data and the split to score; None if `source` is not the data of the run."""
    folder, way_out = RunFolder(run), f"give other data: `vitreous evaluate {quote(str(run))} DATA`"
    if not folder.config.is_file():
        if source is not None:
            return None
        raise NotARunError(f"run={run}: is a model file, which does not record its test images; {way_out}")
    surveyed = survey_of_run(folder, read_config(folder.config).data, listener, source, predictor.classes)
    before, now = predictor.metadata.get("data_fingerprint"), surveyed.facts.fingerprint
    if before != now:
        if source is not None:
            return None
        raise DataError(
            f"{surveyed.facts.name}: has changed since the run (fingerprint {now}, was {before}), so the test split "
            f"may contain images that the model was trained on; {way_out}"
        )
    split = scored_split(name for name, members in surveyed.indices.items() if len(members))
    if split is None:
        raise DataError(f"{surveyed.facts.name}: the run has no test or validation images; {way_out}")
    return surveyed, split


def _by_path(run: Path, data: str) -> str:
    """Return a warning about `data` for a run of an older version, which has no record of its images."""
    config = RunFolder(run).config
    if config.is_file():
        trained_on = read_config(config).data.source
        if data == trained_on or expanded(data).resolve() == Path(trained_on):
            return " (the model was trained on most of these images)"
    return " (the model comes without a record of its training images, so those among these are not recognized)"


def _label_map(source: Source, predictor: Predictor) -> torch.Tensor:
    """Return the model's class index for each class index of the source."""
    numbers = {name: number for number, name in enumerate(predictor.classes)}
    for name in source.classes:
        if name not in numbers:
            raise DataError(f"{source.name}: class {name} is unknown to the model; {nearest(name, predictor.classes)}")
    return torch.tensor([numbers[name] for name in source.classes])
