"""Made-up outputs of a model whose accuracy and calibration are known."""

import numpy as np
import torch

from vitreous.use.evaluate.outputs import Outputs

CLASSES = ("a;b", "<b>&", "cat", "dog")


def made_outputs(
    num_images: int, seed: int, *, spread: float = 2.0, classes: tuple[str, ...] = CLASSES, chose_weights: bool = False
) -> Outputs:
    """Return logits of a calibrated model, and classes drawn from its probabilities; a larger spread is surer."""
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy((spread * generator.normal(size=(num_images, len(classes)))).astype(np.float32))
    fair = logits.double().softmax(dim=1).numpy()
    true = (fair.cumsum(axis=1) < generator.random((num_images, 1))).sum(axis=1).clip(max=len(classes) - 1)
    return Outputs("made images", classes, logits, torch.from_numpy(true), chose_weights=chose_weights)
