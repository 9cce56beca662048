"""Environment of a process -> its group: the processes that train one model together, and how they exchange values.

A single process is a group of size 1: every method then returns at once and sends no message.
"""

import atexit
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vitreous import processes
from vitreous.errors import VitreousError

T = TypeVar("T")

TIMEOUT = timedelta(hours=6)
"""How long processes wait for each other. It is long because the first process may read and decode a large data set
meanwhile. A process that dies is noticed at once by the launcher."""

_THREADS_FINISH_S = 0.2
"""How long a process waits for gloo's threads when it ends. They need microseconds once they get a core."""


@dataclass(frozen=True)
class Group:
    """All processes of a run, seen from one of them. Every process has to call the methods in the same order.

    `rank` is the number of this process, from 0, and `size` that of all processes (the world size).
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """True on rank 0, which plans, records and writes files for all."""
        return self.rank == 0

    def sum(self, numbers: Tensor) -> Tensor:
        """Return the sum over all processes, in place; bit for bit the same on every rank."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def max(self, numbers: Sequence[int]) -> list[int]:
        """Return the elementwise maximum over all processes."""
        if self.size == 1:
            return list(numbers)
        largest = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.tolist()

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the value of rank 0 on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def from_first(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0 only, and return its result on every rank.

        Raises:
            VitreousError: Raised by `work` on rank 0; then it is raised on every rank.
        """
        if self.size == 1:
            return work()
        outcome: tuple[Any, VitreousError | None] | None = None
        if self.is_first:
            try:
                outcome = work(), None
            except VitreousError as caught:
                caught.is_shared = True
                outcome = None, caught
        result, error = self.broadcast(outcome)  # one message for both, as the training loop waits for it
        if error is not None:
            raise error
        return result

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Call `work` on rank 0, then on all other ranks at once, so that they find what rank 0 left in a cache.

        Raises:
            VitreousError: Raised by `work` on rank 0, and then on every rank; or raised by `work` on this rank.
        """
        results = list[T]()
        self.from_first(lambda: results.append(work()))  # the result itself is not sent
        return results[0] if self.is_first else work()


SINGLE = Group()


def join() -> Group:
    """Join the process group that torchrun or `--nproc` started; a single process gets a group of size 1.

    Processes exchange CPU tensors over gloo and GPU tensors over NCCL.
    """
    if processes.count() == 1:
        return SINGLE
    if not dist.is_initialized():
        if processes.local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(processes.local_rank())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        shared_store, rank, size = next(rendezvous("env://"))
        # A restarted group uses the same store as before. The prefix keeps it from reading the old group's addresses.
        store = PrefixStore(f"start-{processes.restarts()}", shared_store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
        atexit.register(_leave)
    return Group(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    """Leave the process group before the interpreter shuts down.

    A thread of gloo releases the tensors of a message after the message has arrived, and needs the interpreter for it.
    PyTorch ends the process with SIGABRT if the interpreter shuts down first, and destroying the group does not wait
    for that thread (github.com/pytorch/pytorch/pull/179291). Sleeping lets it run.
    """
    dist.destroy_process_group()
    time.sleep(_THREADS_FINISH_S)
