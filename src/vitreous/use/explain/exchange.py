"""Images, a place, a class -> how often the prediction follows the place when it is exchanged between images.

Relevance is not proof: models may collect relevance in an empty corner, by which no prediction changes. Exchanging the
pixels is an intervention, so it shows what the model uses.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Int64

from vitreous.seeding import derive
from vitreous.use.explain.sample import Positions, Sample, batches
from vitreous.use.explain.shortcuts import Shortcut, Shortcuts, places_near_border
from vitreous.use.predict.predictor import Predictor

MIN_FOLLOWED = 0.2
"""Smallest share of exchanges that the prediction must follow.

It was 0.38 for a planted mark that the model uses, and 0 for relevance in corners without a mark: see
`benchmarks/shortcuts.py`, seed 0.
"""
MAX_PAIRS = 64


def confirmed(
    shortcuts: Shortcuts, sample: Sample, predictor: Predictor, predicted: Int64[np.ndarray, " images"]
) -> Shortcuts:
    """Exchange each place that was found with images of other classes; keep those that the prediction follows."""
    places = places_near_border(*predictor.model.config.grid_size)
    kept: list[Shortcut] = []
    dismissed: list[Shortcut] = []
    for found in shortcuts.found:
        number = predictor.classes.index(found.class_name)
        images = np.array(found.images[:MAX_PAIRS])
        share = share_followed(sample, predictor, predicted, places[found.place], number, images)
        (kept if share >= MIN_FOLLOWED else dismissed).append(replace(found, followed=share))
    return replace(shortcuts, found=tuple(kept), dismissed=tuple(dismissed))


def share_followed(
    sample: Sample,
    predictor: Predictor,
    predicted: Int64[np.ndarray, " images"],
    place: Bool[np.ndarray, "rows columns"],
    number: int,
    images: Positions,
) -> float:
    """Exchange the pixels of a place between images of a class and images of others; count the predictions that follow.

    Returns:
        The share of all these images, between 0 and 1, that lose the class together with the place, or get it with it.
    """
    others = np.flatnonzero(predicted != number)
    partners = np.random.default_rng(derive(0, "partners")).choice(others, len(images))
    count = 0
    for some in batches(predictor.model, np.arange(len(images))):
        of_class, of_others = sample.pixels(images[some]), sample.pixels(partners[some])
        height, width = (pixels // patches for pixels, patches in zip(of_class.shape[2:], place.shape, strict=True))
        here = torch.from_numpy(np.kron(place, np.ones((height, width), dtype=bool))).to(of_class.device)
        without, given = torch.where(here, of_others, of_class), torch.where(here, of_class, of_others)
        count += int((predictor.logits(without).argmax(dim=1) != number).sum())
        count += int((predictor.logits(given).argmax(dim=1) == number).sum())
    return count / (2 * len(images))
