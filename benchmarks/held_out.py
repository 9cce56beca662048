"""Photos, predictions -> for each held-out image whether it was classified correctly, in an order that never changes.

Several tools are compared on the same images, so the answers of a run are stored as a text of 0 and 1: first the
validation images, then the test images, as vitreous splits them, each in the order of their paths.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous.data.sources import open_source
from vitreous.data.sources.source import FileSource
from vitreous.data.survey.facts import survey

Photo = tuple[Path, str]
"""A file and the name of its class."""


def split_photos(photos: Path) -> dict[str, list[Photo]]:
    """Return the photos of `train`, `val` and `test`, each in the order of their paths."""
    surveyed = survey(open_source(str(photos)))
    source = surveyed.source
    if not isinstance(source, FileSource):
        raise TypeError(f"photos={photos}: is not a folder of image files")
    return {
        split: sorted((source.paths[index], source.classes[source.labels[index]]) for index in indices)
        for split, indices in surveyed.indices.items()
    }


def answers(held_out: Iterable[Photo], predicted: Mapping[Path, str]) -> str:
    """Return a 1 for each photo whose predicted class is its class, and a 0 for each other one."""
    return "".join("1" if predicted[path] == true else "0" for path, true in held_out)


def share_correct(runs: Iterable[Mapping[str, str]]) -> NDArray[np.float64]:
    """Return, for each held-out image, the share of the runs that classified it correctly, `[n]` in [0, 1].

    Args:
        runs: Stored runs on the same photos; `correct` of each is a text from `answers`.
    """
    return np.mean([np.array(list(run["correct"]), dtype=np.float64) for run in runs], axis=0)
