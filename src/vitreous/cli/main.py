"""Command-line words -> exit code: 0 for success, 1 for a failure, 2 for a user's mistake, 130 for Ctrl-C."""

import errno
import io
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    RepeatArgumentError,
    UnknownOptionError,
    UnusedCliTokensError,
)
from rich.console import Console

from vitreous import __version__, processes
from vitreous.cli.next_steps import next_steps
from vitreous.errors import ClippedWarning, NonFiniteError, UnknownNameError, VitreousError, nearest
from vitreous.extensions import IMPORTED, import_file
from vitreous.heap import keep_freed_memory
from vitreous.threads import let_threads_sleep
from vitreous.wording import printable

_python_shows_warning = warnings.showwarning

COMMANDS = {
    "train": ("Train a model on a folder of images or on a named data set.", "[DATA]"),
    "pretrain": ("Learn from images without labels; `train --pretrained RUN` continues from there.", "DATA"),
    "evaluate": ("Score a trained model on its held-out images or on other images.", "RUN [DATA]"),
    "compare": ("Compare two runs or series on the images that both were tested on.", "RUN_A RUN_B"),
    "predict": ("Classify images with a trained model.", "RUN IMAGE|FOLDER|TABLE|TAR…"),
    "explain": ("Show which parts of images raise the score of a class.", "RUN [IMAGE|FOLDER…]"),
    "export": (
        "Write a file that gives a model's answers without vitreous: ONNX, OpenVINO, torch, html, transformers, timm.",
        "RUN --to FORMAT",
    ),
    "benchmark": ("Compare the speed of runs and exported files on this machine.", "RUN|FILE…"),
    "push": ("Upload a model to the Hugging Face hub; its files are listed first.", "RUN hf://ORGANIZATION/NAME"),
    "report": ("Write the report of a run again, or a page that compares several runs.", "RUN…"),
    "serve": ("Answer requests for predictions over HTTP, with a page for people.", "RUN…"),
    "embed": ("Describe images by the features of a model, and find similar images.", "MODEL IMAGE|FOLDER…"),
    "inspect": ("Show what a run, a data set, a weights file or a named model contains.", "RUN|DATA|WEIGHTS|MODEL"),
    "shard": ("Write labeled images into tar files in WebDataset's layout.", "DATA OUT"),
    "models": ("List backbones to start from, or download one.", "[get NAME]"),
    "env": ("Check this installation and the speed of this machine.", ""),
    "completion": ("Print a script with which a shell completes commands, options and names.", "bash|zsh|fish"),
    "convert": ("Convert weights for timm, transformers, torchvision or Google's code.", "WEIGHTS --to FORMAT"),
}
"""Short help and arguments of each command."""

_FOLDERS = {
    "train": ("train", "pretrain", "shard", "models"),
    "look": ("inspect", "evaluate", "compare", "predict", "embed", "explain", "report"),
    "ship": ("export", "benchmark", "push", "serve", "convert"),
}
"""Where the functions of commands are, each in a file or folder of its name; the others are next to this file."""

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

app = App(
    name="vitreous",
    help="Train a Vision Transformer on your own images, see how good it is, use it.",
    help_format="markdown",
    help_epilogue=(
        "With any command, `--debug` shows the traceback of an error, and `--import FILE` first runs a Python file of "
        "yours that calls `vitreous.register`."
    ),
    version=__version__,
    default_parameter=Parameter(json_list=False, json_dict=False),  # the name of a file may look like JSON
    suppress_keyboard_interrupt=False,
)
# Commands are imported on their first call, so that `vitreous --help` does not wait for torch.
for _name, (_help, _usage) in COMMANDS.items():
    _folder = next((f".{folder}" for folder, names in _FOLDERS.items() if _name in names), "")
    app.command(
        f"vitreous.cli{_folder}.{_name}:{_name}",
        help=_help,
        usage=" ".join(f"Usage: vitreous {_name} {_usage} [OPTIONS]".split()),
    )


