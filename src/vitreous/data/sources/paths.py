"""Many paths below one folder -> one buffer of text; a path that does not exist -> why, and how to write it.

In one buffer, a million paths take tens of megabytes, not hundreds.
"""

import hashlib
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from glob import escape
from itertools import islice
from pathlib import Path
from typing import overload
from urllib.parse import unquote

import numpy as np

from vitreous.errors import DataError
from vitreous.wording import listed, plural

_NUM_FOLDERS_TRIED, _NUM_PATHS_TRIED = 100, 16


class PackedPaths(Sequence[Path]):
    """A sequence of paths that creates each `Path` object only when it is requested.

    Relative paths are relative to `root`; absolute paths do not depend on it.

    Example:
        >>> paths = PackedPaths(Path("photos"), ["a cat/1.png"])
        >>> len(paths), paths[0].as_posix()
        (1, 'photos/a cat/1.png')
    """

    def __init__(self, root: Path, texts: Iterable[str] = ()) -> None:
        self.root = root
        self._texts = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.append(text)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return self.root / self.text(index)

    def append(self, text: str) -> None:
        """Add a path, absolute or relative to the root."""
        self._texts += text.encode(errors="surrogatepass")  # an undecodable name contains lone surrogates
        self._ends.append(len(self._texts))

    def add_to(self, digest: "hashlib._Hash") -> None:
        """Add all paths, as they were given to `append`, to a hash."""
        digest.update(self._texts)
        digest.update(self._ends)

    def text(self, index: int) -> str:
        """Return a path as it was given to `append`. Raises IndexError beyond the last one."""
        number = range(len(self))[index]
        return self._texts[self._ends[number] : self._ends[number + 1]].decode(errors="surrogatepass")


def check_some_path_exists(where: str, paths: PackedPaths, folder: Path) -> None:
    """Raise DataError about a wrong root now, not after a million missing files; `folder` is that of the table."""
    tried = np.unique(np.linspace(0, len(paths) - 1, _NUM_PATHS_TRIED, dtype=np.int64)).tolist()
    try:
        if any(paths[number].exists() for number in tried):
            return
        advice = explain_missing(paths.text(0), paths.root, folder)
    except (OSError, ValueError):
        return  # each file is reported when it is read
    found = f"tried {plural(len(tried), 'path')}, and none exists (the first is {paths.text(0)})"
    raise DataError(f"{where}: {found}: {advice}")


def explain_missing(text: str, root: Path, folder: Path) -> str:
    """Explain why a path in a table does not exist, by finding the file that it most likely means.

    `text` is the path as the table has it, relative to `root`; `folder` is that of the table. Return the causes and the
    way out, as the end of an error message.
    """
    if re.match(r"(?!file:)[a-z][a-z0-9+.-]+://", text):
        return "they are addresses; download the images, and write their paths"
    causes, plain = [], text
    if plain.startswith("file:"):
        causes.append("they begin with file:")
        plain = unquote(re.sub(r"^file:(//[^/]*)?", "", plain))
    if plain != plain.strip():
        causes.append("they have blanks around them")
        plain = plain.strip()
    if "\\" in plain:
        causes.append("they have \\ between folders")
        plain = re.sub(r"^\./", "", plain.replace("\\", "/"))
    for base, spelled, cause in _candidates(plain, root, folder):
        ways_out = [f"write them like {spelled}"] if spelled != text else []
        if base == folder != root:
            ways_out.append("leave data.root out")
        elif base != root:
            ways_out.append(f"set data.root={base}")
        return f"{listed([*causes, *filter(None, [cause])])}; {' and '.join(ways_out)}"
    causes.append("no such file was found near the table")
    return f"{listed(causes)}; set data.root to the folder that they are relative to"


def _candidates(plain: str, root: Path, folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield folders and paths in them that exist and may be meant, and what is wrong with the path as it is written."""
    parts = plain.split("/")
    inner = (entry for entry in sorted(islice(root.iterdir(), _NUM_FOLDERS_TRIED)) if entry.is_dir())
    # A path with .. could lead out of a root that is set, which is refused.
    for base in (root,) if ".." in parts else (root, folder, *root.absolute().parents, *inner):
        elsewhere = ["they are relative to another folder"] if base != root else []
        for spelled, cause in _similar(base, plain):
            yield base, spelled, listed([*elsewhere, *cause])
    for tail in ("/".join(parts[start:]) for start in range(1, len(parts))):
        if (root / tail).is_file():
            yield root, tail, "they begin with a folder that does not exist here"


def _similar(base: Path, plain: str) -> Iterator[tuple[str, list[str]]]:
    """Yield a path below a folder if it exists, or else those with another ending or in another case."""
    path = base / plain
    stem = plain.removesuffix(path.name)
    if path.is_file():
        yield plain, []
    for found in sorted(path.parent.glob(f"{escape(path.name)}.*")):
        yield stem + found.name, [f"their ending {found.suffix} is missing"]
    for found in path.parent.iterdir() if path.parent.is_dir() else ():
        if found.name.casefold() == path.name.casefold():
            yield stem + found.name, ["upper and lower case differ"]
