"""Run, optionally other labeled images -> a check for shortcuts, stored in the run folder and shown in its report."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vitreous import atomic
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import Source
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.load import progress_to
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.methods import DEFAULT, method_named
from vitreous.use.explain.shortcuts import Shortcuts, find_shortcuts
from vitreous.use.explain.target import Target
from vitreous.use.predict.predictor import Predictor
from vitreous.wording import plural

BATCH_SIZE = 32


@dataclass(frozen=True)
class ShortcutCheck:
    """Shortcuts, and from what they were found.

    Attributes:
        data: Name of the data and of the split.
        method: Name of the method that explained the images.
        images: Path or name of each image that was explained.
        shortcuts: What was found; its image numbers are positions in `images`.
    """

    data: str
    method: str
    images: tuple[str, ...]
    shortcuts: Shortcuts

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, one sentence each, then what was examined."""
        examined = f"{plural(len(self.images), 'image')} of {self.data}, explained by {self.method}"
        return (*self.shortcuts.sentences, f"shortcuts: examined {examined}")

    def as_dict(self) -> dict[str, Any]:
        """Return numbers, texts and lists, for JSON, with the names of the images of each shortcut."""
        content = self.shortcuts.as_dict()
        for found in content["found"]:
            found["images"] = [self.images[number] for number in found["images"]]
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
    """Explain the prediction for each held-out image, and look for places that a class relies on.

    Args:
        run: Run folder; a model file is enough if `data` is given.
        data: As in `labeled_images`.
        method: Name of a method.
        max_images: If there are more images, this many are drawn at random, always the same ones.
        device: Where to compute.
        listener: Receives the progress.

    Raises:
        UnknownNameError: There is no such method.
        VitreousError: As in `labeled_images`.
    """
    run, explain = expanded(run), method_named(method)
    predictor = Predictor.load(run, device)
    found = labeled_images(run, predictor, data, listener=listener)
    indices = found.indices
    if len(indices) > max_images:
        indices = np.sort(np.random.default_rng(0).choice(indices, max_images, replace=False))
    store = load_store(found.source, indices, predictor.preprocess, progress=progress_to(listener, "decoding"))
    listener("skipped", {"skipped": store.skipped})
    loader = EvalLoader(store.to(device), predictor.preprocess, BATCH_SIZE)
    progress = progress_to(listener, "explaining")
    values, predicted = [np.zeros((0, 0, 0))], [np.zeros(0, dtype=np.int64)]
    for number, batch in enumerate(loader):
        with torch.inference_mode():
            classes = predictor.model(batch.images).argmax(dim=1)
        relevance = explain(predictor.model, batch.images, Target(classes.clone()))
        values.append(relevance.values.cpu().numpy())
        predicted.append(classes.cpu().numpy())
        progress(number + 1, len(loader))
    shortcuts = find_shortcuts(np.concatenate(values[1:] or values), np.concatenate(predicted), predictor.classes)
    names = tuple(found.source.describe(int(index)) for index in store.source_indices)
    return ShortcutCheck(found.name, method, names, shortcuts)


def write_shortcuts(folder: RunFolder, check: ShortcutCheck) -> None:
    """Write `shortcuts.json` into a run folder. Raises SaveError if it could not be written."""
    atomic.write_text(folder.shortcuts, json.dumps(check.as_dict(), indent=1, ensure_ascii=False) + "\n")
