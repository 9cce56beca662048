"""A process among others that train one model -> its part of the work, and what all of them agree on.

Alone, everything is as if nobody else could be there: no message is sent, no part is smaller than the whole.
"""

import atexit
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

PATIENCE = timedelta(hours=6)
"""How long processes wait for each other: the first one may read and decode a large set meanwhile. One that dies is
noticed at once by what started it."""


@dataclass(frozen=True)
class Group:
    """All processes of a run, seen from one of them; every method with a result is called by all of them alike.

    Attributes:
        rank: Which process this is, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one plans, records and writes for all."""
        return self.rank == 0

    def add_up(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, bit for bit the same in each; in place."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def largest(self, numbers: Sequence[int]) -> list[int]:
        """Of each number the largest that any process has."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.int64)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return found.tolist()

    def gather(self, value: T) -> list[T]:
        """What each process has, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def first(self, work: Callable[[], T]) -> T:
        """Let the first process work alone, and all have its result.

        Raises:
            VitreousError: Met by the first process, in all of them.
        """
        if self.size == 1:
            return work()
        outcome: list[Any] = [None]
        if self.is_first:
            try:
                outcome = [work()]
            except VitreousError as error:
                error.is_shared = True
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        result = outcome[0]
        if isinstance(result, VitreousError):
            raise result
        return result

    def broadcast(self, value: Any) -> Any:
        """Return the first process's value in all processes."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    @contextmanager
    def sharing_errors(self) -> Iterator[None]:
        """Context manager that raises a VitreousError of the first process in all processes, when all have left it."""
        error: VitreousError | None = None
        try:
            yield
        except VitreousError as caught:
            if self.size == 1 or not self.is_first:
                raise
            caught.is_shared = True
            error = caught
        error = self.broadcast(error)
        if error is not None:
            raise error

    def in_turn(self, work: Callable[[], T]) -> T:
        """The first process works, then the others at once: what it leaves in a cache they find there.

        Raises:
            VitreousError: Met by the first process, in all of them; or by this one.
        """
        mine: list[T] = []
        self.first(lambda: mine.append(work()))
        return mine[0] if mine else work()


ALONE = Group()


def join() -> Group:
    """This process's place in the group that torchrun or `--nproc` started; alone where nothing did.

    Messages run over gloo between processors and over NCCL between GPUs.
    """
    if processes.count() == 1:
        return ALONE
    if not dist.is_initialized():
        if processes.local_rank() < torch.cuda.device_count():
            torch.cuda.set_device(processes.local_rank())
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        found, rank, size = next(rendezvous("env://"))
        # A group that is started again finds the store of the one before, and must not find its addresses.
        store = PrefixStore(f"start-{processes.restarts()}", found)
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
        atexit.register(dist.destroy_process_group)
    return Group(dist.get_rank(), dist.get_world_size())
