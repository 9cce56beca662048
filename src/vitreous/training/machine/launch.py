"""A function and a number of processes -> the function run by all of them, started again together where one fails.

PyTorch's elastic agent, which torchrun is the command line of, watches them. What they must know to go on lies in a
folder of notes that lives as long as the launch: which run was begun, and what nobody needs to try again.
"""

import json
import logging
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from vitreous import errors, processes
from vitreous.errors import ConfigError, NonFiniteError, RunError, VitreousError
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest

MAX_RESTARTS = 3
"""How often a group is started again before the launch fails."""

_NOTES = "VITREOUS_LAUNCH"
_BEGUN, _OVER, _STOP = "begun", "over", "stop"


def launch(work: Callable[[], None], num_processes: int) -> None:
    """Run `work` in so many processes of this machine, each with its device, and wait for all.

    A process that is killed or meets an unexpected error ends the others too, and all begin anew: `work` finds what was
    begun by `after_restart`. What `work` raises deliberately ends the launch.

    Args:
        work: Can be pickled; its processes import the module that it is from.
        num_processes: At least 1.

    Raises:
        ConfigError: Fewer than one process, or a launch within another one.
        RunError: Processes went on failing.
        VitreousError: Raised by `work`.
        KeyboardInterrupt: Ctrl-C or SIGTERM, to this process or to one of the others; as `work` raised it.
    """
    if num_processes < 1:
        raise ConfigError(f"nproc={num_processes}: must be at least 1; use the number of GPUs, or 1 for one process")
    if processes.is_launched():
        raise ConfigError(f"nproc={num_processes}: this is one of several processes already; leave --nproc out")
    with tempfile.TemporaryDirectory(prefix="vitreous-launch-") as place:
        notes = Path(place)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        changes = {
            _NOTES: place,
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // num_processes))),
        }
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
            signals_to_handle="SIGHUP,SIGQUIT",
        )
        try:
            with _environment(changes), _quiet(), _passing_on_signals(notes):
                outcomes = elastic_launch(config, _work)(work)
        except ChildFailedError as error:
            raise _failed(num_processes, error.get_first_failure()[1], notes) from error
    for _, outcome in sorted(outcomes.items()):
        if outcome is not None:
            raise outcome


def note_begun(path: Path) -> None:
    """Remember the folder that the launch works on; of several the first, which holds the others."""
    place = os.environ.get(_NOTES)
    if place is not None and not (Path(place) / _BEGUN).exists():
        (Path(place) / _BEGUN).write_text(str(path.absolute()), encoding="utf-8")


def after_restart(request: TrainRequest) -> TrainRequest | None:
    """What a group that was started again is to do: go on with what it began; None: as it was asked at first.

    Torchrun has no notes: what it starts again goes on where the folder is named by `out`.
    """
    note = Path(os.environ[_NOTES]) / _BEGUN if _NOTES in os.environ else None
    begun = Path(note.read_text(encoding="utf-8")) if note is not None and note.exists() else request.out
    if not processes.restarts() or request.resume is not None or begun is None:
        return None
    folder = RunFolder(begun)
    if folder.config.exists():
        return TrainRequest(resume=begun, source=request.source)
    folder.clear_unbegun()
    return replace(request, out=begun)


def _work(work: Callable[[], None]) -> BaseException | None:
    """In each process: what is raised deliberately is handed over; anything else fails the process."""
    notes = Path(os.environ[_NOTES])
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C in a terminal reaches the launching process alone, which passes it on once
    if (notes / _STOP).exists():
        return KeyboardInterrupt()
    if (notes / _OVER).exists():
        return _read_error(notes / _OVER)
    try:
        work()
    except (KeyboardInterrupt, NonFiniteError) as error:  # all processes agreed on it
        return error
    except VitreousError as error:
        if error.is_shared:
            return error
        # The others wait for this one: the agent ends them, starts all again, and all find this note.
        (notes / _OVER).write_text(json.dumps([type(error).__name__, str(error)]), encoding="utf-8")
        raise
    return None


def _read_error(path: Path) -> VitreousError:
    """What a process of this launch wrote for the others."""
    kind, text = json.loads(path.read_text(encoding="utf-8"))
    error: VitreousError = getattr(errors, kind)(text)
    return error


def _failed(num_processes: int, failure: ProcessFailure, notes: Path) -> RunError:
    lines = [line for line in str(failure.message).splitlines() if line.strip()] or ["no message"]
    begun = notes / _BEGUN
    way_out = f"go on with `vitreous train --resume {begun.read_text(encoding='utf-8')}`" if begun.exists() else (
        "--debug shows what each said")  # fmt: skip
    return RunError(
        f"nproc={num_processes}: a process failed {MAX_RESTARTS + 1} times, the last time with exit code "
        f"{failure.exitcode} ({lines[-1].strip()}); {way_out}"
    )


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Processes inherit it; afterwards it is as before."""
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
    """The agent logs each failure at length; what a user needs is in the error and in the records."""
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
def _passing_on_signals(notes: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM are for the processes, which agree, save and leave; a third one ends all at once."""
    heard: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        if len(heard) > 2:
            raise KeyboardInterrupt
        (notes / _STOP).touch()
        for child in multiprocessing.active_children():
            if child.pid is not None:
                os.kill(child.pid, number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, pass_on) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
