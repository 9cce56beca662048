"""A data set's name, perhaps a run -> Examined: what is in the data and what is wrong with it, in words and numbers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous.data.doctor.examine import Examination, Features, examine
from vitreous.data.sources import Source, open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.data.workers import map_in_order
from vitreous.errors import DataError, DecodeError
from vitreous.training.folder.records import Listener
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

BATCH_SIZE = 64
_MOST_KINDS = 12


@dataclass(frozen=True, eq=False)
class Examined:
    """A data set, examined.

    Attributes:
        survey: The source, its splits and facts.
        examination: The doctor's findings and numbers.
    """

    survey: Survey
    examination: Examination

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(name, value) pairs, most important first."""
        facts, numbers = self.survey.facts, self.examination.numbers
        classes = list(numbers["class_images"].values())
        train, val, test = (sum(counts[split] for counts in classes) for split in ("train", "val", "test"))
        most, least = (choose(counts["train"] for counts in classes) for choose in (max, min))
        low, high = facts.min_size_px, facts.max_size_px
        sizes = "all alike" if low == high else f"from {low[0]}x{low[1]} to {high[0]}x{high[1]}"
        colour = numbers["colour"]["images with colour"]
        return (
            ("images", f"{train:,} to train, {val:,} to validate, {test:,} to test"),
            ("classes", f"{len(classes):,}, of {least:,} to {most:,} training images"),
            ("size", f"median {facts.height_px}x{facts.width_px} px, {sizes}"),
            ("channels", "1 (all images are gray)" if facts.in_chans == 1 else "3"),
            (
                "colour",
                f"{plural(colour, 'image shows', 'images show')} it, {len(self.examination.looks) - colour:,} do not",
            ),
            ("pixels", self._pixels()),
            ("mirroring", f"{'keeps' if facts.mirror else 'changes'} the meaning: {facts.mirror_reason}"),
            ("unreadable files", f"{numbers['num_unreadable']:,}"),
            ("labels", numbers["labels"]["verdict"]),
        )

    @property
    def class_rows(self) -> tuple[tuple[str, ...], ...]:
        """Images of each class and split below a row of headings."""
        counts = self.examination.numbers["class_images"].items()
        rows = [(name, *(f"{of[split]:,}" for split in ("train", "val", "test"))) for name, of in counts]
        return (("class", "train", "val", "test"), *rows)

    @property
    def histograms(self) -> Mapping[str, Mapping[str, int]]:
        """What is counted -> how many images there are of each."""
        numbers = self.examination.numbers
        kinds = list(numbers["kinds"].items())
        rest = {"others": sum(count for _, count in kinds[_MOST_KINDS:])} if len(kinds) > _MOST_KINDS else {}
        return {
            "shorter side": numbers["shorter_side_px"],
            "width by height": numbers["width_by_height"],
            "kind of file": dict(kinds[:_MOST_KINDS]) | rest,
            "mean brightness": numbers["brightness"],
        }

    @property
    def details(self) -> dict[str, Any]:
        """Everything but the pictures, for JSON."""
        return asdict(self.survey.facts) | self.examination.as_dict()

    def _pixels(self) -> str:
        """Mean and deviation of the training images' channels, in grey levels."""
        found = self.examination.numbers["channels"].get("train")
        if found is None:
            return "unknown: no training image decodes"
        mean, std = (" ".join(f"{value:.0f}" for value in found[what]) for what in ("mean", "std"))
        return f"red, green, blue {mean} of 255 in the mean, {std} standard deviation within an image"


def examine_data(
    name: str,
    listener: Listener,
    *,
    root: str | None = None,
    run: Path | None = None,
    device: torch.device | str = "cpu",
) -> Examined:
    """Read and decode every image once and say what is wrong with the set.

    Args:
        name: A folder, table or named set.
        listener: Told how far it is.
        root: The folder that a table's paths are relative to.
        run: A run or model file whose features tell doubtful labels better than thumbnails do; each image is decoded a
            second time, in the model's size. A model that learned the wrong labels of its own training images by
            heart doubts fewer of them.
        device: Where that model computes.

    Raises:
        DataError: None of the files is an image, or fewer than two classes are left.
        NotARunError: There is no model at `run`.
    """

    def show(what: str, done: int, total: int) -> None:
        listener("reading", {"what": what, "done": done, "total": total})

    predictor = None if run is None else Predictor.load(run, device)
    surveyed = survey(open_source(name, root), progress=lambda done, total: show("reading", done, total))
    features = None if predictor is None else _features(predictor, surveyed.source, f"the features of {run}", listener)
    return Examined(surveyed, examine(surveyed, features=features, show=show))


def _features(predictor: Predictor, source: Source, basis: str, listener: Listener) -> Features:
    """What the model's head is given, for each image that decodes."""

    def read(start: int, place: int) -> torch.Tensor | None:
        index = start + place
        try:
            return predictor.preprocess.pixels(source.encoded(index), where=source.describe(index))
        except DecodeError:  # the examination finds it, and says so
            return None

    values, indices = [], list[int]()
    for start in range(0, len(source), BATCH_SIZE):
        stop = min(start + BATCH_SIZE, len(source))
        images = map_in_order(partial(read, start), stop - start)
        readable = [image for image in images if image is not None]
        indices += [start + place for place, image in enumerate(images) if image is not None]
        if readable:
            values.append(predictor.features(torch.stack(readable)).numpy())
        listener("reading", {"what": "taking features", "done": stop, "total": len(source)})
    if not values:
        raise DataError(f"{source.name}: none of its {len(source)} images decodes; check them")
    return Features(np.concatenate(values), np.array(indices, dtype=np.int64), basis)
