"""Open file -> a lock that its process holds until the file is closed or the process ends in any way."""

import time
from pathlib import Path
from types import ModuleType
from typing import IO, Any

_POLL_S = 0.1


class LockedFile:
    """Context manager that holds an exclusive lock on a file, which is created if missing.

    If the system or the disk does not support locks, it holds none, and `is_locked` is False.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.is_locked = False

    def __enter__(self) -> "LockedFile":
        """Wait until no other process holds the lock."""
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


def try_lock(file: IO[Any] | int, *, shared: bool = False) -> bool | None:
    """Lock an open file without waiting; closing the file releases the lock. Shared locks do not exclude each other.

    To lock a folder, pass its descriptor.

    Returns:
        True if the lock is now held; None if locks are not supported.
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
