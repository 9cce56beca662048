"""Model of a run -> what an exported file says about itself: classes, preprocessing, sets of classes, data, scores."""

from contextlib import suppress
from typing import Any

from vitreous.errors import ConfigError
from vitreous.training.fit.familiarity import FLAGGED
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.sets.limits import fit_limits, nonconformity
from vitreous.use.evaluate.sets.measured import in_roles
from vitreous.use.predict.predictor import Predictor
from vitreous.version import __version__

_COVERAGES = (0.95, 0.9)


def describe(predictor: Predictor, folder: RunFolder, name: str) -> dict[str, Any]:
    """Return a value for each key; JSON can represent all of them."""
    metadata, known = predictor.metadata, predictor.familiarity
    return {
        "vitreous": __version__,
        "name": name,
        "classes": list(predictor.classes),
        "input": "gray levels of decoded, upright photos of equal size, uint8, [batch, height, width, channels]",
        "decoding": "apply the EXIF orientation, put transparent photos on white, convert to RGB, or to gray for one "
        "channel; a JPEG file may be decoded at a reduced size, at least twice that of the model",
        "output": "calibrated probabilities, float32, [batch, classes]",
        "unfamiliar": None if known is None else {"score": known.score, "flagged_from": FLAGGED},
        "preprocess": predictor.preprocess.as_dict(),
        "temperature": predictor.temperature,
        "thresholds": None if predictor.thresholds is None else list(predictor.thresholds),
        "sets": _sets(predictor, folder),
        "data": metadata.get("data", ""),
        "data_fingerprint": metadata.get("data_fingerprint", ""),
        "metrics": metadata.get("metrics", {}),
    }


def _sets(predictor: Predictor, folder: RunFolder) -> dict[str, float]:
    """Return, by coverage, the probability from which a class is in the set of a photo; see `use/evaluate/sets`."""
    roles = in_roles(outputs_of_run(folder)) if folder.model.is_file() and folder.outputs.is_file() else None
    found: dict[str, float] = {}
    if roles is not None:
        probabilities, true = roles[0][: roles[2]], roles[1][: roles[2]]
        for coverage in _COVERAGES:
            with suppress(ConfigError):  # too few images
                scores = nonconformity(probabilities, "lac")
                found[str(coverage)] = 1 - float(fit_limits("lac", coverage, scores, true, predictor.classes)[0])
    return found
