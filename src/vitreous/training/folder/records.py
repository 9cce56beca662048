"""Events of a run -> lines of `records.jsonl`, which are also passed to a listener.

Each line is a JSON object with `kind` and `time` (seconds since 1970). A crash can cut only the last line short, and
readers skip it. A resumed run repeats steps that were lost: if two lines have the same step, the later one is valid.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitreous.errors import SaveError

Listener = Callable[[str, Mapping[str, Any]], None]
"""A function that is called as `listener(kind, fields)` for each record, and for each `progress`, which is not
recorded because there are too many."""


def ignore(kind: str, fields: Mapping[str, Any]) -> None:
    """Do nothing; the default listener."""


class Recorder:
    """A writer that appends records to a file and passes them to a listener.

    Without a path, nothing is recorded or passed on, as for all processes except rank 0.
    """

    def __init__(self, path: Path | None, listener: Listener = ignore) -> None:
        self._path = path
        self._listener = listener
        if path is not None and path.is_file() and not path.read_bytes().endswith(b"\n"):
            self._append(path, "\n")

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Append one line and call the listener. Raises SaveError if the line cannot be written."""
        if self._path is None:
            return
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **_finite(fields)}, ensure_ascii=False)
        self._append(self._path, line + "\n")
        self._listener(kind, fields)

    def show(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Call only the listener, for events that are too frequent to be recorded."""
        if self._path is not None:
            self._listener(kind, fields)

    def _append(self, path: Path, text: str) -> None:
        try:
            # Undecodable file names contain lone surrogates; written as escapes, JSON restores them.
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise SaveError(f"{path}: could not be written ({error.strerror}); free some space") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return all complete records of a file, oldest first; skip a line that a crash cut short."""
    records = []
    # Not splitlines(): it also splits at characters such as U+2028, which JSON leaves unescaped in strings.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and "kind" in content:
            records.append(content)
    return records


def _finite(value: Any) -> Any:
    """Replace NaN and infinity by text at any depth, because JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
