"""`vitreous embed` -> features of images in a file; nearest images, near-duplicates and clusters as tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import Parameter

from vitreous.cli.options import Assignments, Count, architecture_of
from vitreous.cli.screen import Screen, print_table
from vitreous.errors import ConfigError, DecodeError
from vitreous.model.weights.table import Hints
from vitreous.recipe.keys import checked
from vitreous.training.machine.device import resolve_device
from vitreous.use.embed.embedder import Embedder
from vitreous.use.embed.embeddings import Embeddings, check_clusters, check_top
from vitreous.use.embed.files import check_embeddings_path, table_path, write_embeddings
from vitreous.use.predict.inputs import list_images, unreadable_text
from vitreous.use.predict.table import write_csv
from vitreous.wording import plural

_MOST_ROWS = 40
"""Rows of a table on the screen; the file has all."""

Rows = list[tuple[str, ...]]


def embed(
    model: str,
    images: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    out: Path | None = None,
    nearest: Annotated[tuple[Path, ...], Parameter(negative="", consume_multiple=False)] = (),
    top: Count = 10,
    duplicates: Annotated[bool, Parameter(negative="")] = False,
    clusters: Count | None = None,
    img_size: str | None = None,
    device: str = "auto",
    weights: str = "auto",
    assignments: Assignments = (),
) -> None:
    """Describe images by the features of a model, the input of its head, and find images that are similar.

    Args:
        model: A run folder, weights in any supported format, or hf://organization/name.
        images: Image files, or folders of them.
        out: Write the features to a .npy file, such as photos.npy, and the paths to photos.paths.csv; or both to a
            .parquet file. The tables of the options below are written next to it, e.g. photos.clusters.csv.
        nearest: An image; list the images that are most similar to it. May be repeated.
        top: Number of images to list for --nearest.
        duplicates: List groups of images that are probably versions of one picture.
        clusters: Divide the images into this number of clusters.
        img_size: Pixels, e.g. 224 or 224x168 (height x width); default: that of the run, and of other weights up to 256
            patches.
        device: auto, cpu, cuda, cuda:1 or mps.
        weights: For the checkpoint of a training run: raw, ema (an average or a teacher), auto (ema if there is one),
            or the name of a part. What no tensor shows is set with options such as --architecture.num_heads 4.
        assignments: `--architecture.key value` options, as `main` rewrites them.
    """
    if out is None and not nearest and not duplicates and clusters is None:
        raise ConfigError("out=None: nothing to do; use --out FILE, --nearest IMAGE, --duplicates or --clusters NUMBER")
    if out is not None:
        check_embeddings_path(out)
    files, queries = list_images(images), list_images(nearest)
    check_top(top)
    if clusters is not None:
        check_clusters(clusters, len(files))
    size = None if img_size is None else checked({"data.img_size": img_size})["data.img_size"]
    hints = Hints(architecture=architecture_of(assignments), weights=weights)
    with Screen() as screen:
        embedder = Embedder.load(model, img_size=size, hints=hints, device=resolve_device(device))
        screen.say_notes(f"{model} {note}" for note in embedder.notes)
        asked = embedder.embed(queries)
        if asked.errors:
            raise DecodeError(unreadable_text(asked.errors, len(queries), "looked for"))
        found = embedder.embed(files, len(files), screen.listen)
        if found.names:
            if out is not None:
                written = " and ".join(map(str, write_embeddings(out, found)))
                count = f"{plural(len(found.names), 'image')}, {found.vectors.shape[1]:,} features each"
                screen.say(f"{count}, in {written}")
            for table in _tables(found, asked, top, duplicates, clusters):
                _show_table(screen, *table, out)
    if found.errors:
        raise DecodeError(unreadable_text(found.errors, len(files), "embedded"))


def _show_table(screen: Screen, what: str, title: str, rows: Rows, shown: Rows, out: Path | None) -> None:
    """Print the beginning of `shown`, and write `rows` if there is a place for them."""
    screen.say(f"\n{title}", style="bold")
    print_table(screen.console, shown[: 1 + _MOST_ROWS], numbers_from=len(shown[0]))
    if len(shown) > 1 + _MOST_ROWS:
        screen.say(f"and {len(shown) - 1 - _MOST_ROWS:,} more{'' if out else '; --out FILE writes all'}")
    if out is not None:
        write_csv(table_path(out, what), rows)
        screen.say(f"{plural(len(rows) - 1, 'row')} in {table_path(out, what)}")


def _tables(
    found: Embeddings, asked: Embeddings, top: int, duplicates: bool, clusters: int | None
) -> Iterator[tuple[str, str, Rows, Rows]]:
    """Yield name, title, rows for the file and rows for the screen of each table; their first row has the headings."""
    if asked.names:
        nearest: Rows = [("query", "similarity", "path")]
        for query, *pairs in zip(asked.names, *found.nearest(asked.vectors, top), strict=True):
            nearest += [(query, f"{cosine:.4f}", found.names[row]) for row, cosine in zip(*pairs, strict=True)]
        yield "nearest", "most similar images, by the cosine similarity of their features", nearest, nearest
    if duplicates:
        groups = found.near_duplicates()
        copies: Rows = [("group", "path")]
        copies += [(f"{number}", found.names[row]) for number, group in enumerate(groups, 1) for row in group]
        title = f"{plural(len(groups), 'group')} of probable near-duplicates; check them before you delete any"
        yield "duplicates", title, copies, copies
    if clusters is not None:
        numbers, typical = found.clusters(clusters)
        rows: Rows = [(f"{number}", found.names[row]) for row, number in enumerate(numbers)]
        sizes = np.bincount(numbers, minlength=clusters)
        shown: Rows = [
            (f"{n}", f"{size:,}", found.names[row]) for n, (size, row) in enumerate(zip(sizes, typical, strict=True))
        ]
        title = plural(clusters, "cluster") + ", the largest first"
        yield "clusters", title, [("cluster", "path"), *rows], [("cluster", "images", "most typical image"), *shown]
