"""Open file -> a lock that its process holds until the file is closed or the process ends in any way."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_POLL_S = 0.1


@contextmanager
def locked_file(path: Path) -> Iterator[bool]:
    """Wait until no other process locks a file, which is created if missing, and lock it inside this context.

    Yield False if the system or the disk does not support locks; then no lock is held.
    """
    with path.open("ab") as file:
        while (got := try_lock(file)) is False:
            time.sleep(_POLL_S)
        yield got is True


def try_lock(file: IO[Any] | int, *, shared: bool = False) -> bool | None:
    """Lock an open file without waiting; closing the file releases the lock. Shared locks do not exclude each other.

    To lock a folder, pass its descriptor.

    Returns:
        True if the lock is now held; None if locks are not supported.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
