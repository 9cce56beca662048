"""Hostile inputs, one after the other -> a count of those that were read and refused; any third outcome fails.

An input is read correctly, as judged by another library, or refused with a VitreousError of one line. Any other
exception fails, and so does an input that takes too much time or memory. Input number n of a domain is always the same;
VITREOUS_FUZZ_FIRST is the number of the first one.
"""

import faulthandler
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, seed, settings

from vitreous.errors import VitreousError

LIMIT_S = 60
"""An input that takes longer ends the process; the input and a traceback are in the folder of the test."""

LIMIT_BYTES = 1 << 30
"""Memory that an input may take."""

MOST_FAULTS = 20
"""A domain ends after this number of faults; each is reported with its input."""

FIRST = int(os.environ.get("VITREOUS_FUZZ_FIRST", "0"))

_STATUS = Path("/proc/self/status")


def num_examples(share: float = 1.0) -> int:
    """Return the number of inputs: a share of the environment variable VITREOUS_FUZZ_EXAMPLES, which is per domain."""
    return max(1, round(share * int(os.environ.get("VITREOUS_FUZZ_EXAMPLES", "400"))))


def drawing(share: float) -> Callable[[Any], Any]:
    """Return a decorator by which hypothesis draws the same inputs each time: a share of those of a domain."""
    limits = settings(
        max_examples=num_examples(share),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    return lambda test: seed(FIRST)(limits(test))


class Campaign:
    """Counts of one domain.

    Args:
        domain: Name of the domain.
        folder: An empty folder; the current input is kept there.
        limit_bytes: Memory that an input may take.

    Attributes:
        accepted: Number of inputs that were read.
        rejected: Number of inputs that were refused.
    """

    def __init__(self, domain: str, folder: Path) -> None:
        self.domain, self.folder, self.limit_bytes = domain, folder, LIMIT_BYTES
        self.accepted = self.rejected = 0
        self._began = time.perf_counter()

    @contextmanager
    def input(self) -> Iterator[None]:
        """Context manager around the work on one input."""
        before = _memory("VmRSS")
        with suppress(OSError):  # resets the peak
            Path("/proc/self/clear_refs").write_text("5")
        with (self.folder / "traceback.txt").open("w") as file:
            faulthandler.dump_traceback_later(LIMIT_S, exit=True, file=file)
            try:
                yield
            except VitreousError as error:
                text = str(error)
                assert text.isprintable(), f"not one line of printable text: {text!r}"
                self.rejected += 1
            else:
                self.accepted += 1
            finally:
                faulthandler.cancel_dump_traceback_later()
        taken = _memory("VmHWM") - before
        assert taken < self.limit_bytes, f"took {taken:,} bytes"

    def run(
        self,
        make: Callable[[np.random.Generator], bytes],
        check: Callable[[Path], None],
        *,
        suffix: str = "",
        share: float = 1.0,
    ) -> None:
        """Write each input to a file and check it.

        Args:
            make: Draws the bytes of an input.
            check: Reads the file and compares; raises VitreousError where the file is refused.
            suffix: Suffix of the file.
            share: As for `num_examples`.
        """
        path, faults = self.folder / f"input{suffix}", list[Exception]()
        for number in range(FIRST, FIRST + num_examples(share)):
            path.write_bytes(make(np.random.default_rng([zlib.crc32(self.domain.encode()), number])))
            try:
                with self.input():
                    check(path)
            except Exception as error:
                kept = shutil.copy(path, self.folder / f"fault-{number}{suffix}")
                error.add_note(f"input {number} of {self.domain}, kept as {kept}")
                faults.append(error)
                if len(faults) == MOST_FAULTS:
                    break
        if faults:
            raise ExceptionGroup(f"{len(faults)} faults of {self.domain}", faults)

    def summary(self) -> str:
        """Return the counts in one line."""
        total, seconds = self.accepted + self.rejected, time.perf_counter() - self._began
        return (
            f"{self.domain}: {total:,} inputs, {self.rejected:,} rejected, {self.accepted:,} accepted, {seconds:.0f} s"
        )


@pytest.fixture
def campaign(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Campaign]:
    """A campaign named after the test; its summary is shown at the end of the session."""
    counts = Campaign(request.node.name.removeprefix("test_").replace("_", " "), tmp_path)
    yield counts
    request.node.user_properties.append(("fuzz", counts.summary()))


def _memory(field: str) -> int:
    """Return a number of bytes from the status of this process; 0 where the system has no such file."""
    if not _STATUS.is_file():
        return 0
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))
