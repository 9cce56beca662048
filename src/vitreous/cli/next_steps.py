"""The working folder -> what to type in it: commands for its newest run, for its photos, or the first steps."""

import os
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from shlex import quote

from rich.console import Console

from vitreous.errors import VitreousError
from vitreous.file_locks import try_lock
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.wording import plural, visible

Commands = list[tuple[str, str]]
"""Commands, each with its purpose."""

_MOST_ENTRIES, _MOST_FOLDERS, _MOST_CLASSES = 1_000, 100, 20
"""Of a folder, its subfolders, and their subfolders: how many are looked at, because this must not take long."""
_MOST_SHOWN = 3
_FIRST_STEPS: Commands = [
    ("vitreous train digits", "train on handwritten digits, which need no download, in about a minute"),
    ("vitreous models", "list pretrained backbones to start from"),
    ("vitreous env", "check this installation and the speed of this machine"),
]


def next_steps() -> None:
    """Print commands that work in this folder as they are printed."""
    console = Console(soft_wrap=True, highlight=False, emoji=False)
    found = list(_found())
    if not any(commands for _, commands in found):
        found += [("first steps:", _FIRST_STEPS)]
        found += [("your own photos: put those of each class into a folder, such as photos/cat and photos/dog", [])]
    found += [("more:", [("vitreous --help", "list all commands")])]
    width = max(len(command) for _, commands in found for command, _ in commands)
    for title, commands in found:
        console.print(visible(title), style="bold", markup=False)
        for command, purpose in commands:
            console.print(visible(f"  {command:<{width}}  {purpose}"), markup=False)


def run_commands(folder: RunFolder) -> Commands:
    """Return commands for a finished run, on the example that it has; on `IMAGE` if it has none."""
    run = as_word(folder.path)
    image = as_word(folder.example) if folder.example.is_file() else "IMAGE"
    return [
        (f"vitreous predict {run} {image}", "classify images or folders of them"),
        (f"vitreous explain {run} {image}", "which parts of images raise the score of a class"),
        (f"vitreous evaluate {run}", "precision and recall of each class, confusion matrix"),
        (f"vitreous inspect {run}", "data, classes and layers of the model"),
    ]


def as_word(path: Path) -> str:
    """Return a path as a word of a shell command that is not mistaken for an option."""
    text = str(path)
    return quote(f"./{text}" if text.startswith("-") else text)


def _found() -> Iterator[tuple[str, Commands]]:
    """Yield what is in the working folder, with the commands for it."""
    runs = sorted(_runs(), key=_time_of, reverse=True)
    if runs and not runs[0].model.is_file():
        yield _unfinished(runs[0])
    finished = next((run for run in runs if run.model.is_file()), None)
    if finished is not None:
        run = as_word(finished.path)
        commands = [command for command in run_commands(finished) if not command[0].endswith(" IMAGE")]
        commands.append((f"vitreous report {run}", "write the report again, with all that is known by now"))
        if all(map(find_spec, ("fastapi", "uvicorn", "python_multipart"))):
            commands.append((f"vitreous serve {run}", "answer requests over HTTP, with a page for people"))
        yield f"newest finished run: {finished.path}", commands
    if not _is_output(Path()):
        entries = [entry for entry in _entries(Path()) if not _is_output(entry) and entry != Path("runs")]
        if any(entry.suffix or entry.is_dir() for entry in entries):
            data = list(_data(entries))
            yield from (found for found in data if found[1] or finished is None)


def _runs() -> Iterator[RunFolder]:
    """Yield the runs here, in subfolders and in `runs`; of a series, those that are finished."""
    for parent in filter(_is_open, (Path(), Path("runs"))):
        for folder in (parent, *_folders(parent)):
            if SeriesFolder(folder).series.is_file():
                members = map(RunFolder, _folders(folder))
                yield from (run for run in members if run.config.is_file() and run.model.is_file())
            elif (run := RunFolder(folder)).config.is_file() and run.records.is_file():
                yield run


def _time_of(run: RunFolder) -> float:
    return (run.model if run.model.is_file() else run.records).stat().st_mtime


def _unfinished(run: RunFolder) -> tuple[str, Commands]:
    is_free: bool | None = None
    with suppress(OSError):  # Windows does not open folders
        descriptor = os.open(run.path, os.O_RDONLY)
        is_free = try_lock(descriptor)
        os.close(descriptor)
    if is_free is False:
        return f"being trained: {run.path}", []
    return f"not finished: {run.path}", [(f"vitreous train --resume {as_word(run.path)}", "continue the training")]


def _data(entries: list[Path]) -> Iterator[tuple[str, Commands]]:
    """Yield the data sets among the entries of this folder, opened as `vitreous train` does; or why there is none.

    The import takes a second, so it is left to folders that may have data.
    """
    from vitreous.data.sources import known_sets, open_source
    from vitreous.data.sources.image_files import is_image_name
    from vitreous.data.sources.rows import is_table_name
    from vitreous.data.sources.spelling import split_of

    def has_classes(folder: Path) -> bool:
        inside = [one for one in _folders(folder) if not _is_output(one)][:_MOST_CLASSES]
        inside = next((_folders(split)[:_MOST_CLASSES] for split in inside if split_of(split.name) == "train"), inside)
        return sum(any(is_image_name(entry.name) for entry in _entries(one)) for one in inside) > 1

    has_photos = any(is_image_name(entry.name) for entry in entries)
    is_everything = Path().resolve() in (Path.home(), Path(Path().absolute().anchor))
    if not is_everything and has_classes(Path()):
        candidates = [Path()]
    else:
        candidates = [entry for entry in entries[:_MOST_FOLDERS] if entry.is_dir() and has_classes(entry)]
        candidates += [entry for entry in entries if not candidates and is_table_name(entry.name)]
    reasons: list[tuple[str, Commands]] = []
    for path in candidates[:_MOST_SHOWN] or ([Path()] if has_photos and not is_everything else []):
        name = f"./{path}" if str(path) in known_sets() or str(path).startswith("-") else str(path)
        try:
            source = open_source(name)
        except VitreousError as error:
            reasons += [(f"no data: {error}", [])] if path.is_dir() else []
            continue
        word = quote(name)
        size = f"{plural(len(source), 'image')} of {plural(len(source.classes), 'class', 'classes')}"
        yield (
            f"data: {name} ({size})",
            [
                (f"vitreous train {word}", "train a model"),
                (f"vitreous train {word} --budget 10m", "the same, in ten minutes"),
                (f"vitreous inspect {word}", "find copies, wrong labels and unreadable files"),
            ],
        )
    yield from reasons


def _is_output(folder: Path) -> bool:
    return RunFolder(folder).records.is_file() or SeriesFolder(folder).series.is_file()


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _entries(folder: Path) -> list[Path]:
    """Return some visible entries of a folder that can be read, sorted by name; none if the folder cannot be read."""
    try:
        visible_ones = (entry for entry in folder.iterdir() if not entry.name.startswith("."))
        return sorted(filter(_is_open, islice(visible_ones, _MOST_ENTRIES)))
    except OSError:
        return []


def _is_open(path: Path) -> bool:
    """Return True for a file that this user may read, or a folder that this user may also enter."""
    return os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))
