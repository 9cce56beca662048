"""Run or model file, optionally other data -> Faithfulness of each method for this model."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import torch

from vitreous.data.sources import Source
from vitreous.errors import ConfigError
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.check.compare import compare
from vitreous.use.explain.check.cost import MOST_IMAGES, affordable
from vitreous.use.explain.check.faithfulness import Faithfulness
from vitreous.use.explain.methods import METHODS, method_named
from vitreous.use.explain.sample import Sample
from vitreous.use.predict.predictor import Predictor

FEWEST_IMAGES = 10
"""Intervals over fewer images mean little."""
MOST_PASSES = 120.0
"""Methods that take more forward passes per image are left out unless they are asked for."""


def check_explanations(
    run: Path,
    data: str | Source | None = None,
    *,
    methods: Sequence[str] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> Faithfulness:
    """Compare how faithful methods are for a model.

    The arguments are those of `Run.check_explanations`. Without `methods`, those that take more than `MOST_PASSES`
    forward passes per image are left out.

    Raises:
        UnknownNameError: There is no such method.
        ConfigError: `num_images` is too small, or `methods` is empty.
        NotARunError: There is no model at `run`, or no run folder although `data` is None.
        DataError: There are too few images, or as `labeled_images`.
    """
    if num_images is not None and num_images < FEWEST_IMAGES:
        raise ConfigError(f"images={num_images}: too few to compare methods; use {FEWEST_IMAGES} or more")
    if methods is not None and not methods:
        raise ConfigError("methods=[]: names no method; leave it out to compare all")
    chosen = dict(METHODS) if methods is None else {name: method_named(name) for name in methods}
    run = expanded(run)
    predictor = Predictor.load(run, device)
    images = labeled_images(run, predictor, data, listener=listener)
    limit = inf if methods else MOST_PASSES
    num_patches, notes = predictor.model.config.num_patches, []
    for name in [name for name, method in chosen.items() if method.cost(num_patches) > limit]:
        notes.append(
            f"{chosen.pop(name).label} is left out, because it takes more than {MOST_PASSES:.0f} forward passes per "
            f"image; `--method {name}` or `--method all` includes it"
        )
    count, coarseness = affordable(predictor.model, chosen.values(), len(images.indices), num_images)
    sample = Sample.draw(images, predictor, count, seed=seed, fewest=FEWEST_IMAGES, listener=listener)
    most = min(sample.total, MOST_IMAGES)
    if num_images is None and len(sample) < most:
        notes.append(
            f"{len(sample)} of {sample.total:,} images are used, so that the check takes minutes; `--images {most}` "
            "gives narrower intervals"
        )
    if coarseness:
        notes.append("the curves have fewer steps than those of small models, so that the check takes less time")
    found = compare(sample, chosen, coarseness=coarseness, seed=seed, listener=listener)
    return replace(found, notes=[*notes, *found.notes])
