"""Run, perhaps other data -> ModelAnatomy: what the trained model has learned, part by part; a page, pictures, JSON."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from vitreous import atomic
from vitreous.data.sources import Source
from vitreous.errors import ConfigError, DataError, NotARunError
from vitreous.model.weights.reading import hub_names
from vitreous.paths import expanded
from vitreous.training.folder.access import check_free
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain.anatomy.captions import CAPTIONS
from vitreous.use.explain.anatomy.image_parts import of_classes, of_map, of_nearest
from vitreous.use.explain.anatomy.parts import Part, observe_all, of_removal, of_tokens, of_weights
from vitreous.use.explain.sample import Sample
from vitreous.use.explain.trace import evaluating
from vitreous.use.html import markup
from vitreous.use.predict.predictor import Predictor

MOST_IMAGES, MOST_TRAINING = 500, 1_000
_STYLE = "figure { margin: .6rem 0 1rem; } figure img { max-width: 100%; } .finding { font-weight: 600; }"


@dataclass(frozen=True, eq=False)
class ModelAnatomy:
    """What a trained model has learned.

    The parts are in the order of the page.
    """

    run: str
    data: str
    parts: tuple[Part, ...]

    def __getitem__(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Return all findings and numbers as plain values for JSON; NaN becomes None."""
        parts = {part.name: {"finding": part.finding, **(part.numbers or {})} for part in self.parts}
        parts = atomic.plain(parts, digits=6)
        return {"version": 1, "run": self.run, "data": self.data, "parts": parts}

    def save(self, out: str | Path | None = None) -> Path:
        """Write `anatomy.html`, a PNG file for each figure, and `model.json`; all of them or nothing.

        `out` is a new or empty folder. None: `anatomy` in the run folder, to which `vitreous report` makes a link.

        Returns:
            The page.

        Raises:
            ConfigError: `out` is None, but the run is a model file.
            RunError: The folder exists and is not empty.
            SaveError: It could not be written.
        """
        folder = place_of(Path(self.run), out)
        atomic.create_folder(folder.parent)
        atomic.write_folder(folder, self._fill)
        return folder / RunFolder(folder).anatomy.name

    def _fill(self, folder: Path) -> None:
        for part in self.parts:
            part.save(folder / f"{part.name}.png")
        sections = (section for part in self.parts for section in _section(part, folder / f"{part.name}.png"))
        run = RunFolder(Path(self.run))
        title = f"What {run.path.resolve().name} has learned"
        page = markup.page(title, [f"<p>{escape(self.data)}</p>", *sections], _STYLE)
        (folder / run.anatomy.name).write_text(page, "utf-8")
        (folder / "model.json").write_text(json.dumps(self.as_dict(), ensure_ascii=False, indent=1), "utf-8")


def place_of(run: Path, out: str | Path | None) -> Path:
    """Return the folder to write to; raise an error as `ModelAnatomy.save` does, before anything is computed."""
    run = expanded(run)
    if out is None and not run.is_dir():
        shown = hub_names.shown(run)
        raise ConfigError(f"out=None: {shown} is a model file and not a run folder; give a folder for the page")
    folder = RunFolder(run).anatomy.parent if out is None else expanded(out)
    check_free(folder)
    return folder


def explain_model(
    run: Path,
    data: str | Source | None = None,
    *,
    device: torch.device | str = "cpu",
    listener: Listener = ignore,
) -> ModelAnatomy:
    """Look into a trained model.

    `run` is a run folder or a model file. Without `data`, the held-out images of the run are looked at, in any case at
    most `MOST_IMAGES`.

    Raises:
        NotARunError: There is no model at `run`.
        DataNotFoundError: `data` does not exist.
        DataError: `data` has other classes than the model, or no readable image.
    """
    run = expanded(run)
    predictor = Predictor.load(run, device)
    with evaluating(predictor.model) as model:
        sample = _sample(run, predictor, data, None, MOST_IMAGES, listener)
        parts = list(of_weights(model))
        if isinstance(sample, str):
            known = {part.name for part in parts}
            parts += [Part(name, f"needs images: {sample}") for name in CAPTIONS if name not in known]
            return ModelAnatomy(hub_names.shown(run), sample, tuple(parts))
        seen = observe_all(sample, listener)
        parts += [*of_tokens(seen, sample), of_removal(sample, listener), of_map(seen, sample)]
        train = _sample(run, predictor, None, "train", MOST_TRAINING, listener)
        parts.append(of_nearest(seen, sample, train, listener))
        parts.append(of_classes(sample, listener))
    total = "" if len(sample) == sample.total else f" of {sample.total:,}"
    return ModelAnatomy(hub_names.shown(run), f"{sample.name}: {len(sample):,}{total} images", tuple(parts))


def _sample(
    run: Path, predictor: Predictor, data: str | Source | None, split: str | None, most: int, listener: Listener
) -> Sample | str:
    """Draw images of the run or of `data`; if the run has none, return why."""
    try:
        images = labeled_images(run, predictor, data, split=split, listener=listener)
        return Sample.draw(images, predictor, most, listener=listener)
    except (NotARunError, DataError) as error:
        if data is not None:
            raise
        reason = str(error).partition(";")[0]
        return f"{reason}; give labeled images: `vitreous explain {quote(hub_names.shown(run))} DATA --model`"


def _section(part: Part, picture: Path) -> Sequence[str]:
    caption = CAPTIONS[part.name]
    heading = f"<h2>{escape(caption.title)}</h2>"
    if part.numbers is None:
        return [heading, f"<p>Not shown: {escape(part.finding)}.</p>"]
    image = ""
    if part.figure is not None:
        content = base64.b64encode(picture.read_bytes()).decode()
        image = (
            f'<figure><img src="data:image/png;base64,{content}" alt="{escape(caption.title)}"></figure>'
            f"<p>{escape(caption.shown)}</p>"
        )
    return [
        heading,
        f'<p class="finding">{escape(part.finding[:1].upper() + part.finding[1:])}.</p>',
        image,
        f"<p><b>Normal:</b> {escape(caption.normal)} <b>Warning sign:</b> {escape(caption.warning)}</p>",
        f"<p><small>Source: {escape(caption.source)}.</small></p>",
    ]
