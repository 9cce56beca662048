"""Cores and GPUs of this machine -> workers: processes that each have some of the cores, or a GPU."""

import multiprocessing
import pickle
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from vitreous.use.batch.job import Job, Part
from vitreous.use.batch.workers import Death, Worker, Workers
from vitreous.use.predict.listing import Named

_END_S = 10
"""How long a process may take to end after it has closed its pipe."""


class LocalWorkers(Workers):
    """Processes on this machine.

    Args:
        job: What they do.
        devices: Their devices; more workers than devices share them.
        cores: Number of cores that each one uses.
    """

    def __init__(self, job: Job, devices: Sequence[str], cores: int) -> None:
        # Tensors that multiprocessing pickles itself would be shared, with an open file for each of them.
        self._job, self._devices, self._cores = pickle.dumps(job), devices, cores
        self._num_started = 0

    def start(self) -> Worker:
        """Start a process with the next device."""
        device = self._devices[self._num_started % len(self._devices)]
        self._num_started += 1
        return _LocalWorker(self._job, device, self._cores)

    def finished(self, busy: Sequence[Worker]) -> list[Worker]:
        """Wait until at least one process has sent something or has ended, and return these."""
        by_pipe: dict[Any, Worker] = {worker.pipe: worker for worker in busy if isinstance(worker, _LocalWorker)}
        return [by_pipe[pipe] for pipe in wait(list(by_pipe))]


class _LocalWorker(Worker):
    """A process that does what it receives through a pipe; it writes no files."""

    def __init__(self, job: bytes, device: str, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, job, device, cores))
        with _signals_blocked():
            self._process.start()
        theirs.close()

    def begin(self, images: Sequence[Named]) -> None:
        with suppress(OSError):  # if the process has died, `result` finds out
            self.pipe.send(images)

    def result(self) -> Part | Death | None:
        try:
            received = self.pipe.recv()
        except (EOFError, OSError):
            self._process.join(_END_S)
            return Death(f"exit code {self._process.exitcode}")
        if isinstance(received, Exception):
            raise received
        return received

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Connection, content: bytes, device: str, cores: int) -> None:
    """Do parts until the pipe is closed; this is the whole life of a worker."""
    with suppress(EOFError, BrokenPipeError):  # the first process was killed
        try:
            job: Job = pickle.loads(content)
            job.begin(device, cores)
            pipe.send(None)
            while True:
                pipe.send(job.part(pipe.recv()))
        except (EOFError, BrokenPipeError):
            raise
        except Exception as error:
            error.add_note(traceback.format_exc())  # a traceback cannot be sent
            pipe.send(error)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Context manager in which processes are started that do not see Ctrl-C or SIGTERM; the first process ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
