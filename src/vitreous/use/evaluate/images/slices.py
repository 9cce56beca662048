"""Finished run -> groups of its held-out images that it classifies worse than the others, e.g. dark ones."""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitreous import atomic
from vitreous.data.decoding.depth import Scale
from vitreous.data.decoding.quiet import quiet_pillow
from vitreous.data.doctor.summaries import summarize_source
from vitreous.data.sources import Source
from vitreous.errors import ConfigError
from vitreous.training.fit.evaluate import Score
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.training.moved import reopen_data
from vitreous.training.request import TrainRequest
from vitreous.use.evaluate.images.label_errors import stored_outputs
from vitreous.use.evaluate.outputs import reported
from vitreous.wording import plural

LEAST_IMAGES = 20  # in a group that is tested, and outside it
_MODEL_TAG, _TIME_TAG, _PHOTO_TAGS, _PHOTO_TIME_TAG = 0x0110, 0x0132, 0x8769, 0x9003


class Slice(NamedTuple):
    """A group of images, with Wilson's interval, two-sided p-value (Fisher; Holm) and up to 6 wrong images."""

    name: str
    num_images: int
    accuracy: float
    interval_95: tuple[float, float]
    rest_accuracy: float
    p_value: float
    examples: tuple[int, ...]

    def __str__(self) -> str:
        (low, high), images = self.interval_95, plural(self.num_images, "image")
        own = f"{self.accuracy:.1%} of {images} correct (95% interval {low:.1%} to {high:.1%})"
        return f"{self.name}: {own}, {self.rest_accuracy:.1%} of the others (p = {self.p_value:.2g})"


def worse(found: Sequence[Slice]) -> list[Slice]:
    """Return the groups that are classified significantly worse than all other images."""
    return [group for group in found if group.p_value < 0.05 and group.accuracy < group.rest_accuracy]


def find_slices(properties: Mapping[str, NDArray[Any]], is_right: NDArray[np.bool_]) -> list[Slice]:
    """Compare groups of images with all other images, the most significant first; examples are positions.

    Properties `[n]` are numbers, which are cut at their quartiles, or texts, which are empty if unknown.
    """
    from scipy.stats import fisher_exact

    tested = []
    for name, inside in (group for item in properties.items() for group in _groups(*item)):
        own, rest = ([int((is_right & side).sum()), int((side & ~is_right).sum())] for side in (inside, ~inside))
        if min(sum(own), sum(rest)) >= LEAST_IMAGES:
            tested.append((float(fisher_exact([own, rest]).pvalue), name, own, rest, inside & ~is_right))
    found, corrected = list[Slice](), 0.0
    for rank, (p_value, name, own, rest, wrong) in enumerate(sorted(tested, key=lambda group: group[0])):
        corrected = min(1.0, max(corrected, p_value * (len(tested) - rank)))  # Holm 1979
        score, examples = Score(sum(own), own[0], 0.0), tuple(np.flatnonzero(wrong)[:6].tolist())
        accuracies = score.accuracy, score.interval, rest[0] / sum(rest)
        found.append(Slice(name, score.num_images, *accuracies, corrected, examples))
    return found


def slices_of_run(folder: RunFolder, listener: Listener = ignore) -> list[Slice]:
    """Find groups of held-out images, and write them into the run; examples are numbers in the source.

    Raises ConfigError if no predictions of one class per image are stored, and RunError if the data has changed.
    """
    surveyed = reopen_data(folder, TrainRequest(resume=folder.path), listener)[1]
    outputs, source = reported(stored_outputs(folder, surveyed)), surveyed.source
    if outputs is None or outputs.indices is None or outputs.thresholds is not None:
        raise ConfigError(
            f"slices={folder.path}: has no stored predictions of one class per image; leave out --slices, or train "
            "again if the run is of an older version"
        )
    progress, scale = progress_to(listener, "decoding"), Scale(surveyed.facts.value_range)
    known = summarize_source(source, {}, progress, scale, only=outputs.indices)
    photos = [_photo(source, index) for index in known.indices.tolist()]
    properties = dict(zip(("folder", "camera", "time", "month"), np.array(photos, dtype=np.str_).T, strict=True)) | {
        "file type": known.kinds,
        "shorter side in px": known.sizes.min(axis=1),
        "width by height": known.sizes[:, 1] / known.sizes[:, 0],
        "brightness": known.means.mean(axis=1),
        "sharpness": np.abs(np.diff(known.gray.astype(np.int16), axis=2)).mean(axis=(1, 2)),
    }
    found = find_slices(properties, (outputs.predicted == outputs.numbers)[np.isin(outputs.indices, known.indices)])
    found = [group._replace(examples=tuple(known.indices[list(group.examples)].tolist())) for group in found]
    atomic.write_text(folder.slices, json.dumps([group._asdict() for group in found], indent=1) + "\n")
    return found


def _groups(name: str, values: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the name and the members of each group."""
    if values.dtype.kind == "U":
        texts, counts = np.unique(values, return_counts=True)
        yield from ((f"{name} {text}", values == text) for text in texts[(counts >= LEAST_IMAGES) & (texts != "")])
        return
    quarters = np.searchsorted(np.unique(np.quantile(values, (0.25, 0.5, 0.75))), values, side="right")
    for inside in (quarters == number for number in np.unique(quarters)):
        yield f"{name} {values[inside].min():.4g} to {values[inside].max():.4g}", inside


def _photo(source: Source, index: int) -> tuple[str, str, str, str]:
    """Return the folder below the class, camera, quarter of the day and month of an image; empty if unknown."""
    parts, name = PurePath(source.key(index)).parts[:-1], source.classes[source.labels[index]]
    folder = "/".join(parts[parts.index(name) + 1 :] if name in parts else parts)
    try:
        with quiet_pillow(), Image.open(io.BytesIO(source.content(index))) as image:
            tags = image.getexif()
            time = str(tags.get_ifd(_PHOTO_TAGS).get(_PHOTO_TIME_TAG) or tags.get(_TIME_TAG))
            camera = " ".join(str(tags.get(_MODEL_TAG, "")).split())[:60]
    except Exception:  # not an image file, or its tags are damaged, which Pillow reports in many ways
        return folder, "", "", ""
    found = re.match(r"(\d{4}):(\d\d):\d\d ([01]\d|2[0-3]):", time)
    hour = 6 * (int(found[3]) // 6) if found else 0
    return folder, camera, *((f"{hour}:00 to {hour + 6}:00", f"{found[1]}-{found[2]}") if found else ("", ""))
