"""Run, optionally other data -> labeled images: those that the run held out, or those of the data."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.data.label_cells import Task
from vitreous.data.pixels.store import Store, load_store
from vitreous.data.sources import Source, check_task, open_source
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError, NotARunError, nearest
from vitreous.model.weights.reading import hub_names
from vitreous.recipe.files import read_config
from vitreous.tensors import Labels, Targets
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.training.moved import survey_of_run
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural


@dataclass(frozen=True)
class LabeledImages:
    """Images whose classes the model knows.

    Attributes:
        name: Name of the data and of the split.
        source: The data.
        indices: Numbers of the images in the source.
        numbers: For each class of the source, its number in the model.
        are_own: The images belong to the data of the run.
        fitted_temperature: They are the validation images of the run, to which its temperature was fitted.
    """

    name: str
    source: Source
    indices: NDArray[np.int64]
    numbers: Labels
    are_own: bool
    fitted_temperature: bool = False

    def decode(self, predictor: Predictor, indices: NDArray[np.int64], listener: Listener) -> tuple[Store, Targets]:
        """Return some or all of the images and their labels for the model. DataError if none can be decoded."""
        store = load_store(self.source, indices, predictor.preprocess, progress=progress_to(listener, "decoding"))
        listener("skipped", {"skipped": store.skipped})
        predictor.preprocess.scale.warn_of_clipped()
        if not len(store):
            found = f"{self.name}: none of its {plural(len(indices), 'image')} can be decoded"
            raise DataError(f"{found}; check them with `vitreous inspect`")
        if predictor.thresholds is None:
            return store, self.numbers[store.labels]
        labels = torch.zeros(len(store), len(predictor.classes))
        return store, labels.index_copy_(1, self.numbers, store.labels.float())


def labeled_images(
    run: Path,
    predictor: Predictor,
    data: str | Source | None = None,
    *,
    root: str | None = None,
    split: str | None = None,
    listener: Listener = ignore,
) -> LabeledImages:
    """Find the images that a run held out, or those of other data.

    `data` is a folder, table or named set: its test split if it has one, else all its images. None, or the data set
    that the run was given from Python, selects the images of the run: those of `split`, or for None the test images, or
    the validation images if there are no test images. `root` is the folder of the images of a table or an export.

    Raises:
        NotARunError: `data` is None, and the model file is not in a run folder.
        DataNotFoundError: The data of the run is not where it was.
        DataError: The data has changed since the run, has classes that the model does not know, or has no such images.
    """
    own = _of_run(run, predictor, listener, data, split) if data is None or isinstance(data, Source) else None
    if own is not None:
        surveyed, found = own
        name = f"{surveyed.facts.title}, {'validation' if found == 'val' else found} split"
        source, indices = surveyed.source, surveyed.indices[found]
        numbers = _numbers(source, predictor)
        return LabeledImages(name, source, indices, numbers, are_own=True, fitted_temperature=found == "val")
    task: Task = "single" if predictor.thresholds is None else "multilabel"
    source = data if isinstance(data, Source) else open_source(str(data), root, task)
    check_task(source, task)
    is_test = source.splits == "test"
    indices = np.flatnonzero(is_test) if is_test.any() else np.arange(len(source))
    name = f"{source.title}, test split" if is_test.any() else f"all of {source.title}"
    return LabeledImages(name, source, indices, _numbers(source, predictor), are_own=False)


def _of_run(
    run: Path, predictor: Predictor, listener: Listener, source: Source | None, split: str | None
) -> tuple[Survey, str] | None:
    """Return the run's own data and the split; None if `source` is not the data of the run."""
    shown = hub_names.shown(run)
    folder, way_out = RunFolder(run), f"give other data: `vitreous evaluate {quote(shown)} DATA`"
    if not folder.config.is_file():
        if source is not None:
            return None
        raise NotARunError(f"run={shown}: is a model file, which does not record its test images; {way_out}")
    surveyed = survey_of_run(folder, read_config(folder.config).data, listener, source, predictor.classes)
    before, now = predictor.metadata.get("data_fingerprint"), surveyed.facts.fingerprint
    if before != now:
        if source is not None:
            return None
        raise DataError(
            f"{surveyed.facts.name}: has changed since the run (fingerprint {now}, was {before}), so the test split "
            f"may contain images that the model was trained on; {way_out}"
        )
    found = split or scored_split(name for name, members in surveyed.indices.items() if len(members))
    if found is None or not len(surveyed.indices.get(found, ())):
        raise DataError(f"{surveyed.facts.name}: the run has no {split or 'test or validation'} images; {way_out}")
    return surveyed, found


def _numbers(source: Source, predictor: Predictor) -> Labels:
    """Return the model's class number for each class of the source."""
    numbers = {name: number for number, name in enumerate(predictor.classes)}
    for name in source.classes:
        if name not in numbers:
            raise DataError(f"{source.name}: class {name} is unknown to the model; {nearest(name, predictor.classes)}")
    return torch.tensor([numbers[name] for name in source.classes])
