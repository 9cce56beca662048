"""Open file -> a lock that its process holds until the file is closed or the process ends, however it ends."""

import time
from pathlib import Path
from types import ModuleType
from typing import IO, Any

_POLL_S = 0.1


class LockedFile:
    """Hold a lock as long as a `with` lasts; where the system or its disk has no locks, hold none.

    Args:
        path: The lock's own file, made where it is not there; it stays.

    Attributes:
        is_locked: False where there are no locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_locked = False

    def __enter__(self) -> "LockedFile":
        """Wait until nobody else holds it."""
        self._file = self._path.open("ab")
        try:
            while not (got := try_lock(self._file)) and got is not None:
                time.sleep(_POLL_S)
        except BaseException:
            self._file.close()
            raise
        self.is_locked = bool(got)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def try_lock(file: IO[Any], *, shared: bool = False) -> bool | None:
    """Lock an open file, without waiting.

    Args:
        file: Which; closing it ends the lock.
        shared: Others may hold shared locks besides.

    Returns:
        Whether the lock is held; None where there are no locks.
    """
    locks = _locks()
    if locks is None:
        return None
    try:
        locks.flock(file, (locks.LOCK_SH if shared else locks.LOCK_EX) | locks.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _locks() -> ModuleType | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl
