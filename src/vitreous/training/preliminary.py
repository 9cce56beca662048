"""Trained state, scores -> the first and the best model of a run, which can be used before it ends."""

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.data.loader import TrainLoader
from vitreous.model.build import build_model
from vitreous.model.change.lora import merge_lora
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import is_native, load_model, read_metadata, save_model
from vitreous.recipe.pace import EVALUATION_SPEEDUP, FEATURE_SHARE, Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.tensor_file import open_tensor_file
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.records import Recorder
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.machine.parallel import full_tensor
from vitreous.training.step.features import FEATURE_BATCH, FixedOutputs, compute_features
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.state import TrainState
from vitreous.training.weights.fitted_head import LEAST_PER_CLASS, MOST_IMAGES, FittedHead, fit_head
from vitreous.version import __version__

CLEARLY = 1.1
"""Ratio of two validation losses that another precision does not explain."""


def fitted_head(
    model: VisionTransformer,
    config: RunConfig,
    loader: TrainLoader,
    group: Group,
    pace: Pace | None,
    fixed: FixedOutputs | None = None,
) -> FittedHead:
    """Return a head fitted to the features of pretrained weights; the first process fits it for all.

    `fixed` has the outputs of the layers that the run does not change, if they are needed anyway.

    With a budget, the features may take `FEATURE_SHARE` of it: then the head is fitted to fewer images.

    Source: Kumar et al. 2022, LP-FT (2202.10054): starting from a good head, fine-tuning changes the features less.
    """
    precision = resolve_precision(config.train.precision, resolve_device(config.train.device))
    most = MOST_IMAGES
    if config.train.budget_s and pace is not None:
        images_per_s = EVALUATION_SPEEDUP * config.data.batch_size / pace.mean_s()
        affordable = int(FEATURE_SHARE * config.train.budget_s * images_per_s)
        most = min(most, max(affordable, LEAST_PER_CLASS * config.data.num_classes))

    def fit_it() -> FittedHead:
        images = loader.each_once(FEATURE_BATCH, most)
        if fixed is None:
            features = compute_features(model, images, precision)
        else:
            features = fixed.features(np.concatenate(list(images.positions())))
        return replace(fit_head(features, images.labels, config.data.num_classes), left_out=None)

    return group.from_first(fit_it)


def keep_first_model(
    state: TrainState,
    head: FittedHead,
    found: Score | None,
    prepared: Prepared,
    folder: RunFolder,
    recorder: Recorder,
    group: Group,
    seconds: float,
) -> None:
    """Save the pretrained weights with the fitted head, `seconds` after the start of the run, and record its scores.

    `found` is its score on the validation images; None without such images.
    """
    if found is not None:
        state.best_loss = found.loss
    save_preliminary(folder.first, state, "average", found, prepared, group)
    fields = {
        "method": head.method,
        "seconds": round(seconds, 1),
        "val": None if found is None else found.as_dict(),
        "cross_validated": None if head.cross_validated is None else head.cross_validated.as_dict(),
        "neighbors_accuracy": head.neighbors_accuracy,
    }
    recorder.record("first_model", fields)


def keep_best(
    state: TrainState, scores: Mapping[str, Score], prepared: Prepared, folder: RunFolder, group: Group = SINGLE
) -> None:
    """Save the model if its validation loss is the lowest so far, and note loss and progress in the state.

    Args:
        state: The state that was evaluated.
        scores: Scores by `trained` (the weights) and `average` (their moving average).
        prepared: Data and configuration of the run.
        folder: The run folder. Raises SaveError if it cannot be written.
        group: The processes that train.
    """
    better = min(scores, key=lambda name: scores[name].loss)
    if scores[better].loss < state.best_loss:
        state.best_loss, state.best_progress = scores[better].loss, state.progress
        save_preliminary(folder.best, state, better, scores[better], prepared, group)


def save_preliminary(
    file: Path, state: TrainState, weights: str, found: Score | None, prepared: Prepared, group: Group = SINGLE
) -> None:
    """Save a model that can be used before the run ends; its probabilities are not calibrated yet.

    Args:
        file: File to write.
        state: State of the run.
        weights: `trained` or `average`.
        found: Score on the validation images; None without such images.
        prepared: Data and configuration of the run.
        group: The processes that train.
    """
    source = state.ema.model if weights == "average" else state.model
    tensors = {name: full_tensor(tensor.detach()).cpu() for name, tensor in source.state_dict().items()}
    metadata = describe_model(state, prepared) | {
        "weights": weights, "temperature": 1.0, "metrics": {} if found is None else {"val": found.as_dict()},
        "is_preliminary": True,
    }  # fmt: skip
    if prepared.survey.facts.task == "multilabel":
        metadata |= {"task": "multilabel", "thresholds": [0.5] * len(metadata["classes"])}

    def write() -> None:
        model = build_model(prepared.config.model)
        make_trainable(model, prepared.config.train)
        model.load_state_dict(tensors)
        save_model(file, merge_lora(model), metadata)

    group.from_first(write)


def describe_model(state: TrainState, prepared: Prepared) -> dict[str, Any]:
    """Return what is needed to use the weights, and where they come from."""
    facts = prepared.survey.facts
    return {
        "vitreous": __version__,
        "classes": list(facts.classes),
        "preprocess": prepared.preprocess.as_dict(),
        "flip": prepared.config.data.flip,
        "steps": state.step,
        "recipe": prepared.config.recipe,
        "seed": prepared.config.train.seed,
        "data": facts.name,
        "data_fingerprint": facts.fingerprint,
    }


def describe_best(folder: RunFolder) -> str:
    """Return a clause on the best model so far, for the message of an interrupted run."""
    file = folder.find_preliminary()
    if file is None or not is_native(file):
        return "there is no model yet"
    val = read_metadata(file)["metrics"].get("val")
    scored = "not validated" if val is None else f"validation accuracy {val['accuracy']:.1%}"
    return f"the best model so far ({scored}) can be used"


def candidates(
    state: TrainState, folder: RunFolder, least_loss: float, *, stops_early: bool
) -> dict[str, VisionTransformer]:
    """Return models that were saved before the end and may be better: `first`, and `best` if the run may stop early.

    `first` is left out if its validation loss was clearly larger than `least_loss`, that of the trained weights.

    Without early stopping, the speed of the machine decides at which steps a run is evaluated. Then the best model is
    no candidate, because the same seed must give the same weights.
    """
    device = next(state.ema.model.parameters()).device
    found = {}
    if folder.first.is_file() and _val_loss(folder.first) < CLEARLY * least_loss:
        found["first"] = load_model(folder.first).to(device)
    if not (stops_early and folder.best.is_file()):
        return found
    if is_native(folder.best):
        found["best"] = load_model(folder.best).to(device)
    else:  # the first versions saved nothing but the weights
        found["best"] = copy.deepcopy(state.ema.model)
        with (
            open_tensor_file(folder.best, way_out="delete it to use the last weights instead") as file,
            torch.no_grad(),
        ):
            found["best"].load_state_dict(file.read_all())
    return found


def _val_loss(file: Path) -> float:
    val = read_metadata(file)["metrics"].get("val")
    return math.inf if val is None else float(val["loss"])
