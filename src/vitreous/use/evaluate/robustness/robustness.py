"""Run, optionally other data -> Robustness: the accuracy on images as they are, and changed in many ways."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous import atomic
from vitreous.data.decoding.decode import decode_image
from vitreous.data.decoding.preprocess import Preprocess, crop_box, padded_place
from vitreous.data.sources import Source
from vitreous.paths import expanded
from vitreous.recipe.files import read_config
from vitreous.seeding import derive, permutation
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.evaluate.paired import classify_all, paired_difference, points
from vitreous.use.evaluate.robustness.changes import SEVERITY, Change, changes_for
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

_MOST_IMAGES = 500


@dataclass(frozen=True)
class Robustness:
    """How much accuracy a model loses if photos are changed. A loss is a mean and both ends of its 95% interval.

    Attributes:
        data: Name of the images.
        is_own: They are held-out images of the run.
        num_images: Number of images.
        num_available: Number of images of which they were drawn.
        accuracy: Accuracy on unchanged images; with several labels per image, the share with all labels right.
        loss: Loss of accuracy, averaged over the 15 common corruptions and their severities.
        effects: For each change its `name`, `strengths` and their `unit`, `accuracies` and `losses` at each strength,
            the mean `loss`, the `option` of `vitreous train` against it or an empty text, and the `way_out`.
    """

    data: str
    is_own: bool
    num_images: int
    num_available: int
    accuracy: float
    loss: Sequence[float]
    effects: Sequence[Mapping[str, Any]]

    @property
    def worst(self) -> list[Mapping[str, Any]]:
        """The three effects with the largest loss, among those whose interval excludes 0."""
        return sorted((e for e in self.effects if e["loss"][1] > 0), key=lambda effect: -effect["loss"][0])[:3]

    @property
    def sentences(self) -> list[str]:
        """What was found: the common corruptions on average, then the three worst changes and what to do."""
        images = f"{self.num_images:,} of {plural(self.num_available, 'image')} of {self.data}"
        common = f"on average, the 15 common corruptions cost {points(self.loss)}"
        worst = [f"{effect['name']} costs {points(effect['loss'])}; {effect['way_out']}" for effect in self.worst]
        return [f"accuracy {self.accuracy:.1%} on {images}; {common}", *worst]

    def table(self) -> list[tuple[str, ...]]:
        """Return the effects as text, below a row of headings."""
        rows: list[tuple[str, ...]] = [("change", "strengths", "accuracy, %", "mean loss, points", "95% interval")]
        for effect in self.effects:
            strengths = " ".join([*(f"{strength:g}" for strength in effect["strengths"]), effect["unit"]])
            accuracies = " ".join(f"{100 * accuracy:.0f}" for accuracy in effect["accuracies"])
            loss, low, high = (f"{100 * value:.1f}" for value in effect["loss"])
            rows.append((effect["name"], strengths if effect["unit"] else "", accuracies, loss, f"{low} to {high}"))
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON."""
        return vars(self) | {"sentences": self.sentences}

    def save(self, run: Path) -> None:
        """Write `robustness.json` into a run folder, for its report. Raises SaveError if it could not be written."""
        atomic.write_json(RunFolder(run).robustness, self.as_dict())


def measure_robustness(
    run: Path,
    data: str | Source | None = None,
    *,
    root: str | None = None,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> Robustness:
    """Classify images that are corrupted, moved, darkened and resized, and compare with the images as they are.

    Up to 500 images are drawn, always the same ones. Arguments and errors are those of `evaluate`.
    """
    run = expanded(run)
    predictor, config = Predictor.load(run, device), RunFolder(run).config
    images = labeled_images(run, predictor, data, root=root, listener=listener)
    drawn = np.sort(permutation(derive(0, "robustness"), len(images.indices))[:_MOST_IMAGES])
    (store, true), began_s = images.decode(predictor, images.indices[drawn], listener), time.monotonic()
    plain, effects, common = classify_all(predictor, store, true), list[dict[str, Any]](), list[NDArray[np.float64]]()
    trained = read_config(config).data if config.is_file() else None
    changes, progress = changes_for(predictor.preprocess.in_chans), progress_to(listener, "changing photos")
    for number, change in enumerate(changes, start=1):
        show, steps = partial(_show, images.source, predictor.preprocess, change), range(len(change.strengths))
        right = np.stack([classify_all(predictor, store, true, partial(show, step)) for step in steps])
        common += [right] if change.unit == SEVERITY else []
        option = change.option(trained)
        way_out = f"train with `{option}`" if option else "add such images to the training images"
        effects.append({
            "name": change.name, "unit": change.unit, "strengths": change.strengths, "option": option,
            "way_out": way_out if change.unit else "resize as in training: bicubic, with antialiasing",
            "accuracies": right.mean(axis=1).tolist(), "losses": [paired_difference(plain - each) for each in right],
            "loss": paired_difference(plain - right.mean(axis=0)),
        })  # fmt: skip
        if number == 1:
            minutes = plural(ceil((time.monotonic() - began_s) * len(changes) / 60), "minute")
            listener("estimate", {"text": f"{plural(len(store), 'image')}, {len(changes)} changes: about {minutes}"})
        progress(number * len(store), len(changes) * len(store))
    loss = paired_difference(plain - np.concatenate(common).mean(axis=0))
    return Robustness(images.name, images.are_own, len(store), len(images.indices), float(plain.mean()), loss, effects)


def _show(source: Source, preprocess: Preprocess, change: Change, step: int, pixels: Tensor, index: int) -> Tensor:
    """Return an image, of which `index` is the number in the source, with a change or with another kind of resizing."""
    if change.unit:
        draw = np.random.default_rng(derive(index, change.name))
        return torch.from_numpy(change(pixels.permute(1, 2, 0).numpy(), step, draw)).permute(2, 0, 1)
    photo = decode_image(source.encoded(index), in_chans=preprocess.in_chans, scale=preprocess.scale)
    size, box = preprocess.img_size[::-1], (0.0, 0.0, float(photo.width), float(photo.height))
    if preprocess.fit == "crop":
        box = crop_box(photo.size[::-1], preprocess.img_size)
    elif preprocess.fit == "pad":
        size = padded_place(photo.size[::-1], preprocess.img_size)[2:]
    return preprocess.pixels(change.function(photo, size, box=box))
