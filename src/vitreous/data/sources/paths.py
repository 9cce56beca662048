"""Many paths below one folder -> one buffer of text, so that a million paths take tens of megabytes, not hundreds."""

from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload


class PackedPaths(Sequence[Path]):
    """A sequence of paths that creates each `Path` object only when it is requested.

    Args:
        root: The folder that relative paths are relative to; absolute paths do not depend on it.

    Example:
        >>> paths = PackedPaths(Path("photos"))
        >>> paths.append("a cat/1.png")
        >>> len(paths), paths[0].as_posix()
        (1, 'photos/a cat/1.png')
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._texts = bytearray()
        self._ends = array("q", [0])

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

    def text(self, index: int) -> str:
        """Return a path as it was given to `append`. Raises IndexError beyond the last one."""
        number = range(len(self))[index]
        return self._texts[self._ends[number] : self._ends[number + 1]].decode(errors="surrogatepass")
