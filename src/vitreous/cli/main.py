"""Words on the command line -> exit code: 0 done, 1 failed, 2 a user's mistake, 130 interrupted by Ctrl-C."""

import re
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError
from rich.console import Console

from vitreous.errors import NonFiniteError, VitreousError
from vitreous.version import __version__

app = App(
    name="vitreous",
    help="Train a Vision Transformer on your own images, see how good it is, use it.",
    help_format="markdown",
    help_epilogue="`--debug` with any command shows the traceback of an error.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
# Commands are imported when they are called: `vitreous --help` does not wait for torch.
app.command("vitreous.cli.train:train", help="Train a model on a folder of images, or on a named set.")
app.command("vitreous.cli.evaluate:evaluate", help="Score a trained model on held-out or other images.")
app.command("vitreous.cli.predict:predict", help="Classify images with a trained model.")
app.command("vitreous.cli.inspect:inspect", help="Look at a run, a data set, or a model by name.")


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        tokens: Words after `vitreous`; None takes those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    if words[:1] == ["train"]:
        words = spell_out_keys(words)
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except VitreousError as error:
        return _complain(str(error), 1 if isinstance(error, NonFiniteError) else 2, debug)
    except CycloptsError as error:
        return _complain(" ".join(str(error).split()), 2, debug)
    except KeyboardInterrupt as error:
        return _complain(str(error) or "interrupted", 128 + getattr(error, "signal_number", 2), debug)
    except BrokenPipeError:  # `vitreous … | head` has read enough
        sys.stderr.close()
        return 0
    except Exception as error:
        text = f"{type(error).__name__}: {error}; this is a fault of vitreous, --debug shows where"
        return _complain(" ".join(text.split()), 1, debug)
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


def _complain(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    Console(stderr=True, soft_wrap=True, highlight=False).print(message, style="red", markup=False)
    return code
