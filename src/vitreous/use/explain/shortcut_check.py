"""Run, optionally other labeled images -> a check for shortcuts with a picture, stored in the run folder.

Relevance is not proof: models may collect relevance in an empty corner, by which no prediction changes, and with a stem
of convolutions it does not concentrate on a mark. Exchanging the pixels of a place is an intervention, so it shows what
the model uses.
"""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from PIL import Image

from vitreous import atomic
from vitreous.data.sources import Source
from vitreous.data.workers import Progress
from vitreous.paths import expanded
from vitreous.seeding import derive
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.methods import DEFAULT, method_named
from vitreous.use.explain.pictures.places import draw_places
from vitreous.use.explain.sample import Sample, batches
from vitreous.use.explain.shortcuts import Shortcuts, classes_to_check, find_shortcuts, places_near_border
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural


@dataclass(frozen=True)
class ShortcutCheck:
    """Shortcuts, and from what they were found.

    `data` is the name of the data and of the split, and `images` has the path or name of each image that was explained;
    image numbers in `shortcuts` are positions in it. The picture shows where relevance lies in the images of each
    class, with examples.
    """

    data: str
    method: str
    images: tuple[str, ...]
    shortcuts: Shortcuts
    picture: Image.Image = field(compare=False, repr=False)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, one sentence each, then what was examined."""
        examined = f"{plural(len(self.images), 'image')} of {self.data}, explained by {self.method}"
        return (*self.shortcuts.sentences, f"shortcuts: examined {examined}")

    def as_dict(self) -> dict[str, Any]:
        """Return numbers, texts and lists, for JSON, with the names of the images of each shortcut."""
        content = asdict(self.shortcuts)
        for found, shortcut in zip(content["found"], self.shortcuts.found, strict=True):
            found |= {"followed": shortcut.followed, "images": [self.images[number] for number in shortcut.images]}
        basis = {"version": 1, "data": self.data, "method": self.method, "num_images": len(self.images)}
        return basis | content | {"sentences": list(self.sentences)}


def check_shortcuts(
    run: Path,
    data: str | Source | None = None,
    *,
    method: str = DEFAULT,
    max_images: int = 1_000,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> ShortcutCheck:
    """Exchange places between held-out images, and look for those that give a class; draw where relevance lies.

    `data` is that of `labeled_images`. Of more than `max_images`, that many are drawn at random, always the same ones.
    The exchange takes up to nine forward passes for each image, one for each place. `method` is that of the picture.

    Raises:
        UnknownNameError: There is no such method.
        DataError: None of the images can be decoded.
        VitreousError: As in `labeled_images`.
    """
    run, explain = expanded(run), method_named(method)
    predictor = Predictor.load(run, device)
    images = labeled_images(run, predictor, data, listener=listener)
    sample = Sample.draw(images, predictor, max_images, listener=listener)
    predicted = sample.predicted().numpy()
    grid_size = predictor.model.config.grid_size
    checked, places = classes_to_check(predicted, len(predictor.classes), grid_size), places_near_border(*grid_size)
    progress = progress_to(listener, "exchanging places")
    moved = moved_predictions(sample, predicted, checked, list(places.values()), progress)
    shortcuts = find_shortcuts(moved, predicted, checked, predictor.classes, places)
    values = sample.explained(explain, predicted, sample.positions, progress_to(listener, "explaining"))
    picture = draw_places(sample, values, predicted, shortcuts.found)
    return ShortcutCheck(sample.name, method, sample.paths, shortcuts, picture)


def moved_predictions(
    sample: Sample,
    predicted: Int64[np.ndarray, " images"],
    checked: Sequence[int],
    places: Sequence[Bool[np.ndarray, "rows columns"]],
    show: Progress,
) -> Bool[np.ndarray, "images places"]:
    """Put each place of each image into an image of another predicted class: does that image get the class, too?

    Only images of the classes to check are tried; the others count as no. Each image has one partner for all places,
    drawn at random. This takes a forward pass for each image and place.
    """
    draw = np.random.default_rng(derive(0, "partners"))
    partners, moved = np.zeros_like(predicted), np.zeros((len(predicted), len(places)), dtype=np.bool_)
    for number in checked:
        others = np.flatnonzero(predicted != number)
        partners[predicted == number] = draw.choice(others, len(predicted) - len(others))
    tried = np.flatnonzero(np.isin(predicted, checked))
    for some in batches(sample.model, tried):
        given, taking = sample.pixels(some), sample.pixels(partners[some])
        for column, place in enumerate(places):
            height, width = (pixels // patches for pixels, patches in zip(given.shape[2:], place.shape, strict=True))
            here = torch.from_numpy(np.kron(place, np.ones((height, width), dtype=np.bool_))).to(given.device)
            logits = sample.predictor.logits(torch.where(here, given, taking))
            moved[some, column] = logits.argmax(dim=1).numpy() == predicted[some]
        show(int(np.searchsorted(tried, some[-1])) + 1, len(tried))
    return moved


def write_shortcuts(folder: RunFolder, check: ShortcutCheck) -> None:
    """Write `shortcuts.json` and `shortcuts.jpg` into a run folder. Raises SaveError if one could not be written."""
    content = io.BytesIO()
    check.picture.save(content, "JPEG", quality=90)
    atomic.write_bytes(folder.shortcuts_picture, content.getvalue())
    atomic.write_json(folder.shortcuts, check.as_dict())
