"""Run or model file, optionally other data -> Evaluation."""

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
from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import compute_logits, score
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import survey_again
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split
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
        DataError: The data has changed since the run, has classes that the model does not know, or has no readable
            image.
    """
    predictor = Predictor.load(run, device)
    own = _held_out(run, predictor, listener, data) if data is None or isinstance(data, Source) else None
    if own is not None:
        surveyed, split = own
        source, indices, name = surveyed.source, surveyed.indices[split], f"{surveyed.facts.name}, {split} split"
    else:
        task: Task = "single" if predictor.thresholds is None else "multilabel"
        source = data if isinstance(data, Source) else open_source(str(data), root, task)
        check_task(source, task)
        is_test = source.splits == "test"
        indices = np.flatnonzero(is_test) if is_test.any() else np.arange(len(source))
        name = f"{source.name}, test split" if is_test.any() else f"all of {source.name}{_trained_on(run, str(data))}"
    numbers = _label_map(source, predictor)
    store = load_store(source, indices, predictor.preprocess, progress=lambda done, total: listener(
        "reading", {"what": "decoding", "done": done, "total": total}))  # fmt: skip
    listener("skipped", {"skipped": store.skipped})
    if not len(store):
        raise DataError(
            f"{name}: none of its {plural(len(indices), 'image')} can be decoded; check them with `vitreous inspect`"
        )
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    logits, found = compute_logits(predictor.model, loader, "fp32")
    if predictor.thresholds is not None:
        true = torch.zeros(len(found), len(predictor.classes)).index_copy_(1, numbers, found)
        probabilities = predictor.probabilities(logits).numpy()
        loss = score(logits, true).loss
        return score_each_label(name, probabilities, true.numpy() > 0.5, loss, predictor.classes, predictor.thresholds)
    true = numbers[found]
    return count_classes(name, score(logits, true), true, logits.argmax(dim=1), predictor.classes)


def _held_out(run: Path, predictor: Predictor, listener: Listener, source: Source | None) -> tuple[Survey, str] | None:
    """Return the run's own data and the split to score; None if `source` is not the data of the run."""
    folder, way_out = RunFolder(run.expanduser()), f"give other data: `vitreous evaluate {quote(str(run))} DATA`"
    if not folder.config.is_file():
        if source is not None:
            return None
        raise NotARunError(f"run={run}: is a model file, which does not record its test images; {way_out}")
    surveyed = survey_again(read_config(folder.config).data, listener, source)
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


def _trained_on(run: Path, data: str) -> str:
    """Return a warning if `data` is what the run was trained on, else an empty string."""
    config = RunFolder(run.expanduser()).config
    if not config.is_file():
        return ""
    trained_on = read_config(config).data.source
    same = data == trained_on or Path(data).expanduser().resolve() == Path(trained_on)
    return " (the model was trained on most of these images)" if same else ""


def _label_map(source: Source, predictor: Predictor) -> torch.Tensor:
    """Return the model's class index for each class index of the source."""
    for name in source.classes:
        if name not in predictor.classes:
            raise DataError(f"{source.name}: class {name} is unknown to the model; {nearest(name, predictor.classes)}")
    return torch.tensor([predictor.classes.index(name) for name in source.classes])
