"""A run or model file, perhaps other data -> Evaluation."""

from pathlib import Path
from shlex import quote

import numpy as np
import torch

from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import Source, open_source
from vitreous.data.survey.facts import Survey
from vitreous.errors import DataError, NotARunError, nearest
from vitreous.recipe.files import read_config
from vitreous.training.fit.evaluate import compute_logits, score
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import survey_again
from vitreous.use.evaluate.evaluation import Evaluation, count_classes
from vitreous.use.predict.predictor import Predictor

BATCH_SIZE = 256


def evaluate(run: Path, data: str | Source | None = None, *, root: str | None = None,
             device: torch.device | str = "cpu", listener: Listener = ignore) -> Evaluation:  # fmt: skip
    """Score a trained model.

    Args:
        run: Run folder, or with `data` also a model file alone.
        data: A folder, table or named set: its test split where it brings one, else all of it. None, or what the run
            was given from Python, takes the images that it held out for its test (or without those, for validation).
        root: The folder that a table's paths are relative to.
        device: Where to compute.
        listener: Told how far reading is.

    Raises:
        NotARunError: There is no model, or without `data` no run.
        DataError: The data changed since the run, or has classes that the model does not know.
    """
    predictor = Predictor.load(run, device)
    own = _held_out(run, predictor, listener, data) if data is None or isinstance(data, Source) else None
    if own is not None:
        surveyed, split = own
        source, indices, name = surveyed.source, surveyed.indices[split], f"{surveyed.facts.name}, {split} split"
    else:
        source = data if isinstance(data, Source) else open_source(str(data), root)
        is_test = source.splits == "test"
        indices = np.flatnonzero(is_test) if is_test.any() else np.arange(len(source))
        name = f"{source.name}, test split" if is_test.any() else f"all of {source.name}{_trained_on(run, str(data))}"
    labels = _label_map(source, predictor)
    store = load_store(source, indices, predictor.preprocess, progress=lambda done, total: listener(
        "reading", {"what": "decoding", "done": done, "total": total}))  # fmt: skip
    listener("skipped", {"skipped": store.skipped})
    if not len(store):
        raise DataError(f"{name}: none of its {len(indices)} images decodes; check them with `vitreous inspect`")
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    logits, found = compute_logits(predictor.model, loader, "fp32")
    return count_classes(name, score(logits, labels[found]), labels[found], logits.argmax(dim=1), predictor.classes)


def _held_out(run: Path, predictor: Predictor, listener: Listener, source: Source | None) -> tuple[Survey, str] | None:
    """The run's own images that it did not train on; None where `source` is other data than the run's."""
    folder, way_out = RunFolder(run.expanduser()), f"name other data: `vitreous evaluate {quote(str(run))} DATA`"
    if source is not None and not folder.config.is_file():
        return None
    if not folder.config.is_file():
        raise NotARunError(f"run={run}: a model file alone knows no data; {way_out}")
    surveyed = survey_again(read_config(folder.config).data, listener, source)
    was, now = predictor.metadata.get("data_fingerprint"), surveyed.facts.fingerprint
    if source is not None and was != now:
        return None
    if was != now:
        raise DataError(
            f"{surveyed.facts.name}: changed since the run (fingerprint {now}, was {was}), so held-out images may have "
            f"been trained on; {way_out}"
        )
    split = next((name for name in ("test", "val") if len(surveyed.indices[name])), None)
    if split is None:
        raise DataError(f"{surveyed.facts.name}: the run held no images out; {way_out}")
    return surveyed, split


def _trained_on(run: Path, data: str) -> str:
    """A warning for the name of data that the run itself was trained on."""
    config = RunFolder(run.expanduser()).config
    if not config.is_file():
        return ""
    known = read_config(config).data.source
    same = data == known or Path(data).expanduser().resolve() == Path(known)
    return " (most of which it was trained on)" if same else ""


def _label_map(source: Source, predictor: Predictor) -> torch.Tensor:
    """The model's class number for each of the source's."""
    for name in source.classes:
        if name not in predictor.classes:
            raise DataError(f"{source.name}: class {name} is unknown to the model; {nearest(name, predictor.classes)}")
    return torch.tensor([predictor.classes.index(name) for name in source.classes])
