"""Ctrl-C, SIGTERM or a closed terminal -> a request to stop, which the training loop obeys between two steps."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run that was stopped by a signal; it can be resumed.

    The signal is SIGINT (Ctrl-C), SIGTERM or SIGHUP, and `run` the folder to resume. `step` is the last one that is
    saved; None if the run was stopped before its first one. `member` is the name of the run within a series; empty for
    a single run. `model` is a clause that says whether there is a model already; empty if that is not known.
    """

    def __init__(self, signal_number: int, run: Path, step: int | None, member: str = "", model: str = "") -> None:
        self.signal_number = signal_number
        self.run = run
        self.step = step
        self.member = member
        self.model = model
        of_member = f" of {member}" if member else ""
        stopped = f"{run}: stopped at step {step}{of_member} and saved"
        if step is None:
            stopped = f"{run}: stopped before the first step{of_member}"
        super().__init__(
            "; ".join(filter(None, [stopped, model, f"continue with `vitreous train --resume {quote(str(run))}`"]))
        )

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, Path, int | None, str, str]]:
        """Return the constructor and its arguments, so that the error can be sent to another process."""
        return type(self), (self.signal_number, self.run, self.step, self.member, self.model)


class StopRequest:
    """Number of the signal that requested a stop; 0 until one arrives."""

    def __init__(self) -> None:
        self.signal_number = 0

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal_number:  # the second signal: stop now, and resume from the last checkpoint
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Record the first signal to stop inside this context without interrupting; a second one interrupts at once.

    Python delivers signals to the main thread only. In any other thread this context changes nothing.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    with stop_signals_handled(request._handle):
        yield request


@contextmanager
def stop_signals_handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Let `handler` handle signals to stop inside this context; the previous handlers are then restored.

    The signals are Ctrl-C, SIGTERM, and SIGHUP, which a closed terminal sends. If SIGHUP is ignored, as under `nohup`,
    it stays ignored.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # Windows has none
        numbers.append(signal.SIGHUP)
    before = [(number, signal.signal(number, handler)) for number in numbers]
    try:
        yield
    finally:
        for number, previous in before:
            signal.signal(number, previous)
