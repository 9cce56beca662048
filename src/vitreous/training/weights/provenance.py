"""Open weights file -> what the weights were trained on: class names, mean and std of the images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitreous.data.config import Mean, Std, check_statistics
from vitreous.errors import ConfigError
from vitreous.model.weights.native import METADATA_KEY, read_metadata
from vitreous.model.weights.reading.kinds import WeightFile, read_json
from vitreous.ranges import check_value, rule_of


@dataclass(frozen=True)
class Provenance:
    """Classes and preprocessing that weights were trained with, as far as their files say.

    Class names are in the order of the logits; empty if unknown. Mean and standard deviation of each channel are for
    pixels in [0, 1]; None if unknown.
    """

    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_provenance(file: WeightFile) -> Provenance:
    """Read the provenance from our header, from timm's `config.json`, or from the two files that transformers writes.

    Raises:
        DamagedFileError: One of these files cannot be read.
    """
    if METADATA_KEY in file.metadata:
        ours = read_metadata(file.path)
        return _checked(ours.get("classes"), ours.get("preprocess"), "mean", "std")
    described = file.settings.get("pretrained_cfg", file.settings)
    if isinstance(described, Mapping) and "mean" in described:
        return _checked(file.settings.get("label_names", described.get("label_names")), described, "mean", "std")
    preprocessor = file.path.parent / "preprocessor_config.json"
    found = read_json(preprocessor) if preprocessor.is_file() else {}
    return _checked(_labels(file.settings.get("id2label")), found, "image_mean", "image_std")


def statistics_for(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """Adapt a mean or std to another number of channels: every channel then gets the average over all channels."""
    return values if len(values) == in_chans else (sum(values) / len(values),) * in_chans


def _checked(classes: Any, statistics: Any, mean: str, std: str) -> Provenance:
    """Keep what is valid, and ignore the rest: the weights can be good even if their description is not."""
    names = tuple(classes) if isinstance(classes, list) and all(isinstance(name, str) for name in classes) else ()
    values = statistics if isinstance(statistics, Mapping) else {}
    found = [_numbers(values.get(key)) for key in (mean, std)]
    if found[0] is None or found[1] is None:
        return Provenance(names)
    try:
        check_value("pretrained.mean", found[0], rule_of(Mean))
        check_value("pretrained.std", found[1], rule_of(Std))
        check_statistics("pretrained", found[0], found[1], len(found[0]))
    except ConfigError:
        return Provenance(names)
    return Provenance(names, found[0], found[1])


def _numbers(values: Any) -> tuple[float, ...] | None:
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not is_list or not all(isinstance(value, int | float) for value in values):
        return None
    return tuple(float(value) for value in values)


def _labels(labels: Any) -> list[str] | None:
    """Return class names in order. None if they are not valid, or only the placeholders that transformers makes up."""
    if not isinstance(labels, Mapping) or not all(isinstance(name, str) for name in labels.values()):
        return None
    names = [labels.get(str(number)) for number in range(len(labels))]
    if None in names or all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None
    return [str(name) for name in names]
