"""Run -> Outputs: logits, true classes, calibrated probabilities of the images that it held out; Outputs -> scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.model.weights import read_metadata
from vitreous.tensors import Logits, Targets
from vitreous.training.fit.evaluate import cross_fitted_temperatures, score
from vitreous.training.folder.outputs import read_outputs
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.evaluation import Evaluation, count_classes, scored_split
from vitreous.use.evaluate.multilabel import LabelEvaluation, score_each_label


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model gives for labeled images.

    Attributes:
        name: Name of the images, e.g. `the test images of photos`.
        classes: Class names, in the order of the logits.
        logits: Not divided by the temperature, float32, `[n, classes]`.
        true: True classes, `[n]`; with several labels per image, which ones it has, `[n, classes]`.
        temperature: Number by which logits are divided.
        fitted_temperature: The temperature was fitted to these images; then their probabilities are cross-fitted.
        chose_weights: These images have chosen the weights, so accuracy and confidence on them are slightly optimistic.
        thresholds: Probability from which each label is predicted; None if each image has one class.
        indices: Numbers of the images in the source, `[n]`; None if the images are not those of a source.
    """

    name: str
    classes: tuple[str, ...]
    logits: Logits
    true: Targets
    temperature: float = 1.0
    fitted_temperature: bool = False
    chose_weights: bool = False
    thresholds: tuple[float, ...] | None = None
    indices: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """Calibrated probabilities, `[n, classes]`; rows sum to 1 if each image has one class."""
        if self.thresholds is not None:  # in float32, like the probabilities that the thresholds were chosen for
            return (self.logits / self.temperature).sigmoid().double().numpy()
        temperatures = torch.tensor(self.temperature)
        if self.fitted_temperature and self.temperature != 1:
            temperatures = cross_fitted_temperatures(self.logits, self.true)
        return (self.logits.double() / temperatures).softmax(dim=1).numpy()

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """Most probable class of each image, `[n]`."""
        return self.logits.argmax(dim=1).numpy()

    @property
    def numbers(self) -> NDArray[np.int64]:
        """True class of each image, `[n]`; only if each has one."""
        return self.true.numpy()


def evaluate_outputs(
    outputs: Outputs, costs: Mapping[tuple[int, int], float] | None = None
) -> Evaluation | LabelEvaluation:
    """Score the outputs of a model as if all images were new to it; costs come from `read_costs`."""
    total = score(outputs.logits, outputs.true)
    if outputs.thresholds is not None:
        probabilities, truth = outputs.probabilities.astype(np.float32), outputs.true.numpy() > 0.5
        limits = outputs.thresholds
        return score_each_label(outputs.name, probabilities, truth, total.loss, outputs.classes, limits, costs)
    found = count_classes(outputs.name, total, outputs.numbers, outputs.predicted, outputs.classes)
    return replace(found, probabilities=outputs.probabilities, indices=outputs.indices, costs=costs or {})


def outputs_of_run(folder: RunFolder) -> dict[str, Outputs]:
    """Return the stored outputs of a finished run by split, `val` and `test`; runs of older versions have none.

    Raises:
        DamagedFileError: A file of the run was altered.
    """
    metadata = read_metadata(folder.model)
    thresholds = metadata.get("thresholds")
    classes = tuple(metadata["classes"])
    return {
        split: Outputs(
            name=f"the {'validation' if split == 'val' else split} images of {metadata['data']}",
            classes=classes,
            logits=found.logits,
            true=found.labels,
            temperature=float(metadata["temperature"]),
            fitted_temperature=split == "val",
            chose_weights=split == "val" and bool(metadata.get("chosen_on_val", True)),
            thresholds=None if thresholds is None else tuple(thresholds),
            indices=found.indices,
        )
        for split, found in read_outputs(folder.outputs).items()
        if found.logits.shape[1] == len(classes) and (found.labels.ndim == 1) == (thresholds is None)
    }


def reported(outputs: Mapping[str, Outputs]) -> Outputs | None:
    """Return the outputs on which accuracy is reported: those of the test images, else of the validation images."""
    split = scored_split(outputs)
    return None if split is None else outputs[split]
