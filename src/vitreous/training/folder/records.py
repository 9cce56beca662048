"""What happens in a run -> lines of `records.jsonl`, and the same to whoever listens.

One JSON object a line, each with `kind` and `time` (seconds since 1970). A crash can cut only the last line short, and
readers skip it. After a resume the lines of steps that were lost stay: of two lines for one step the later one counts.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vitreous.errors import SaveError

Listener = Callable[[str, Mapping[str, Any]], None]
"""Called as `listener(kind, fields)` for each record, and for the livelier `progress` that is not recorded."""


def ignore(kind: str, fields: Mapping[str, Any]) -> None:
    """The listener of those who do not listen."""


class Recorder:
    """Appends records to a file and passes them on; without a file it does neither: another process does."""

    def __init__(self, path: Path | None, listener: Listener = ignore) -> None:
        self._path = path
        self._listener = listener
        if path is not None and path.is_file() and not path.read_bytes().endswith(b"\n"):
            self._append(path, "\n")

    def record(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Append one line and tell the listener. Raises SaveError where the line cannot be written."""
        if self._path is None:
            return
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **_finite(fields)}, ensure_ascii=False)
        self._append(self._path, line + "\n")
        self._listener(kind, fields)

    def show(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Tell the listener only: too frequent to be worth a line."""
        if self._path is not None:
            self._listener(kind, fields)

    def _append(self, path: Path, text: str) -> None:
        try:
            # File names that are no text have halves of characters in them; JSON reads their escapes back.
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise SaveError(f"{path}: could not be written ({error.strerror}); free some space") from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """All whole records of a file, oldest first; a line that a crash cut short is left out."""
    records = []
    # Not splitlines(): that cuts at characters, such as U+2028, which JSON leaves in texts as they are.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and "kind" in content:
            records.append(content)
    return records


def _finite(value: Any) -> Any:
    """JSON knows no NaN or infinity: those become text, so that every line is valid JSON."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
