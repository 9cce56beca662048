"""Run, optionally other labeled images -> a check for shortcuts with a picture, stored in the run folder."""

import io
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vitreous import atomic
from vitreous.data.sources import Source
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.exchange import moved_predictions
from vitreous.use.explain.methods import DEFAULT, method_named
from vitreous.use.explain.pictures.places import draw_places
from vitreous.use.explain.sample import Sample
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
    predicted = sample.predicted(predictor).numpy()
    grid_size = predictor.model.config.grid_size
    checked, places = classes_to_check(predicted, len(predictor.classes), grid_size), places_near_border(*grid_size)
    progress = progress_to(listener, "exchanging places")
    moved = moved_predictions(sample, predictor, predicted, checked, list(places.values()), progress)
    shortcuts = find_shortcuts(moved, predicted, checked, predictor.classes, places)
    progress = progress_to(listener, "explaining")
    values = sample.explained(predictor.model, explain, predicted, sample.positions, progress)
    token_center = predictor.model.tokenizer.token_center
    picture = draw_places(sample, values, predicted, predictor.classes, shortcuts.found, token_center)
    return ShortcutCheck(sample.name, method, sample.paths, shortcuts, picture)


def write_shortcuts(folder: RunFolder, check: ShortcutCheck) -> None:
    """Write `shortcuts.json` and `shortcuts.jpg` into a run folder. Raises SaveError if one could not be written."""
    content = io.BytesIO()
    check.picture.save(content, "JPEG", quality=90)
    atomic.write_bytes(folder.shortcuts_picture, content.getvalue())
    atomic.write_json(folder.shortcuts, check.as_dict())
