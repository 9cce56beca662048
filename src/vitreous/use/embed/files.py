"""Embeddings -> files: vectors with the paths of their images, and tables of what was found; complete or absent."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vitreous import atomic
from vitreous.use.embed.embeddings import Embeddings
from vitreous.use.predict.table import check_table_path, import_pyarrow, write_csv

SUFFIXES = (".npy", ".parquet")


def check_embeddings_path(path: Path) -> None:
    """Raise ConfigError or MissingDependencyError if embeddings cannot be written, before images are read."""
    check_table_path(path, SUFFIXES, "photos.npy")


def write_embeddings(path: Path, embeddings: Embeddings) -> list[Path]:
    """Write the vectors and the paths of their images, and return the written files; see `check_embeddings_path`.

    A `.parquet` file gets the columns path and embedding; a `.npy` file gets an array `[images, features]` of float32,
    and `NAME.paths.csv` gets the paths, in the order of its rows.

    Raises:
        SaveError: A file could not be written.
    """
    if path.suffix.lower() == ".parquet":
        pyarrow, parquet = import_pyarrow()
        width = embeddings.vectors.shape[1]
        values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(embeddings.vectors.ravel()), width)
        table = pyarrow.table({"path": pyarrow.array(embeddings.names, pyarrow.string()), "embedding": values})
        atomic.write(path, lambda temporary: parquet.write_table(table, temporary))
        return [path]
    paths = table_path(path, "paths")
    write_csv(paths, [("path",), *((name,) for name in embeddings.names)])
    atomic.write(path, lambda temporary: _save(temporary, embeddings.vectors))
    return [path, paths]


def table_path(out: Path, what: str) -> Path:
    """Return the path of a table next to the embeddings, such as `photos.clusters.csv`."""
    return out.with_suffix(f".{what}.csv")


def _save(path: Path, vectors: NDArray[np.float32]) -> None:
    with path.open("wb") as file:  # given a path, np.save would append .npy to the temporary name
        np.save(file, vectors)
