"""Coverage or accuracy that a user asks for, a run -> the set of each image, and whether its prediction is rejected."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from vitreous.errors import ConfigError, NotARunError
from vitreous.model.weights.reading import hub_names
from vitreous.paths import expanded
from vitreous.ranges import Interval, check_value, rule_of
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.calibration import Values, top_label
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.limits import Kind, contained, fit_limits, least_confidence, nonconformity
from vitreous.use.evaluate.sets.measured import in_roles
from vitreous.use.predict.predictor import Prediction, Predictor
from vitreous.wording import plural


@dataclass(frozen=True, eq=False)
class Decisions:
    """A function that adds to a prediction its set, most probable class first, and whether it is rejected.

    An image that could not be read has an empty set and is rejected.

    Attributes:
        classes: Class names.
        kind: How sets are made.
        limits: Limit of each class, `[classes]`; None if sets are not asked for.
        confidence: Predictions up to this probability are rejected; None if that is not asked for.
    """

    classes: tuple[str, ...] = ()
    kind: str = "lac"
    limits: Values | None = None
    confidence: float | None = None

    def __call__(self, prediction: Prediction) -> Prediction:
        """Return the prediction with what was decided."""
        chosen: tuple[str, ...] | None = None if self.limits is None else ()
        if self.limits is not None and not prediction.error:
            row = np.array([prediction.probabilities])
            inside = contained(nonconformity(row, self.kind), self.limits)[0]
            chosen = tuple(self.classes[k] for k in np.argsort(-row[0], kind="stable") if inside[k])
        unsure = self.confidence is not None and prediction.probability <= self.confidence
        rejected = None if self.confidence is None else bool(prediction.error) or unsure
        return replace(prediction, set=chosen, rejected=rejected)


def decisions(
    run: Path, predictor: Predictor, coverage: float | None, sets: str | None, reject: float | None
) -> Decisions:
    """Return what decides about predictions; the held-out images of the run choose its limits.

    The other arguments are those of `Run.predict`.

    Raises:
        ConfigError: A value is out of range, or these images cannot guarantee it.
        NotARunError: The run has no stored outputs of held-out images.
    """
    given = {name: value for name, value in (("coverage", coverage), ("reject", reject)) if value is not None}
    for name, value in given.items():
        is_percent = isinstance(value, int | float) and 1 < value < 100
        hint = f"did you mean {value / 100:g}?" if is_percent else "0.95 is usual"
        check_value(name, value, rule_of(Annotated[float, Interval("(0, 1)", hint)]))
    check_value("sets", sets, rule_of(Kind | None))
    if sets is not None and coverage is None:
        raise ConfigError(f"sets={sets}: needs a coverage; add one, e.g. 0.95")
    if not given:
        return Decisions()
    asked, folder = ", ".join(f"{name}={value}" for name, value in given.items()), RunFolder(expanded(run))
    if predictor.thresholds is not None:
        raise ConfigError(f"{asked}: needs a model that predicts one class per image, not several; leave it out")
    if predictor.views is not None:
        raise ConfigError(f"{asked}: the limits are for one view of an image, not for an average; leave out tta")
    roles = in_roles(outputs_of_run(folder)) if folder.model.is_file() else None
    if roles is None:
        raise NotARunError(
            f"run={hub_names.shown(run)}: has no outputs of held-out images, which {asked} needs; give the folder of a "
            "finished run with validation or test images, and train it again if it is of an older version"
        )
    probabilities, true, kind = roles[0][: roles[2]], roles[1][: roles[2]], sets or "lac"
    limits = confidence = None
    if coverage is not None:
        limits = fit_limits(kind, coverage, nonconformity(probabilities, kind), true, predictor.classes)
    if reject is not None:
        confidence = _confidence(reject, *top_label(probabilities, true))
    return Decisions(predictor.classes, kind, limits, confidence)


def _confidence(reject: float, confidence: Values, is_correct: Values) -> float:
    limit = least_confidence(confidence, is_correct, reject)
    if limit is None:
        lower = (percent / 100 for percent in range(int(100 * reject), 0, -1))
        best = next((target for target in lower if least_confidence(confidence, is_correct, target) is not None), None)
        way_out = "train a better model" if best is None else f"use at most {best:g}"
        images = plural(len(confidence), "held-out image")
        raise ConfigError(f"reject={reject}: this model and {images} cannot guarantee this accuracy; {way_out}")
    return limit
