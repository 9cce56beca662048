"""Tiny models -> predictors, whose preprocessing has the mean and deviation of no real images."""

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model.vit import VisionTransformer
from vitreous.use.predict.predictor import Predictor

MEAN, STD = (0.45, 0.5, 0.55), (0.3, 0.25, 0.2)


def predictor_for(model: VisionTransformer, thresholds: tuple[float, ...] | None = None) -> Predictor:
    """Combine a model with the preprocessing of its images."""
    config = model.config
    mean, std = MEAN[: config.in_chans], STD[: config.in_chans]
    preprocess = Preprocess(config.img_size, config.in_chans, "crop", mean, std, value_range=())
    classes = tuple(f"class {number}" for number in range(config.num_classes))
    return Predictor(model.eval(), preprocess, classes, temperature=1.7, metadata={}, thresholds=thresholds)
