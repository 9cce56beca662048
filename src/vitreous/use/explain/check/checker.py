"""Run or model file, optionally other data -> Faithfulness of each method for this model."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import torch

from vitreous.data.sources import Source
from vitreous.errors import ConfigError
from vitreous.model.cost import count
from vitreous.model.vit import VisionTransformer
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.use.explain.check.compare import compare
from vitreous.use.explain.check.cost import count_flops
from vitreous.use.explain.check.faithfulness import Faithfulness
from vitreous.use.explain.check.sample import check_count, held_out, load_sample
from vitreous.use.explain.methods import METHODS, Method, method_named
from vitreous.use.predict.predictor import Predictor

MOST_IMAGES, FEWEST_CHOSEN = 200, 20
MOST_PASSES = 120.0
"""Methods that take more forward passes per image are left out unless they are asked for."""
TEST_PASSES = 130
"""Approximate cost of the protocols for one map, in forward passes."""
_BUDGET_FLOPS = 1e14
"""Without a number of images, this many operations are spent: minutes on two cores."""


def check_explanations(
    run: Path,
    data: str | Source | None = None,
    *,
    methods: Sequence[str] | None = None,
    num_images: int | None = None,
    seed: int = 0,
    root: str | None = None,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> Faithfulness:
    """Compare how faithful methods are for a model.

    Args:
        run: Run folder; a model file is enough if `data` is given.
        data: A folder, table or named set: its test split if it has one, else all its images. None selects the run's
            own held-out images.
        methods: Names of `METHODS`; None for all that take at most 120 forward passes per image.
        num_images: Number of images; None for 20 to 200, fewer for larger models.
        seed: Chooses the images, and decides random orders and intervals.
        root: The folder that a table's paths are relative to.
        device: Where to compute.
        listener: Receives the progress.

    Raises:
        UnknownNameError: There is no such method.
        ConfigError: `num_images` is too small, or `methods` is empty.
        NotARunError: There is no model at `run`, or no run folder although `data` is None.
        DataError: There are too few images, or as `labeled_images`.
    """
    check_count(num_images)
    if methods is not None and not methods:
        raise ConfigError("methods=[]: names no method; leave it out to compare all")
    chosen = dict(METHODS) if methods is None else {name: method_named(name) for name in methods}
    run = expanded(run)
    predictor = Predictor.load(run, device)
    found = held_out(run, predictor, data, root, listener)
    limit = inf if methods else MOST_PASSES
    passes = {name: passes_of(predictor.model, method, limit) for name, method in chosen.items()}
    notes = []
    for name in [name for name, cost in passes.items() if cost > limit]:
        notes.append(
            f"{chosen.pop(name).label} is left out, because it takes more than {MOST_PASSES:.0f} forward passes per "
            f"image; `--method {name}` or `--method all` includes it"
        )
    flops = count.count_flops(predictor.model.config)
    per_image = flops * sum(passes[name] + TEST_PASSES for name in chosen) + 2 * flops * TEST_PASSES
    affordable = int(min(MOST_IMAGES, max(FEWEST_CHOSEN, _BUDGET_FLOPS // per_image)))
    sample = load_sample(found, predictor, num_images or affordable, seed, listener)
    if num_images is None and len(sample) < min(sample.num_available, MOST_IMAGES):
        notes.append(
            f"{len(sample)} of {sample.num_available:,} images are used, so that the check takes minutes; "
            f"`--images {min(sample.num_available, MOST_IMAGES)}` gives narrower intervals"
        )
    return compare(predictor, sample, chosen, passes=passes, seed=seed, notes=notes, listener=listener)


def passes_of(model: VisionTransformer, method: Method, limit: float = inf) -> float:
    """Return the cost of the map of an image in forward passes; infinity if it is more than `limit`."""
    config = model.config
    image = torch.rand(1, config.in_chans, *config.img_size, generator=torch.Generator().manual_seed(0))
    image = image.to(next(model.parameters()).device)
    flops = count.count_flops(config)
    return count_flops(lambda: method(model, image), limit * flops) / flops
