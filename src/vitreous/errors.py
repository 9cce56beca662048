"""A broken rule -> one line with the offending value, the rule, and what to do instead.

    Exception
    └── VitreousError
        ├── ConfigError (ValueError)            a key, a value, or a combination of them
        │   ├── UnknownNameError (KeyError)     a name that is not in a list; the nearest one is suggested
        │   └── OpenQuestionError               something about weights that neither file nor user says
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

Messages follow one template: `<key or thing>=<got>: <rule broken>; <what to do>`. Warnings are a UserWarning.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

_MOST_LISTED = 12
"""Maximum number of names for which `nearest` lists all of them."""


class VitreousError(Exception):
    """Root of every error that this project raises deliberately.

    Attributes:
        is_shared: True if, of several processes that work on one run, all raise this error.
    """

    is_shared = False

    def __str__(self) -> str:
        """Return the message on one line, with control codes escaped: names in it may come from unknown files.

        `KeyError`, a base of some subclasses, would put the message in quotes.
        """
        text = str(self.args[0]) if self.args else ""
        return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


class ConfigError(VitreousError, ValueError):
    """A configuration key, value or combination of values that breaks a rule."""


class UnknownNameError(ConfigError, KeyError):
    """A name that is not in the list of known names."""


class ClippedWarning(UserWarning):
    """Values of images were clipped, because they are beyond the range that becomes black to white."""


class OpenQuestionError(ConfigError):
    """A property of weights that no tensor shows, that cannot be assumed, and that the user did not give.

    `key` is the field of ModelConfig that would answer it; `guess` is a possible value, to see what else is open.
    """

    def __init__(self, message: str = "", key: str = "", guess: object = None) -> None:
        super().__init__(*filter(None, [message]))
        self.key, self.guess = key, guess


class AssumptionWarning(UserWarning):
    """What is assumed about a file of weights; the outputs are wrong if it is not true."""


class PreliminaryWarning(UserWarning):
    """A run that is not finished; the best model that it has so far is used."""


class TrackerWarning(UserWarning):
    """An experiment tracker that failed; the run goes on without it."""


class ShapeError(VitreousError, ValueError):
    """A tensor whose shape a module cannot process."""


class DataError(VitreousError, ValueError):
    """A data set that cannot be used as it is."""


class DataNotFoundError(DataError, FileNotFoundError):
    """A data set that is not at the given or expected place."""


class DecodeError(DataError):
    """A file that does not decode to an image."""


class RunError(VitreousError, ValueError):
    """A run folder, checkpoint or model file that cannot be used."""


class NotARunError(RunError, FileNotFoundError):
    """A path without a run or a model."""


class DamagedFileError(RunError):
    """A file that is cut short, altered, or not what its name says."""


class SaveError(RunError, OSError):
    """A file that could not be written; an earlier version of it is still there, complete."""


class NonFiniteError(VitreousError, ArithmeticError):
    """A NaN or infinity in training that the allowed number of retries did not overcome."""


class MissingDependencyError(VitreousError, ImportError):
    """An optional package that the request needs and that is not installed."""


def optional_module(name: str, needed_by: str, way_out: str) -> Any:
    """Import an optional module. Raises MissingDependencyError, which ends with the way out, if it is missing.

    Raises the same error if it is installed but its import fails, for example because a package that it needs does not
    fit the installed version of PyTorch.
    """
    package = name.partition(".")[0]
    try:
        return import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
            raise MissingDependencyError(f"{needed_by}: needs {package}, which is not installed; {way_out}") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MissingDependencyError(
            f"{needed_by}: {package} is installed, but cannot be imported ({reason}); install {package} and the "
            "packages it needs again, in versions that fit each other"
        ) from error


def without_way_out(error: VitreousError) -> str:
    """Return what is wrong, without the way out after the first semicolon, for a caller that has another one."""
    return str(error).partition("; ")[0]


def nearest(got: str, known: Iterable[str], *, hint: str = "") -> str:
    """Return the end of an error message about an unknown name: the nearest name, or else all names.

    A `hint` replaces the beginning of a long list; it may say how to see all of it.

    Returns:
        `did you mean x?` if a name is near; otherwise all names, or for more than 12 names the hint.
    """
    names = sorted(known)
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    matches = get_close_matches(got, names, n=1, cutoff=0.6)
    if matches:
        return f"did you mean {matches[0]}?"
    if len(names) <= _MOST_LISTED:
        return f"use one of {', '.join(names)}"
    return hint or f"use one of {', '.join(names[:_MOST_LISTED])}, … ({len(names)} in total)"
