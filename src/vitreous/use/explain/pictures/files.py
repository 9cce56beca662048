"""Explanations -> a folder: pictures, contact sheets, values.npz and explanations.json; complete or absent."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vitreous import atomic
from vitreous.errors import ConfigError
from vitreous.paths import as_path, portable
from vitreous.training.folder.access import create_numbered
from vitreous.use.explain.methods import METHODS
from vitreous.use.explain.pictures.contact_sheet import SIDE_PX, Strip, draw_sheet, strips_on_sheet
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.explain.pictures.figure import PANEL_PX, encoded
from vitreous.wording import printable

_LONGEST, _LONGEST_BYTES = 80, 160
"""Characters, and bytes, that a picture takes from the name of its image. File systems allow 255 bytes."""


@contextmanager
def folder_for(out: Path | None) -> Iterator[Path]:
    """Yield the folder to write: `out`, or the next one of `explanations-1`, `explanations-2` and so on.

    The latter is created at once, so that no other process takes it, and removed if nothing is written to it.

    Raises:
        ConfigError: `out` is a file, or a folder that is not empty.
        SaveError: No folder could be created.
    """
    if out is not None:
        out = as_path("out", out)
        if out.is_dir() and any(out.iterdir()):
            raise ConfigError(f"out={out}: is not empty; choose a new folder")
        if out.exists() and not out.is_dir():
            raise ConfigError(f"out={out}: is a file; choose a new folder")
        yield out
        return
    folder = create_numbered(Path(), "explanations")
    try:
        yield folder
    finally:
        with suppress(OSError):  # it is not empty
            folder.rmdir()


def write_explanations(folder: Path, explanations: Iterable[Explanation], header: Mapping[str, Any]) -> dict[str, Any]:
    """Write a folder, while the explanations are computed, image by image and all with the same methods.

    Returns:
        The content of `explanations.json`, which begins with `header`.

    Raises:
        SaveError: The folder could not be written; then it does not exist.
    """
    content: dict[str, Any] = {}
    atomic.create_folder(folder.absolute().parent)
    atomic.write_folder(folder, lambda temporary: content.update(_fill(temporary, explanations, header)))
    return content


def _fill(folder: Path, explanations: Iterable[Explanation], header: Mapping[str, Any]) -> dict[str, Any]:
    entries, arrays, strips = list[dict[str, Any]](), dict[str, list[Any]](), list[Strip]()
    taken, sheets = set[str](), count(1)
    for group in _by_image(explanations):
        photo = None if group[0].unreadable else group[0].photo(at_least=(PANEL_PX, PANEL_PX))
        for explanation in group:
            picture = ""
            if photo is not None:
                picture = _picture_name(explanation, len(group) > 1, taken)
                (folder / picture).write_bytes(encoded(explanation.plot(photo)))
                _append(arrays, explanation)
            entries.append({**explanation.as_dict(), "picture": picture})
        strips.append(_strip(group, photo))
        if len(strips) >= strips_on_sheet(max(len(strip.pictures) for strip in strips)):
            draw_sheet(strips).save(folder / f"sheet-{next(sheets)}.png")
            strips.clear()
    if strips:
        draw_sheet(strips).save(folder / f"sheet-{next(sheets)}.png")
    stacked: dict[str, Any] = {name: np.array(rows) for name, rows in arrays.items()}
    np.savez_compressed(folder / "values.npz", **stacked)
    used = dict.fromkeys(entry["method"] for entry in entries if entry["method"])
    methods = {name: {"label": METHODS[name].label, "summary": METHODS[name].summary} for name in used}
    content = {**header, "methods": methods, "explanations": entries}
    (folder / "explanations.json").write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")
    return content


def _by_image(explanations: Iterable[Explanation]) -> Iterator[list[Explanation]]:
    """Group the explanations of an image, which follow each other."""
    group: list[Explanation] = []
    for explanation in explanations:
        if group and (explanation.image != group[0].image or explanation.method in {e.method for e in group}):
            yield group
            group = []
        group.append(explanation)
    if group:
        yield group


def _picture_name(explanation: Explanation, names_method: bool, taken: set[str]) -> str:
    """Return a file name for the figure of an explanation that is not in `taken`, and add it there."""
    stem = re.sub(r"[^\w ().-]", "_", Path(explanation.image).stem).strip(" .")[:_LONGEST] or "image"
    stem = stem.encode()[:_LONGEST_BYTES].decode(errors="ignore")
    stem = portable(stem) + (f".{explanation.method}" if names_method else "")
    names = chain([stem], (f"{stem}-{number}" for number in count(2)))
    # Some file systems do not distinguish upper and lower case. Names of sheets are kept for sheets.
    name = next(n for n in names if n.lower() not in taken and not re.fullmatch(r"sheet-\d+", n.lower()))
    taken.add(name.lower())
    return f"{name}.png"


def _append(arrays: dict[str, list[Any]], explanation: Explanation) -> None:
    """Append a row to each array of values.npz."""
    values, errors = explanation.values, explanation.errors
    row = {
        **{name: getattr(explanation, name) for name in ("image", "method", "target", "versus")},
        "values": values,
        "errors": np.full_like(values, np.nan) if errors is None else errors,
        "box": explanation.box,
        "token_center": explanation.token_center,
    }
    for name, value in row.items():
        arrays.setdefault(name, []).append(value)


def _strip(group: Sequence[Explanation], photo: Image.Image | None) -> Strip:
    """Return small pictures of an image: the photo, and an overlay for each method."""
    first, name = group[0], printable(Path(group[0].image).name)
    if photo is None:
        return Strip(f"{name}: could not be read", (), ())
    pictures = [explanation.pictures(SIDE_PX, photo) for explanation in group]
    title = f"{name}: {printable(first.prediction) or 'no label'} ({first.probability:.1%})"
    captions = ["photo", *(_caption(explanation) for explanation in group)]
    return Strip(title, [pictures[0][0], *(overlay for _, overlay in pictures)], captions)


def _caption(explanation: Explanation) -> str:
    label = METHODS[explanation.method].label
    against = f" against {printable(explanation.versus)}" if explanation.versus else ""
    return f"{label}, {printable(explanation.target)}{against}" if explanation.target else label
