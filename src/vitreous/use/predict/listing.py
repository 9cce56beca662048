"""Paths, tables, exports, tar files and addresses -> Listing: images by number, none of which is opened yet."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from vitreous.data.decoding.decode import ImageLike
from vitreous.data.sources.annotations import is_export_name, read_export
from vitreous.data.sources.paths import PackedPaths, check_some_path_exists
from vitreous.data.sources.rows import is_table_name
from vitreous.data.sources.shards.files import is_address, is_shards
from vitreous.data.sources.shards.remote import RemoteImage, download, list_addresses
from vitreous.data.sources.shards.source import Shards, find_images
from vitreous.data.sources.source import as_text, locate
from vitreous.data.sources.table import read_paths
from vitreous.errors import DataNotFoundError
from vitreous.paths import expanded
from vitreous.use.predict.inputs import Stored, images_in
from vitreous.wording import plural

Named = tuple[str, ImageLike | Stored]
"""The name of an image, as tables and messages show it, and what `read_batch` takes."""


class Listing:
    """Images in the order in which they are classified; a million of them take some tens of megabytes.

    Args:
        sections: Paths or addresses, or the images of tar files, one group after the other.
        notes: What was left out of exports, one sentence each.

    Attributes:
        notes: The same, and what was left out of tar files.
    """

    def __init__(self, sections: Sequence[PackedPaths | Shards], notes: Sequence[str] = ()) -> None:
        self._sections = sections
        self._starts = np.cumsum([0, *map(len, sections)])
        shards = [section for section in sections if isinstance(section, Shards)]
        self.notes = [*notes, *(note for section in shards for note in section.notes())]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, number: int) -> Named:
        part, position = locate(self._starts, number)
        section = self._sections[part]
        if isinstance(section, Shards):
            image = section.image(position)
            return image.name, image
        text = section.text(position)
        if is_address(text):
            return as_text(text), RemoteImage(text)
        path = section.root / text
        return as_text(path), path.absolute()

    def __iter__(self) -> Iterator[Named]:
        return (self[number] for number in range(len(self)))

    def digest(self) -> str:
        """Return a hash that changes with the number, the order and the names of the images, and with tar files."""
        digest = hashlib.sha256()
        for section in self._sections:
            if isinstance(section, PackedPaths):
                digest.update(repr(str(section.root)).encode())
                section.add_to(digest)
                continue
            for file, index in zip(section.files, section.indices, strict=True):
                digest.update(repr((file.address, file.size, file.tag)).encode())
                index.names.add_to(digest)
                digest.update(index.offsets)
        return digest.hexdigest()


def list_data(given: Sequence[str]) -> Listing:
    """List images: files, and all images in folders, tables of paths, exports, and tar files, also at fsspec addresses.

    Images in a folder are sorted by path; hidden files and run folders are skipped. Paths in a table are relative to
    its folder. Labels are neither needed nor read. A file that a labeling tool exported gives the images that it
    lists. If a folder has images, its tar files are ignored.

    Raises:
        DataNotFoundError: A path or address does not exist or holds no images.
        DataError: A table, an export or a tar file cannot be read.
        MissingDependencyError: The package for Parquet or for this kind of address is not installed.
    """
    notes: list[str] = []
    return Listing([_remote(name) if is_address(name) else _local(name, notes) for name in given], notes)


def _local(name: str, notes: list[str]) -> PackedPaths | Shards:
    path = expanded(name)
    if path.is_file() and is_export_name(path.name) and (images := read_export(path)) is not None:
        notes += [f"{path}: is read as {images.format}", *images.notes]
        return _packed(images.root, images.paths)
    if path.is_file() and is_table_name(path.name):
        paths = read_paths(path)
        if not is_address(paths.text(0)):
            check_some_path_exists(f"data.source={path}", paths, path.parent)
        return paths
    if not path.is_dir() and is_shards(name):
        return _in_tars(name)
    if path.is_dir():
        try:
            return _packed(path, images_in(path))
        except DataNotFoundError:
            if not is_shards(path):
                raise
            return _in_tars(name)
    if not path.is_file():
        way_out = "give images, folders, tables of paths, exports or tar files"
        raise DataNotFoundError(f"image={name}: no such file or folder; {way_out}")
    return _packed(Path(), [str(path)])


def _remote(address: str) -> PackedPaths | Shards:
    if is_table_name(address):
        with TemporaryDirectory(prefix="vitreous-table-") as folder:
            paths = read_paths(download(address, Path(folder)))
        texts, base = map(paths.text, range(len(paths))), address.rpartition("/")[0]
        return _packed(Path(), [text if is_address(text) else f"{base}/{text}" for text in texts])
    found = [] if address.casefold().endswith(".tar") else list_addresses(address)
    return _packed(Path(), sorted(found)) if found else _in_tars(address)


def _in_tars(name: str) -> Shards:
    shards = find_images(name, labeled=False)
    if not len(shards):
        count = plural(len(shards.files), "tar file")
        raise DataNotFoundError(f"image={name}: no image in {count}; give images, or tar files that hold some")
    return shards


def _packed(root: Path, texts: Sequence[str]) -> PackedPaths:
    """Return paths relative to a folder, which they begin with."""
    paths, prefix = PackedPaths(root), os.path.join(root, "")  # noqa: PTH118  # with the separator at its end
    for text in texts:
        paths.append(text.removeprefix(prefix))
    return paths
