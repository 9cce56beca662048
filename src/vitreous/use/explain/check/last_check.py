"""Run folder, its model -> what the last check of this model found, if there was one."""

import json
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.errors import DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.native import fingerprint
from vitreous.tensor_file import parsing
from vitreous.use.explain.check.faithfulness import FILE
from vitreous.use.explain.methods import METHODS
from vitreous.wording import plural

_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class LastCheck:
    """The most faithful method by the last check, whether it beats a random order, and the number of images."""

    best: str
    is_better_than_random: bool
    num_images: int

    @property
    def sentence(self) -> str:
        """The result in words."""
        where = f"in the last check of this model ({plural(self.num_images, 'image')})"
        if not self.is_better_than_random:
            return f"no method was distinguishable from a random order {where}"
        return f"{METHODS[self.best].label} was the most faithful method {where}"


def read_last_check(run: Path, model: VisionTransformer) -> LastCheck | None:
    """Return the result of `vitreous explain RUN --check`; None if there is none of these weights and known methods.

    Raises:
        DamagedFileError: The file is not what a check writes.
    """
    path, way_out = run / FILE, f"delete it, or repeat `vitreous explain {quote(str(run))} --check`"
    if not path.is_file():
        return None
    if path.stat().st_size > _MOST_BYTES:
        raise DamagedFileError(f"{path}: has {path.stat().st_size:,} bytes, more than a check writes; {way_out}")
    with parsing(path, way_out):
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        above = float(found["methods"][found["best"]]["measured"]["removal"]["above_random"]["low"])
        last = LastCheck(str(found["best"]), above > 0 and isfinite(above), int(found["num_images"]))
        weights = found["weights"]
    return last if weights == fingerprint(model) and last.best in METHODS else None
