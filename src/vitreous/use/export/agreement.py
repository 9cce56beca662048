"""A model, a changed copy of it, images -> how often both predict the same, and how far their probabilities differ."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from vitreous.data.pixels.store import load_store
from vitreous.data.sources import open_source
from vitreous.errors import DataError
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.run_config import RunConfig
from vitreous.tensors import Pixels
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.predict.predictor import BATCH_SIZE, Predictor
from vitreous.wording import plural

MOST_IMAGES = 500
_LEAST_REPEATED = 0.9
"""Share of the images that must get the class that the run stored; another precision changes only a few."""


@dataclass(frozen=True)
class Agreement:
    """How close the predictions of a changed model are to those of the original.

    Attributes:
        num_images: Number of images.
        num_same: Number of images for which both predict the same class, or the same labels.
        largest_difference: Largest difference of a calibrated probability.
    """

    num_images: int
    num_same: int
    largest_difference: float

    @property
    def sentence(self) -> str:
        """The result as a predicate, e.g. of `the rounded model`."""
        return (
            f"predicts the same as the original for {self.num_same:,} of {plural(self.num_images, 'held-out image')}; "
            f"probabilities differ by at most {self.largest_difference:.3f}"
        )


def measure_agreement(predictor: Predictor, changed: VisionTransformer, pixels: Pixels) -> Agreement:
    """Compare a model with a changed copy on images, at least one."""
    ours, theirs = (
        torch.cat([some.probabilities(some.logits(batch)).double() for batch in pixels.split(BATCH_SIZE)])
        for some in (predictor, replace(predictor, model=changed))
    )
    if predictor.thresholds is None:
        same = ours.argmax(dim=1) == theirs.argmax(dim=1)
    else:
        thresholds = torch.tensor(predictor.thresholds, dtype=torch.float64)
        same = ((ours >= thresholds) == (theirs >= thresholds)).all(dim=1)
    return Agreement(len(pixels), int(same.sum()), float((ours - theirs).abs().max()))


def held_out_pixels(predictor: Predictor, config: RunConfig, outputs: Outputs) -> Pixels:
    """Decode up to `MOST_IMAGES` held-out images of a run again.

    Args:
        predictor: The model of the run.
        config: Its configuration, which says where the images are.
        outputs: What the model gave for them.

    Raises:
        DataError: The images are no longer there, or are not those of the run.
    """
    source = open_source(config.data.source, config.data.root, config.data.task)
    chosen = np.unique(np.linspace(0, len(outputs) - 1, MOST_IMAGES).astype(np.int64))
    wanted = np.zeros(0, dtype=np.int64) if outputs.indices is None else outputs.indices[chosen]
    store = load_store(source, wanted[wanted < len(source)], predictor.preprocess)
    pixels = store.take(np.arange(len(store)))
    if len(pixels) == len(chosen):
        repeated = predictor.logits(pixels[:BATCH_SIZE]).argmax(dim=1).numpy() == outputs.predicted[chosen[:BATCH_SIZE]]
        if repeated.mean() >= _LEAST_REPEATED:
            return pixels
    raise DataError(f"data.source={source.name}: has changed since the run; restore it, or train again")
