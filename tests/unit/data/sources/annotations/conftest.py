"""A folder with small images, and what its export says about them."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.sources.builders import PIXELS, png

from vitreous.data.sources import FileSource, open_source

Shown = list[tuple[str, object, str]]


@pytest.fixture
def put(tmp_path: Path) -> Callable[[Iterable[str]], Path]:
    """Write different images with these names, and return their folder."""

    def write(images: Iterable[str]) -> Path:
        for number, name in enumerate(images):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(PIXELS[number]))
        return tmp_path

    return write


def write_json(path: Path, content: object) -> Path:
    """Write a JSON file, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def shown(source: FileSource) -> Shown:
    """Return the path below the root, the label or the labels, and the split of each image, sorted by path."""
    names: list[object] = [
        source.classes[label] if label.ndim == 0 else tuple(source.classes[n] for n in label.nonzero()[0])
        for label in source.labels
    ]
    return sorted(
        (source.key(number), name, str(split))
        for number, (name, split) in enumerate(zip(names, source.splits, strict=True))
    )


def opened(path: Path, root: Path | None = None, **options: Any) -> FileSource:
    """Open data whose images are files."""
    source = open_source(path, root, **options)
    assert isinstance(source, FileSource)
    return source
