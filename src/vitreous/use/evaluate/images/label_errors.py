"""Finished run or folds -> LabelDoubts: labels that contradict predictions of models that were not trained on them."""

import math
from pathlib import Path, PurePath

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.data.doctor.mislabeled import thumbnail_features
from vitreous.data.survey.facts import Survey
from vitreous.errors import ConfigError, RunError
from vitreous.seeding import derive, permutation
from vitreous.training.folder.outputs import MOST_VALUES
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.moved import reopen_data
from vitreous.training.request import TrainRequest
from vitreous.training.series import members, read_series
from vitreous.training.step.views import ending_at, views_of
from vitreous.training.weights.fitted_head import MOST_IMAGES, fit_head
from vitreous.use.embed.embedder import Embedder
from vitreous.use.evaluate.outputs import Outputs, outputs_of_run, reported
from vitreous.use.predict.predictor import find_model
from vitreous.use.predict.table import read_held_out


def predict_unseen(
    path: Path, listener: Listener = ignore, device: torch.device | str = "cpu"
) -> tuple[Survey, NDArray[np.int64], NDArray[np.float64]]:
    """Predict the images of a run or a series, each by models that were not trained on it.

    With folds, each image is predicted by the run that tested it, and probabilities of several seeds are averaged. A
    single run has stored its predictions of held-out images. Its training images are predicted by cross-validated heads
    on its features, since it may have memorized their labels. If it was trained from scratch, labels have shaped its
    late features, too. Then the features after half of the blocks are taken, and the logits of their heads are added to
    those of heads on thumbnails.

    Raises:
        RunError: A run is not finished, or its data has changed.
        ConfigError: There are several labels per image, or too many probabilities.

    Returns:
        The data, the numbers of the predicted images in its source, `[n]`, and their probabilities, `[n, classes]`.
    """
    series = next((s for s in (RunFolder(path).folds, SeriesFolder(path)) if s.series.is_file()), None)
    planned = [] if series is None else members(read_series(series))
    has_folds = any(member.fold is not None for member in planned)
    runs = [RunFolder(series.path / member.name) for member in planned] if series else [RunFolder(path)]
    runs = runs if has_folds else runs[:1]
    models = [find_model(run.path) for run in runs]
    config, surveyed = reopen_data(runs[0], TrainRequest(resume=runs[0].path), listener)
    source, num_classes = surveyed.source, len(surveyed.facts.classes)
    if source.is_multilabel or len(source) * num_classes > MOST_VALUES:
        reason = "several labels per image" if source.is_multilabel else "too many images times classes"
        raise ConfigError(f"run={path}: its labels are not judged ({reason}); leave out --labels, --html and --fix")
    sums, counts = np.zeros((len(source), num_classes)), np.zeros(len(source), dtype=np.int64)
    for run in runs:
        for split, outputs in stored_outputs(run, surveyed).items():
            if split == "test" or not has_folds:
                sums[outputs.indices] += outputs.probabilities
                counts[outputs.indices] += 1
    if not has_folds:
        rest = np.setdiff1d(np.concatenate(list(surveyed.indices.values())), np.flatnonzero(counts))
        rest = rest[permutation(derive(0, "heads"), len(rest))]
        embedder, is_from_scratch = Embedder.load(models[0], device=device), config.train.pretrained is None
        if is_from_scratch:
            embedder = _without_late_blocks(embedder)
        embedded = embedder.embed(map(source.encoded, rest.tolist()), len(rest), listener)
        rest, kinds = rest[embedded.positions], [embedded.vectors]
        if is_from_scratch:
            kinds.append(thumbnail_features(*embedded.thumbnails))
        few, families = rest[:MOST_IMAGES], surveyed.families(rest)[:MOST_IMAGES]
        labels, logits = torch.from_numpy(source.labels[few]), list[torch.Tensor]()
        for features in map(torch.from_numpy, kinds):
            logits.append(fit_head(features[:MOST_IMAGES], labels, num_classes, families).logits(features).double())
        sums[rest], counts[rest] = torch.stack(logits).sum(dim=0).softmax(dim=1).numpy(), 1
    seen = np.flatnonzero(counts)
    return surveyed, seen, sums[seen] / counts[seen, None]


def _without_late_blocks(embedder: Embedder) -> Embedder:
    """Return an embedder that takes the mean over the patches after half of the blocks, if the model can end there."""
    model = embedder.model
    _, *others = views_of(model, [math.ceil(model.config.depth / 2)])
    return Embedder(ending_at(model, others[0]), embedder.preprocess, embedder.notes) if others else embedder


def stored_outputs(run: RunFolder, surveyed: Survey) -> dict[str, Outputs]:
    """Return the outputs that a run has stored. Raises RunError if images no longer have the numbers that they had."""
    outputs, known = outputs_of_run(run), np.concatenate(list(surveyed.indices.values()))
    held_out, numbers = reported(outputs), [x.indices for x in outputs.values() if x.indices is not None]
    if held_out is not None and held_out.indices is not None:
        before = [PurePath(row.path).name for row in read_held_out(run.predictions)]
        are_known = all(np.isin(indices, known).all() for indices in numbers)
        if not are_known or before != [PurePath(surveyed.source.describe(i)).name for i in held_out.indices.tolist()]:
            way_out = "rename them back, or train again"
            raise RunError(f"run={run.path}: images were renamed since, so their order may be another; {way_out}")
    return outputs
