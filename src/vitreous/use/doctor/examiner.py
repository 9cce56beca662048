"""Data set, optionally a model -> DataReport: what is in the data and what is wrong with it, in words and numbers."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vitreous.data.decoding.decode import ImageLike
from vitreous.data.doctor.examine import Examination, Features, examine
from vitreous.data.doctor.summaries import split_names
from vitreous.data.sources import SPLITS, Source, open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.data.survey.splits import torn_groups
from vitreous.errors import DecodeError
from vitreous.training.folder.records import Listener
from vitreous.use.embed.embedder import Embedder
from vitreous.use.evaluate.images.label_errors import predict_unseen
from vitreous.wording import plural

_MOST_FILE_TYPES = 12


@dataclass(frozen=True, eq=False)
class DataReport:
    """The doctor's report on a data set, ready to be shown."""

    survey: Survey
    examination: Examination

    @property
    def facts(self) -> tuple[tuple[str, str], ...]:
        """(name, value) pairs, most important first."""
        facts, numbers = self.survey.facts, self.examination.numbers
        counts = list(numbers["class_images"].values())
        train, val, test = (int((self.examination.summaries.splits == split).sum()) for split in SPLITS)
        fewest, most = (choose(count["train"] for count in counts) for choose in (min, max))
        low, high = facts.min_size_px, facts.max_size_px
        sizes = "all equal" if low == high else f"from {low[0]}x{low[1]} to {high[0]}x{high[1]}"
        return (
            ("images", f"{train:,} for training, {val:,} for validation, {test:,} for testing"),
            *((("task", f"multi-label: {facts.task_reason}"),) if facts.task == "multilabel" else ()),
            ("classes", f"{len(counts):,}, with {fewest:,} to {most:,} training images each"),
            *self._groups(),
            ("size", f"median {facts.height_px}x{facts.width_px} px (height x width), {sizes}"),
            ("channels", "1 (all images are gray)" if facts.in_chans == 1 else str(facts.in_chans)),
            *([("depth", facts.value_range_reason)] if facts.value_range_reason else []),
            *self._color(),
            ("pixels", self._pixels()),
            ("mirroring", f"{'keeps' if facts.mirror else 'changes'} the class: {facts.mirror_reason}"),
            ("unreadable files", f"{numbers['num_unreadable']:,}"),
            ("labels", numbers["labels"]["verdict"]),
        )

    @property
    def class_rows(self) -> tuple[tuple[str, ...], ...]:
        """Number of images of each class in each split, below a row of headings."""
        counts = self.examination.numbers["class_images"].items()
        return (("class", *SPLITS), *((name, *(f"{count[split]:,}" for split in SPLITS)) for name, count in counts))

    @property
    def histograms(self) -> Mapping[str, Mapping[str, int]]:
        """Number of images per bin, for each histogram."""
        numbers = self.examination.numbers
        types = list(numbers["kinds"].items())
        rest = sum(count for _, count in types[_MOST_FILE_TYPES:])
        return {
            "shorter side": numbers["shorter_side_px"],
            "width / height": numbers["width_by_height"],
            "file type": dict(types[:_MOST_FILE_TYPES]) | ({"others": rest} if rest else {}),
            "mean brightness": numbers["brightness"],
        }

    @property
    def details(self) -> dict[str, Any]:
        """Facts, numbers and findings as plain values for JSON."""
        return asdict(self.survey.facts) | self.examination.as_dict()

    def _groups(self) -> Iterator[tuple[str, str]]:
        """Yield the number of groups such as patients, and whether any of them is both trained on and held out."""
        groups = self.survey.source.groups
        if groups is not None:
            torn = torn_groups(groups, split_names(self.survey.indices, len(groups)))
            where = f"{torn:,} of them both trained on and held out" if torn else "each either trained on or held out"
            yield "groups", f"{len(set(groups.tolist()) - {''}):,}, {where}"

    def _color(self) -> Iterator[tuple[str, str]]:
        """Yield how many images have color; nothing if their channels are other bands."""
        if counts := self.examination.numbers["color"]:
            num_color, num_gray = counts.values()
            yield "color", f"{plural(num_color, 'image')} with color, {num_gray:,} without"

    def _pixels(self) -> str:
        """Channel means and standard deviations of the training images, in 0..255."""
        channels = self.examination.numbers["channels"].get("train")
        if channels is None:
            return "unknown: no training image can be decoded"
        num = self.survey.facts.in_chans
        mean, std = (" ".join(f"{value:.0f}" for value in channels[name][:num]) for name in ("mean", "std"))
        which = "red, green, blue: " if num == 3 else "" if num == 1 else f"bands 1 to {len(mean.split())}: "
        return f"{which}mean {mean}, standard deviation within an image {std} (0 to 255)"


def examine_data(
    name: str, listener: Listener, *, root: str | None = None, embedder: Embedder | None = None, basis: str = ""
) -> DataReport:
    """Read and decode every image once and find what is wrong with the data set.

    The features of an embedder judge the labels, which is more precise than judging by thumbnails, and find outliers.
    Each image is then decoded a second time, at the model's size. A model that was trained on these images finds fewer
    wrong labels, because it may have memorized them. `basis` is what the features are, e.g. `the features of
    dino.safetensors`.

    Raises:
        DataError: No file is a readable image, or there are fewer than two classes.
    """
    surveyed = survey(open_source(name, root), progress=partial(_show, listener, "reading"))
    features = None if embedder is None else _features(embedder, surveyed.source, basis, listener)
    return DataReport(surveyed, examine(surveyed, features=features, show=partial(_show, listener)))


def examine_run(path: Path, listener: Listener, device: torch.device | str) -> DataReport:
    """Examine the images of a run or series, with labels judged by its predictions. Raises as `predict_unseen`."""
    surveyed, indices, probabilities = predict_unseen(path, listener, device)
    features = Features(probabilities, indices, "a model that was not trained on the image", are_probabilities=True)
    return DataReport(surveyed, examine(surveyed, features=features, show=partial(_show, listener)))


def _show(listener: Listener, stage: str, done: int, total: int) -> None:
    listener("reading", {"what": stage, "done": done, "total": total})


def _features(embedder: Embedder, source: Source, basis: str, listener: Listener) -> Features | None:
    """Compute the input of the model's head for each image that can be decoded; None if there is none."""

    def encoded(index: int) -> ImageLike:
        try:
            return source.encoded(index)
        except DecodeError:  # `examine` reports it
            return b""

    found = embedder.embed((encoded(index) for index in range(len(source))), len(source), listener)
    return Features(found.vectors, found.positions, basis) if found.names else None
