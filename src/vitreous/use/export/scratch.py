"""A temporary folder on a full disk -> an error that says what helps there."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from vitreous.errors import SaveError, without_way_out

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_WAY_OUT = "free some space, or set TMPDIR to another folder"


@contextmanager
def full_disk_explained(scratch: str) -> Iterator[None]:
    """Context manager in which files are written to a temporary folder.

    Raises:
        SaveError: Its disk is full. The folder is not one that the user named, so no option changes it.
    """
    try:
        yield
    except SaveError as error:
        if not str(error).startswith(scratch):
            raise
        raise SaveError(f"{without_way_out(error)}; {_WAY_OUT}") from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        place = tempfile.gettempdir()
        raise SaveError(f"{place}: a file could not be written there ({error.strerror}); {_WAY_OUT}") from error
