"""Some work -> the floating-point operations of its matrix products, forward and backward."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def count_flops(work: Callable[[], Any], limit: float = float("inf")) -> float:
    """Return the floating-point operations of the matrix products in some work, two per multiply-add.

    They are counted instead of timed, so that the result is the same on every machine. PyTorch's own counter also
    follows modules, and fails in backward passes that end at images.

    Args:
        work: What to count.
        limit: Work that takes more is stopped, and infinity is returned.
    """
    counter = _Counter(limit)
    try:
        with counter:
            work()
    except InterruptedError:
        return float("inf")
    return counter.flops


class _Counter(TorchDispatchMode):
    """Counts the operations inside its context, and raises InterruptedError above the limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.flops, self._limit = 0.0, limit

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:  # in inference mode, a product may be inside another operation
            with self:
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        result = func(*args, **(kwargs or {}))
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        if self.flops > self._limit:
            raise InterruptedError
        return result