def command(name: str) -> App:
    """Import a command, whose help becomes the docstring of its function instead of one line."""
    found = app[name]
    found.help = None
    return found


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code. `tokens` are the words after `vitreous`, by default of this process."""
    # Both change the whole process and its child processes. That is right for a command but not for a library call.
    let_threads_sleep()
    keep_freed_memory()
    words = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    words, imported = without_imports(words)
    if words[:1] in (["train"], ["pretrain"], ["convert"], ["inspect"], ["embed"], ["explain"]):
        words = spell_out_keys(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # characters that the terminal cannot show become escapes
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]  # the rest is passed on as it is
    try:
        _import(imported)
        _check_command(words)
        if words:
            if words[0] in COMMANDS:
                command(words[0])
            app(words, exit_on_error=False, print_error=False, result_action="return_value")
        else:
            next_steps()
        if sys.stdout is not None:  # None if it was closed before the start
            sys.stdout.flush()
    except VitreousError as error:
        code = 1 if isinstance(error, NonFiniteError) else 2
        # An error that all processes of a run share is reported by the first one.
        return code if error.is_shared and processes.rank() else _complain(str(error), code, debug)
    except CycloptsError as error:
        return _complain(_explain(error), 2, debug)
    except KeyboardInterrupt as error:
        code = 128 + getattr(error, "signal_number", 2)
        return code if processes.rank() else _complain(str(error) or "interrupted", code, debug)
    except BrokenPipeError:  # the reader has stopped, as in `vitreous … | head`
        _discard_output()
        return 1
    except OSError as error:
        if error.filename is None and error.errno in _UNWRITABLE:
            _discard_output()
            return _complain(f"standard output: could not be written ({error.strerror}); send it elsewhere", 1, debug)
        if error.filename is None:
            return _complain(_bug(error), 1, debug)
        return _complain(f"{error.filename}: {error.strerror}; check the path and its permissions", 2, debug)
    except Exception as error:
        return _complain(_bug(error), 1, debug)
    return 0


def _import(files: Sequence[str]) -> None:
    """Run Python files of the user, and let the processes that this one starts know them."""
    paths = [Path(file).expanduser().absolute() for file in files]
    for path in paths:
        import_file(path)
    if paths:
        os.environ[IMPORTED] = os.pathsep.join(map(str, paths))


def without_imports(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words without `--import FILE`, and the files."""
    kept, files, rest = list[str](), list[str](), list(words)
    while rest:
        word = rest.pop(0)
        if word == "--import":
            files.append(rest.pop(0) if rest else "")
        elif word.startswith("--import="):
            files.append(word.partition("=")[2])
        else:
            kept.append(word)
    return kept, files


def spell_out_keys(words: Sequence[str]) -> list[str]:
    """Rewrite `--room.key value` and `--room.key=value` as `--set=room.key=value`.

    The command-line parser does not know the configuration keys: they are many, and `recipe.keys` checks them.
    """
    spelled: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"--[a-z]+\.[\w.-]+", name):
            spelled.append(word)
            continue
        if not equals:  # a key without a value is a switch
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        spelled.append(f"--set={name[2:].replace('-', '_')}={value}")
    return spelled


def _check_command(words: Sequence[str]) -> None:
    """Raise UnknownNameError for an unknown command; the parser would import all commands to report it."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise UnknownNameError(f"{words[0]}: no such command; {nearest(words[0], COMMANDS)}")


def _explain(error: CycloptsError) -> str:
    """Return the parser's message, completed with what to do."""
    command = " ".join(["vitreous", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or [""])[0]
        return f"{first}: unexpected argument of `{command}`; quote names that contain spaces, or see --help"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        missing = "needs a value" if error.keyword else f"missing argument of `{command}`"
        return f"{error.keyword or error.argument.name}: {missing}; see `{command} --help`"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword}: given more than once; give it once"
    if isinstance(error, UnknownOptionError) and command in ("vitreous train", "vitreous pretrain"):
        from vitreous.recipe.keys import keys_named

        option = error.token.keyword or error.token.value
        keys = [f"--{key}" for key in keys_named(option.lstrip("-").replace("-", "_"))]
        if keys:
            return f"{option}: no such option; did you mean {' or '.join(keys)}?"
    if isinstance(error, CoercionError) and error.argument is not None and error.token is not None:
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        types = (error.target_type, *get_args(error.target_type))  # those of `int | None` are int and NoneType
        choices = [name for each in types if get_origin(each) is Literal for name in get_args(each)]
        kind = " or ".join(choices) or next((text for each, text in kinds.items() if each in types), "of another type")
        return f"{error.argument.name}={printable(error.token.value)}: must be {kind}; see `{command} --help`"
    message = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError):
        option, near = error.token.keyword or error.token.value, message.partition("Did you mean ")[2].strip("?. ")
        is_near = get_close_matches(option.lstrip("-"), [near.lstrip("-")])  # the parser compares the dashes, too
        way_out = f"did you mean {near}?" if is_near else f"see `{command} --help`"
        return f"{option}: no such option; {way_out}"
    return message if "?" in message else f"{message.removesuffix('.')}; see `{command} --help`"


def _discard_output() -> None:
    """Send what is left in the buffer of standard output nowhere, or Python would fail to write it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}; this is a bug in vitreous, --debug shows where".split())


def _show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any) -> None:
    """Show our own warnings in one line, and those of other libraries as Python does."""
    if category.__module__ == ClippedWarning.__module__:
        Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(
            f"warning: {message}", style="yellow", markup=False
        )
    else:
        _python_shows_warning(message, category, filename, lineno, *rest)


def _complain(message: str, code: int, debug: bool) -> int:
    with suppress(OSError):  # standard error may be unwritable too; the exit code remains
        if debug:
            traceback.print_exc()
        Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(message, style="red", markup=False)
    return code
