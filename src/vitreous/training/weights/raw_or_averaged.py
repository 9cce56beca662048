"""Plan, file with raw and averaged weights, training images -> the plan with those that give the better features.

An average over a short run can be worthless: with a decay of 0.9999, most of it is still the random start.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.data.decoding.depth import FULL_RANGE
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import LabelArray
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store, measure_mean_std
from vitreous.data.survey.facts import Survey
from vitreous.data.survey.folds import Folds, family_folds
from vitreous.data.workers import Progress
from vitreous.errors import VitreousError
from vitreous.model.build import build_model
from vitreous.model.cost.count import count_flops
from vitreous.recipe.plan import Choice, Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.training.machine.device import precision_of, resolve_device
from vitreous.training.step.features import FEATURE_BATCH, compute_features
from vitreous.training.weights.pretrained import Pretrained, load_into, open_pretrained
from vitreous.wording import listed, plural, printable, printable_error

MOST_IMAGES, LEAST_IMAGES = 1000, 100
"""At most this many training images are scored; for large models fewer, down to the smaller number."""
MOST_FLOP = 5e12
"""Floating-point operations for each set of weights, about 20 s on two CPU cores."""
MOST_CLASSES, LEAST_OF_CLASS = 50, 3
"""Images of at most this many classes are scored, of those with at least this many training images."""
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""Penalties of ridge regression to choose from, for features with mean 0 and standard deviation 1."""
_NUM_FOLDS = 5
SIGNIFICANCE = 0.05
"""The averaged weights are kept unless a sign test on the images finds others better at this level."""
KEY = "train.pretrained_weights"


def with_better_weights(
    plan: Plan, checkpoint: Pretrained, surveyed: Survey, asked: Mapping[str, Any], progress: Progress
) -> Plan:
    """Score the raw and the averaged weights of a file, and let the plan start from the better ones.

    The score is the cross-validated accuracy of a linear classifier on frozen features of training images. Without a
    significant difference, the averaged weights are kept. A file with one set of weights is not scored. The checkpoint
    was read as `train.pretrained_weights=auto` does.
    """
    if not checkpoint.parts:
        return plan
    loaded = _load_images(plan.config, surveyed, progress)
    if loaded is None:
        few = "the training images are too few to compare its raw and averaged weights"
        return replace(plan, notes=(f"{checkpoint.source}: {few}", *plan.notes))
    right, unread, notes = dict[str, NDArray[np.float64]](), list[str](), dict[str, tuple[str, ...]]()
    for name in checkpoint.parts:
        try:
            found = open_pretrained(checkpoint.source, {**asked, "train.pretrained_weights": name})
            right[name] = _share_right(plan.config, found, *loaded, surveyed.facts.classes)
            notes[name] = found.notes
        except VitreousError as error:
            unread.append(f"{checkpoint.source}: {printable(name)} is not compared ({printable_error(error)})")
    if len(right) < 2:
        return replace(plan, notes=(*unread, *plan.notes))
    averaged = checkpoint.parts[0]
    better = [name for name in right if _is_better(right[name], right[averaged])]
    best = max(better or [averaged], key=lambda name: float(right[name].mean()))
    shares = [f"{right[name].mean():.1%} right with {printable(name)}" for name in sorted(right)]
    of_what = plural(len(loaded[0].labels), "training image")
    reason = f"a linear classifier on the features gets {listed(shares)} ({of_what}, cross-validated)"
    if not better and not any(_is_better(right[averaged], right[name]) for name in right):
        reason += "; the difference may be chance, so the averaged weights are kept"
    note = f"reads {printable(best)}: {reason}; weights=NAME chooses"
    outdated = {*checkpoint.notes} - {*notes[best]}
    others = (choice for choice in plan.choices if choice.key != KEY)
    return replace(
        plan,
        config=replace(plan.config, train=replace(plan.config.train, pretrained_weights=best)),
        choices=(*others, Choice(KEY, best, reason)),
        notes=(note, *unread, *(note for note in plan.notes if note not in outdated)),
    )


def _load_images(config: RunConfig, surveyed: Survey, progress: Progress) -> tuple[EvalLoader, Folds] | None:
    """Decode some training images as the run will see them; None if fewer than two classes have enough of them.

    The folds for the cross-validation are positions of these images.
    """
    data, train = config.data, surveyed.indices["train"]
    num = int(np.clip(MOST_FLOP / count_flops(config.model), LEAST_IMAGES, MOST_IMAGES))
    chosen = train[_draw(surveyed.source.labels[train], num)]
    unnormalized = Preprocess(data.img_size, data.in_chans, data.fit, value_range=data.value_range or FULL_RANGE)
    store = load_store(surveyed.source, chosen, unnormalized, cache=None, progress=progress)
    folds = family_folds(store.labels.numpy(), surveyed.families(store.source_indices), _NUM_FOLDS)
    if len(store) < 2 * LEAST_OF_CLASS or not folds:
        return None
    mean, std = (data.mean, data.std) if data.mean else measure_mean_std(store)
    preprocess = replace(unnormalized, mean=mean, std=std)
    return EvalLoader(store.to(resolve_device(config.train.device)), preprocess, FEATURE_BATCH), folds


def _draw(labels: LabelArray, num: int) -> NDArray[np.int64]:
    """Draw about `num` positions; of each class the same number, unless images have several labels."""
    random = np.random.default_rng(0)
    order = random.permutation(len(labels))
    if labels.ndim == 2:
        return np.sort(order[:num])
    classes = random.permutation(np.flatnonzero(np.bincount(labels) >= LEAST_OF_CLASS))[:MOST_CLASSES]
    if len(classes) < 2:
        return order[:0]
    each = max(LEAST_OF_CLASS, num // len(classes))
    return np.sort(np.concatenate([order[labels[order] == number][:each] for number in classes]))


def _share_right(
    config: RunConfig, checkpoint: Pretrained, images: EvalLoader, folds: Folds, classes: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return for each image the share of its labels that are right; a single label gives 0 or 1."""
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(0)
    model = build_model(config.model, device=resolve_device(config.train.device), generator=generator)
    load_into(model, checkpoint, classes)
    features = compute_features(model, images, precision_of(config.train))
    if not features.isfinite().all():
        return np.zeros(len(features))
    labels = images.labels.cpu().numpy()
    classifier = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES))
    found = cross_val_predict(classifier, features.cpu().numpy(), labels, cv=folds)
    return (found == labels).reshape(len(labels), -1).mean(axis=1)


def _is_better(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> bool:
    """Return True if a sign test over the images finds the first shares larger than the second."""
    from scipy.stats import binomtest

    num_wins, num_losses = int((ours > theirs).sum()), int((ours < theirs).sum())
    test = binomtest(num_wins, max(1, num_wins + num_losses), alternative="greater")
    return bool(test.pvalue < SIGNIFICANCE)
