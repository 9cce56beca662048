"""Cases of `classifier.py`: rows that are no images; and of `training/folder/loggers.py`: a tracker that refuses."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
from tests.advice.walk import Refusals, case

from vitreous.classifier import VitreousClassifier
from vitreous.recipe import keys
from vitreous.training.folder import loggers


@case
def flat_rows_of_unknown_shape(folder: Path) -> Refusals:
    def shaped(num_features: int, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return VitreousClassifier(image_shape=shape)._shaped(np.zeros((2, num_features))).shape

    yield lambda: shaped(192, None), "give (8, 8, 3), or (3, 8, 8) if channels come first"
    assert (shaped(192, (8, 8, 3)), shaped(192, (3, 8, 8))) == ((2, 8, 8, 3), (2, 3, 8, 8))
    yield lambda: shaped(12, (4, 4)), "give (height, width) or (height, width, channels) of the images"
    assert (shaped(12, (3, 4)), shaped(12, (2, 2, 3))) == ((2, 3, 4), (2, 2, 2, 3))


@case
def tracker_that_does_not_start(folder: Path) -> Refusals:
    shape = {"data.img_size": (8, 8), "data.in_chans": 1, "data.num_classes": 3, "data.source": "digits"}
    model = {"model.patch_size": 4, "model.embed_dim": 8, "model.depth": 1, "model.num_heads": 2}

    def start(logger: str) -> str:
        config = keys.assemble("by-hand", shape | model | {"train.logger": logger})
        with loggers.tracked(lambda kind, fields: None, folder, config):
            return logger

    with patch.dict(loggers.TRACKERS, {"wandb": lambda *given: 1 / 0}):
        yield lambda: start("wandb"), "check its settings, or use train.logger=none"
        assert start("none") == "none"
