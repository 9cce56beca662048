"""A function, a number of processes -> the function run in all of them, and restarted in all if one of them fails.

PyTorch's elastic agent (torchrun is its command line) watches the processes. What a restarted process has to know is in
a folder of notes, which exists as long as the launch: the run to resume, an error that a retry cannot fix, a stop.
"""

import json
import logging
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shlex import quote
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vitreous import errors, processes
from vitreous.errors import ConfigError, NonFiniteError, RunError, VitreousError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.signals import stop_signals_handled
from vitreous.training.request import TrainRequest

MAX_RESTARTS = 3
"""How often a group of processes is restarted before the launch fails."""

_NOTES = "VITREOUS_LAUNCH"
"""Environment variable with the path of the folder of notes."""
_RUN, _ERROR, _STOP = "run", "error", "stop"
"""File names of the notes."""


def launch(work: Callable[[], None], num_processes: int) -> None:
    """Run `work` in several processes of this machine, each with its own device, and wait for all of them.

    If a process is killed or raises an unexpected error, the others are ended too and all are restarted. `work` then
    calls `after_restart` to find the run to resume. An error that `work` raises deliberately ends the launch. `work`
    can be pickled; each process imports its module.

    Raises:
        ConfigError: Fewer than one process, or a launch inside another launch.
        RunError: Processes still failed after all restarts.
        VitreousError: Raised by `work`.
        KeyboardInterrupt: Raised by `work` after Ctrl-C or SIGTERM to this process or to one of the others.
    """
    if num_processes < 1:
        raise ConfigError(f"nproc={num_processes}: must be at least 1; use the number of GPUs, or 1 for one process")
    if processes.is_launched():
        raise ConfigError(f"nproc={num_processes}: this process was already launched with others; leave out --nproc")
    with tempfile.TemporaryDirectory(prefix="vitreous-launch-") as place:
        notes = Path(place)
        threads = max(1, processes.usable_cores() // num_processes)
        changes = {_NOTES: place, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_processes,
            run_id=notes.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=MAX_RESTARTS,
            logs_specs=DefaultLogsSpecs(log_dir=place),
            signals_to_handle="SIGQUIT",
        )
        try:
            with _environment(changes), _quiet(), _forwarding_signals(notes):
                outcomes = elastic_launch(config, _work)(work)
        except ChildFailedError as error:
            raise _launch_failed(num_processes, error.get_first_failure()[1], notes) from error
    for _, outcome in sorted(outcomes.items()):
        if outcome is not None:
            raise outcome


def note_run(path: Path) -> None:
    """Note the folder of the run that this launch trains. Only the first call counts."""
    place = os.environ.get(_NOTES)
    if place is not None and not (Path(place) / _RUN).exists():
        (Path(place) / _RUN).write_text(str(path.absolute()), encoding="utf-8")


def after_restart(request: TrainRequest) -> TrainRequest | None:
    """Return what a restarted group has to do: resume the run that it began, or None to do what `request` says.

    torchrun keeps no notes, so a group that it restarts can resume only if `request.out` names the folder.
    """
    note = Path(os.environ[_NOTES]) / _RUN if _NOTES in os.environ else None
    path = Path(note.read_text(encoding="utf-8")) if note is not None and note.exists() else request.out
    if not processes.restarts() or request.resume is not None or path is None:
        return None
    folder = RunFolder(path)
    if folder.config.exists():
        return TrainRequest(resume=path, source=request.source)
    folder.clear_unstarted()
    return replace(request, out=path)


def _work(work: Callable[[], None]) -> BaseException | None:
    """Run `work` in one process; return the error that it raised deliberately. Any other error fails the process."""
    notes = Path(os.environ[_NOTES])
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal then reaches only the launching process, which forwards it once
    if (notes / _STOP).exists():
        return KeyboardInterrupt()
    if (notes / _ERROR).exists():
        return _read_error(notes / _ERROR)
    try:
        work()
    except (KeyboardInterrupt, NonFiniteError) as error:  # all processes raise these together
        return error
    except VitreousError as error:
        if error.is_shared:
            return error
        # The others still wait for this process. Failing makes the agent restart all of them, and all find this note.
        (notes / _ERROR).write_text(json.dumps([type(error).__name__, str(error)]), encoding="utf-8")
        raise
    return None


def _read_error(path: Path) -> VitreousError:
    """Return the error that a process of this launch noted for the others."""
    kind, text = json.loads(path.read_text(encoding="utf-8"))
    error: VitreousError = getattr(errors, kind)(text)
    return error


def _launch_failed(num_processes: int, failure: ProcessFailure, notes: Path) -> RunError:
    lines = [line for line in str(failure.message).splitlines() if line.strip()] or ["no message"]
    advice = "add --debug to see its traceback"
    if (notes / _RUN).exists():
        advice = f"continue with `vitreous train --resume {quote((notes / _RUN).read_text(encoding='utf-8'))}`"
    return RunError(
        f"nproc={num_processes}: a process failed {MAX_RESTARTS + 1} times, the last time with exit code "
        f"{failure.exitcode} ({lines[-1].strip()}); {advice}"
    )


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that start inside this context, then restore them."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the agent, which logs each failure at length; the error and the records say what a user needs."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(("torch.dist", "torch.multiproc"))]
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _forwarding_signals(notes: Path) -> Iterator[None]:
    """Forward signals to stop to the processes, which save and exit together; a third signal ends all at once."""
    num_signals = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal num_signals
        num_signals += 1
        if num_signals > 2:
            raise KeyboardInterrupt
        (notes / _STOP).touch()
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    with stop_signals_handled(forward):
        yield
