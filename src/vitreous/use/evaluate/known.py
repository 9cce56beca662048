"""Images to evaluate on -> which of them the model was trained with, and its score on all others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.pixels.digest import DIGEST_BYTES, digest_of
from vitreous.data.sources import Source, Texts
from vitreous.data.workers import Progress, map_in_order
from vitreous.errors import DecodeError
from vitreous.tensors import Logits, Targets
from vitreous.training.fit.evaluate import Score, score
from vitreous.training.folder.images import splits_in_run
from vitreous.wording import plural


@dataclass(frozen=True)
class Known:
    """Images of an evaluation that are known to the model, by their content.

    It was trained on `num_trained` of them, and its weights were chosen by `num_chosen`; the score is for all others.
    """

    num_trained: int
    num_chosen: int
    others: Score | None

    @property
    def sentence(self) -> str:
        """What the known images mean for the score over all images; empty if there are none."""
        if not self.num_trained + self.num_chosen:
            return ""
        chosen = f" and its weights were chosen by {self.num_chosen:,} of them" if self.num_chosen else ""
        found = f"the model was trained on {self.num_trained:,} of these images{chosen}, so this accuracy is optimistic"
        if self.others is None:
            return f"{found}; no image is new to it"
        of_others = f"{self.others.num_correct:,} of {plural(self.others.num_images, 'new image')} correct"
        return f"{found}; accuracy on the others: {self.others.accuracy:.1%} ({of_others})"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain values for JSON."""
        return vars(self) | {"others": self.others and self.others.as_dict()}


def find_splits(run: Path, source: Source, indices: NDArray[np.int64], progress: Progress) -> Texts | None:
    """Return the split that images had in the run, recognized by their content; an empty string for new images.

    `run` is a run folder or a model file in one; `indices` are the numbers of the images, `[n]`.

    Returns:
        `train`, `val`, `test` or an empty string for each image, `[n]`; None if the run has no record of its images.
    """
    if splits_in_run(run, np.zeros((0, DIGEST_BYTES), dtype=np.uint8)) is None:
        return None

    def read(position: int) -> bytes:
        try:
            return digest_of(source.content(int(indices[position])))
        except DecodeError:  # reported when the image is decoded
            return bytes(DIGEST_BYTES)

    digests = np.frombuffer(b"".join(map_in_order(read, len(indices), progress)), dtype=np.uint8)
    return splits_in_run(run, digests.reshape(-1, DIGEST_BYTES))


def count_known(
    splits: Texts, metadata: Mapping[str, Any], logits: Logits, labels: Targets, classes: Sequence[str]
) -> Known:
    """Count known images by their splits in the run, as from `find_splits`, and score the others."""
    is_trained, is_chosen = splits == "train", (splits == "val") & metadata.get("chosen_on_val", True)
    others = np.flatnonzero(~(is_trained | is_chosen))
    found = score(logits[others], labels[others], classes) if len(others) else None
    return Known(int(is_trained.sum()), int(is_chosen.sum()), found)
