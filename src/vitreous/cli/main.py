"""Words on the command line -> exit code: 0 done, 1 failed, 2 a user's mistake, 130 interrupted by Ctrl-C."""

import io
import os
import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError, MissingArgumentError, UnknownOptionError, UnusedCliTokensError
from rich.console import Console

from vitreous import __version__, processes
from vitreous.errors import NonFiniteError, UnknownNameError, VitreousError, nearest
from vitreous.heap import keep_freed_memory
from vitreous.threads import let_threads_sleep

_TRAIN_HELP = """Train a model on a folder of images, or on a named set.

Without options everything is chosen from the data: model, image size, length, augmentation; `plan.md` says why.
Every key of the configuration is an option too, e.g. `--optim.lr 3e-4 --data.flip false`; `--help-keys`
lists them all.
"""

COMMANDS = {
    "train": (_TRAIN_HELP, "[DATA]"),
    "evaluate": ("Score a trained model on held-out or other images.", "RUN [DATA]"),
    "compare": ("Tell which of two runs or series is better, and how sure that is.", "RUN_A RUN_B"),
    "predict": ("Classify images with a trained model.", "RUN IMAGE|FOLDER…"),
    "inspect": ("Look at a run, a data set, a file of weights, or a model by name.", "RUN|DATA|WEIGHTS|MODEL"),
    "shard": ("Write labelled images into tar files, in WebDataset's layout.", "DATA OUT"),
    "convert": ("Write weights as timm, transformers, torchvision or Google's code names them.", "WEIGHTS --to FORMAT"),
}
"""Each with its help and what it takes; `<name>.py` has the function."""

app = App(
    name="vitreous",
    help="Train a Vision Transformer on your own images, see how good it is, use it.",
    help_format="markdown",
    help_epilogue="`--debug` with any command shows the traceback of an error.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
# Commands are imported when they are called: `vitreous --help` does not wait for torch.
for _name, (_help, _usage) in COMMANDS.items():
    app.command(f"vitreous.cli.{_name}:{_name}", help=_help, usage=f"Usage: vitreous {_name} {_usage} [OPTIONS]")


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        tokens: Words after `vitreous`; None takes those of the process.

    Returns:
        The exit code.
    """
    let_threads_sleep()
    keep_freed_memory()
    words = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words[:1] in (["train"], ["convert"]):
        words = spell_out_keys(words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that this terminal cannot write must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        _check_command(words)
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except VitreousError as error:
        code = 1 if isinstance(error, NonFiniteError) else 2
        # What all of several processes met, the first one says.
        return code if error.is_shared and processes.rank() else _complain(str(error), code, debug)
    except CycloptsError as error:
        return _complain(_explain(error), 2, debug)
    except KeyboardInterrupt as error:
        code = 128 + getattr(error, "signal_number", 2)
        return code if processes.rank() else _complain(str(error) or "interrupted", code, debug)
    except BrokenPipeError:  # `vitreous … | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            return _complain(_fault(error), 1, debug)
        return _complain(f"{error.filename}: {error.strerror}; check the path and your rights to it", 2, debug)
    except Exception as error:
        return _complain(_fault(error), 1, debug)
    return 0


def spell_out_keys(words: Sequence[str]) -> list[str]:
    """`--room.key value` and `--room.key=value` as `--set room.key=value`: the keys are many and checked elsewhere."""
    spelled: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not re.fullmatch(r"--[a-z]+\.[\w.-]+", name):
            spelled.append(word)
            continue
        if not equals:  # a key alone is a switch that is turned on
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        spelled.append(f"--set={name[2:].replace('-', '_')}={value}")
    return spelled


def _check_command(words: Sequence[str]) -> None:
    """Raise UnknownNameError for a command that there is not; the parser would import all of them to say so."""
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise UnknownNameError(f"{words[0]}: no such command; {nearest(words[0], COMMANDS)}")


def _explain(error: CycloptsError) -> str:
    """The parser's error with a way out where it names none."""
    command = " ".join(["vitreous", *(error.command_chain or ())])
    if isinstance(error, UnusedCliTokensError):
        first = (error.unused_tokens or [""])[0]
        return f"{first}: one word more than `{command}` takes; put a name with spaces in quotes, or see --help"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        missing = "needs a value" if error.keyword else f"is needed by `{command}`"
        return f"{error.keyword or error.argument.name}: {missing}; see `{command} --help`"
    if isinstance(error, UnknownOptionError) and command == "vitreous train":
        from vitreous.recipe.keys import keys_named

        asked = str(error.token.keyword)
        keys = [f"--{key}" for key in keys_named(asked.lstrip("-").replace("-", "_"))]
        if keys:
            return f"{asked}: no such option; did you mean {' or '.join(keys)}?"
    return " ".join(str(error).split())


def _fault(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}; this is a fault of vitreous, --debug shows where".split())


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    Console(stderr=True, soft_wrap=True, highlight=False, emoji=False).print(message, style="red", markup=False)
    return code
