"""Images, places -> whether the pixels of a place, put into an image of another class, change its predicted class.

Relevance is not proof: models may collect relevance in an empty corner, by which no prediction changes, and with a stem
of convolutions it does not concentrate on a mark. Exchanging the pixels is an intervention, so it shows what the model
uses.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64

from vitreous.data.workers import Progress
from vitreous.seeding import derive
from vitreous.use.explain.sample import Sample, batches
from vitreous.use.predict.predictor import Predictor


def moved_predictions(
    sample: Sample,
    predictor: Predictor,
    predicted: Int64[np.ndarray, " images"],
    checked: Sequence[int],
    places: Sequence[Bool[np.ndarray, "rows columns"]],
    show: Progress,
) -> Bool[np.ndarray, "images places"]:
    """Put each place of each image into an image of another predicted class: does that image get the class, too?

    Only images of the classes to check are tried; the others count as no. Each image has one partner for all places,
    drawn at random. This takes a forward pass for each image and place.
    """
    draw = np.random.default_rng(derive(0, "partners"))
    partners, moved = np.zeros_like(predicted), np.zeros((len(predicted), len(places)), dtype=np.bool_)
    for number in checked:
        others = np.flatnonzero(predicted != number)
        partners[predicted == number] = draw.choice(others, len(predicted) - len(others))
    tried = np.flatnonzero(np.isin(predicted, checked))
    for some in batches(predictor.model, tried):
        given, taking = sample.pixels(some), sample.pixels(partners[some])
        for column, place in enumerate(places):
            height, width = (pixels // patches for pixels, patches in zip(given.shape[2:], place.shape, strict=True))
            here = torch.from_numpy(np.kron(place, np.ones((height, width), dtype=np.bool_))).to(given.device)
            logits = predictor.logits(torch.where(here, given, taking))
            moved[some, column] = logits.argmax(dim=1).numpy() == predicted[some]
        show(int(np.searchsorted(tried, some[-1])) + 1, len(tried))
    return moved
