"""Model, image, method -> what the method costs: floating-point operations of matrix products."""

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from vitreous.model.vit import VisionTransformer


def count_flops(model: VisionTransformer, work: Callable[[], Any], limit: float = float("inf")) -> float:
    """Return the floating-point operations of the matrix products in some work.

    They are counted instead of timed, so that the same methods are checked on every machine.

    Args:
        model: The model that the work runs.
        work: What to count.
        limit: Work that takes more is stopped when it next runs the encoder, and infinity is returned.
    """

    def stop(_module: Any, _inputs: Any) -> None:
        if counter.get_total_flops() > limit:
            raise InterruptedError

    handle = model.encoder.register_forward_pre_hook(stop)
    try:
        with FlopCounterMode(display=False) as counter:
            work()
    except InterruptedError:
        return float("inf")
    finally:
        handle.remove()
    return float(counter.get_total_flops())
