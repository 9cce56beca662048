"""Ctrl-C or SIGTERM -> a wish to stop that the loop honours between two steps."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run that was asked to stop, saved its state and can go on.

    Attributes:
        signal_number: What asked: SIGINT (Ctrl-C) or SIGTERM.
        run: Folder to resume.
        step: The last one that is saved.
        member: Of a series of runs, the one that it stopped in.
    """

    def __init__(self, signal_number: int, run: Path, step: int, member: str = "") -> None:
        where = f"step {step} of {member}" if member else f"step {step}"
        super().__init__(f"{run}: stopped at {where} and saved; go on with `vitreous train --resume {run}`")
        self.signal_number = signal_number
        self.run = run
        self.step = step
        self.member = member

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, Path, int, str]]:
        """What takes it from one process to another."""
        return type(self), (self.signal_number, self.run, self.step, self.member)


class StopWish:
    """Holds the number of the signal that asked to stop; 0 while nobody did."""

    def __init__(self) -> None:
        self.signal_number = 0

    def _note(self, signal_number: int, frame: FrameType | None) -> None:
        if self.signal_number:  # asked twice: at once, the last checkpoint has to do
            raise KeyboardInterrupt
        self.signal_number = signal_number


@contextmanager
def listen_for_stop() -> Iterator[StopWish]:
    """Within this context the first Ctrl-C or SIGTERM only leaves a wish; a second one interrupts at once.

    Signals reach the main thread alone: elsewhere nothing changes.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, wish._note) for number in numbers]
    try:
        yield wish
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
