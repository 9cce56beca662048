"""`vitreous push` -> a model on the Hugging Face hub, after its files were listed and the upload was confirmed."""

import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from vitreous.cli.options import AsJson, Switch
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.errors import ConfigError
from vitreous.use.export.hub.push import SAME, Package, packed
from vitreous.wording import listed, plural


def push(
    run: Path,
    to: str,
    /,
    *,
    private: Switch = False,
    with_report: Switch = False,
    yes: Switch = False,
    as_json: AsJson = False,
) -> None:
    """Upload a model to the Hugging Face hub. Its files are listed first, and nothing is sent without consent.

    Args:
        run: Folder of a finished run, or a model.safetensors file.
        to: hf://organization/name; the repository is created if there is none.
        private: Make a new repository private.
        with_report: Also upload report.html, which shows photos of the data.
        yes: Upload without asking.
        as_json: Print one JSON document instead of text.
    """
    screen = Screen(stderr=as_json)
    with packed(run, to, with_report=with_report) as package:
        states = _list(screen, package, with_report=with_report)
        if not yes and set(states.values()) != {SAME}:
            _ask(screen, package, private=private)
        from huggingface_hub.utils.tqdm import disable_progress_bars  # `packed` has checked that it is installed

        with nullcontext() if screen.console.is_terminal else disable_progress_bars():
            done = package.upload(private=private)
    if as_json:
        print_json(asdict(done))
        return
    sent = f"{plural(len(done.sent), 'file')} sent, and all compared with what the hub has"
    screen.say(f"{done.url}: {sent}", style="bold green")
    screen.say(f"next: vitreous predict {done.source} IMAGE")


def _list(screen: Screen, package: Package, *, with_report: bool) -> dict[str, str]:
    """Show the files, and what the hub has of them; return the latter."""
    states = package.states()
    rows = [("file", "on the hub", "bytes")]
    rows += [(name, states[name], f"{size:,}") for name, size in package.sizes.items()]
    print_table(screen.console, rows, numbers_from=2)
    if package.left:
        screen.say(f"not uploaded: {listed(package.left, 20)}")
    opens = "" if package.library == "vitreous" else f" and {package.library}"
    screen.say(f"opened by vitreous{opens}")
    if with_report:
        screen.say_notes(["report.html shows photos of the data, and names of its files"])
    return states


def _ask(screen: Screen, package: Package, *, private: bool) -> None:
    """Raise ConfigError unless the user agrees."""
    if not sys.stdin.isatty():
        raise ConfigError(f"yes=False: nothing was sent to hf://{package.repo}; add --yes to upload these files")
    who = "a new repository is private" if private else "everyone may read a new repository"
    screen.say(f"upload these files to hf://{package.repo} ({who})? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ConfigError(f"yes=False: nothing was sent to hf://{package.repo}; answer y to upload these files")
