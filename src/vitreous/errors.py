"""A broken rule -> one line that says what was got, the rule, and the way out.

    Exception
    └── VitreousError
        ├── ConfigError (ValueError)            a key, a value, or a combination of them
        │   └── UnknownNameError (KeyError)     a name that is not in a list; the nearest one is suggested
        ├── ShapeError (ValueError)             a tensor that does not fit a module
        ├── DataError (ValueError)              a data set that cannot be trained on
        │   ├── DataNotFoundError (FileNotFoundError)
        │   └── DecodeError                     one file that is not a readable image
        ├── RunError (ValueError)               a run folder, checkpoint or model file
        │   ├── NotARunError (FileNotFoundError)
        │   ├── DamagedFileError                cut short, altered, or not what its name says
        │   └── SaveError (OSError)             a file that could not be written
        ├── NonFiniteError (ArithmeticError)    a loss or gradient that stays NaN or infinite
        └── MissingDependencyError (ImportError)

Messages follow one template: `<key or thing>=<got>: <rule broken>; <way out>`.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class VitreousError(Exception):
    """Root of every error that this project raises deliberately.

    Attributes:
        is_shared: Where several processes work on one run, whether all of them raise it.
    """

    is_shared = False

    def __str__(self) -> str:
        """The message alone, also below `KeyError`, whose own `str` would quote it."""
        return str(self.args[0]) if self.args else ""


class ConfigError(VitreousError, ValueError):
    """A configuration key, value or combination of values that breaks a rule."""


class UnknownNameError(ConfigError, KeyError):
    """A name that is not one of a known list."""


class ShapeError(VitreousError, ValueError):
    """A tensor whose shape a module cannot take."""


class DataError(VitreousError, ValueError):
    """A data set that cannot be used as it is."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data set that is not where it was said or known to be."""


class DecodeError(DataError):
    """A file that does not decode to an image."""


class RunError(VitreousError, ValueError):
    """A run folder, checkpoint or model file that cannot be used."""


class NotARunError(RunError, FileNotFoundError):
    """A path that holds no run and no model."""


class DamagedFileError(RunError):
    """A file that is cut short, altered, or not what its name says."""


class SaveError(RunError, OSError):
    """A file that could not be written; whatever was there before is still there, whole."""


class NonFiniteError(VitreousError, ArithmeticError):
    """Training that met NaN or infinity and could not recover within its bounded retries."""


class MissingDependencyError(VitreousError, ImportError):
    """An optional package that the request needs."""


def nearest(got: str, known: Iterable[str]) -> str:
    """The way out of an unknown name: `did you mean …?` where one is near, else the list.

    Args:
        got: The name that was not found.
        known: The names that exist.

    Returns:
        A clause that ends an error message.
    """
    names = sorted(known)
    matches = get_close_matches(got, names, n=1, cutoff=0.6)
    if matches:
        return f"did you mean {matches[0]}?"
    shown = ", ".join(names[:12]) + (f", … ({len(names)} in all)" if len(names) > 12 else "")
    return f"use one of {shown}"
