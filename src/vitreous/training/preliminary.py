"""Trained state, scores -> the first and the best model of a run, which can be used before it ends."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.loader import TrainLoader
from vitreous.model.build import build_model
from vitreous.model.change.lora import merge_lora
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import is_native, load_model, read_metadata, save_model
from vitreous.recipe.run_config import RunConfig
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import Prepared
from vitreous.training.machine.device import precision_of
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.machine.parallel import full_tensor
from vitreous.training.step.features import FixedOutputs, feature_batch
from vitreous.training.step.freeze import make_trainable
from vitreous.training.step.state import TrainState
from vitreous.training.step.views import View, choose_view, compare_views, ending_at, own_view, views_of
from vitreous.training.weights.fitted_head import LEAST_PER_CLASS, MOST_IMAGES, FittedHead, fit_head
from vitreous.version import __version__

CLEARLY = 1.1
"""Ratio of two validation losses that another precision does not explain."""


@dataclass(frozen=True)
class FittedHeads:
    """Heads that were fitted to features of pretrained weights.

    Attributes:
        view: Where the best features are.
        first: The head for these.
        own: The head of the whole model, from which training starts; None if there is no training.
    """

    view: View
    first: FittedHead
    own: FittedHead | None


def fit_heads(
    model: VisionTransformer,
    config: RunConfig,
    loader: TrainLoader,
    group: Group,
    families: NDArray[np.int64],
    fixed: FixedOutputs | None,
    seconds_left: Callable[[], float],
) -> FittedHeads:
    """Fit heads to the features of pretrained weights, from one pass; the first process does it for all.

    `families` are those of the training images, as in `Survey.families`. `fixed` are the outputs of the layers that the
    run does not change, if they are needed anyway. If little time is left, the heads are fitted to fewer images.

    Source: Kumar et al. 2022, LP-FT (2202.10054): starting from a good head, fine-tuning changes the features less.
    """
    precision = precision_of(config.train)
    own, num_classes, is_trained = own_view(model), config.data.num_classes, config.train.epochs > 0

    def is_late(num_seen: int) -> bool:
        return num_seen >= LEAST_PER_CLASS * num_classes and seconds_left() <= 0

    def fit_them() -> FittedHeads:
        images = loader.shuffled_once(feature_batch(config), MOST_IMAGES)
        positions = np.concatenate(list(images.positions()))
        together = families[positions]
        if fixed is None:
            is_sharded = group.size > 1 and config.train.parallel == "fsdp"
            views = [own] if is_sharded else views_of(model)
            features, labels = compare_views(
                model, images, precision, views, together, keeps_own=is_trained, is_late=is_late
            )
        else:
            features, labels = fixed.views(positions), images.labels
            chosen = choose_view(features, labels, together)
            features = {view: part for view, part in features.items() if view in (own, chosen)}
        together = together[: len(labels)]
        heads = {view: fit_head(part, labels, num_classes, together) for view, part in features.items()}
        fitted = {view: replace(head, left_out=None) for view, head in heads.items()}
        best = min(fitted, key=lambda view: (_loss_of(fitted[view]), view != own))
        return FittedHeads(best, fitted[best], fitted.get(own))

    return group.from_first(fit_them)


def _loss_of(head: FittedHead) -> float:
    return math.inf if head.cross_validated is None else head.cross_validated.loss


def first_model(state: TrainState, heads: FittedHeads) -> VisionTransformer:
    """Return the model that a run has before its first step."""
    if heads.view == own_view(state.ema.model):
        return state.ema.model
    model = ending_at(merge_lora(state.ema.model), heads.view)
    heads.first.copy_into(model.head)
    return model


def keep_first_model(
    state: TrainState,
    heads: FittedHeads,
    model: VisionTransformer,
    found: Score | None,
    prepared: Prepared,
    folder: RunFolder,
    group: Group,
) -> dict[str, Any]:
    """Save the first model. Return what is recorded of it.

    `found` is its score on the validation images; None without such images.
    """
    if found is not None:
        state.best_loss = found.comparable_loss
    head = heads.first
    if heads.view == own_view(state.ema.model):
        save_preliminary(folder.first, state, "average", found, prepared, group)
    else:
        group.from_first(lambda: save_model(folder.first, model, _preliminary(state, "average", found, prepared)))
    return {
        "method": head.method,
        "depth": heads.view.depth,
        "pool": heads.view.pool,
        "val": None if found is None else found.as_dict(),
        "cross_validated": None if head.cross_validated is None else head.cross_validated.as_dict(),
        "neighbors_accuracy": head.neighbors_accuracy,
    }


def keep_best(
    state: TrainState, scores: Mapping[str, Score], prepared: Prepared, folder: RunFolder, group: Group = SINGLE
) -> None:
    """Save the model if its calibrated validation loss is the lowest so far; note loss and progress in the state.

    `scores` are those of the weights, `trained`, and of their moving average, `average`.

    Raises:
        SaveError: The run folder cannot be written.
    """
    better = min(scores, key=lambda name: scores[name].comparable_loss)
    if scores[better].comparable_loss < state.best_loss:
        state.best_loss, state.best_progress = scores[better].comparable_loss, state.progress
        save_preliminary(folder.best, state, better, scores[better], prepared, group)


def save_preliminary(
    file: Path, state: TrainState, weights: str, found: Score | None, prepared: Prepared, group: Group
) -> None:
    """Save a model that can be used before the run ends; its probabilities are not calibrated yet.

    `weights` says whether they are `trained` or their `average`; `found` is None without validation images.
    """
    source = state.ema.model if weights == "average" else state.model
    tensors = {name: full_tensor(tensor.detach()).cpu() for name, tensor in source.state_dict().items()}

    def write() -> None:
        model = build_model(prepared.config.model)
        make_trainable(model, prepared.config.train)
        model.load_state_dict(tensors)
        save_model(file, merge_lora(model), _preliminary(state, weights, found, prepared))

    group.from_first(write)


def _preliminary(state: TrainState, weights: str, found: Score | None, prepared: Prepared) -> dict[str, Any]:
    """Return the metadata of a model of a run that has not ended."""
    metadata = describe_model(state, prepared) | {
        "weights": weights, "temperature": 1.0, "metrics": {} if found is None else {"val": found.as_dict()},
        "is_preliminary": True,
    }  # fmt: skip
    if prepared.survey.facts.task == "multilabel":
        metadata |= {"task": "multilabel", "thresholds": [0.5] * len(metadata["classes"])}
    return metadata


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
    if stops_early and folder.best.is_file():
        found["best"] = load_model(folder.best).to(device)
    return found


def _val_loss(file: Path) -> float:
    val = read_metadata(file)["metrics"].get("val")
    return math.inf if val is None else float(val.get("calibrated_loss", val["loss"]))
