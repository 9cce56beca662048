"""Tensors of the host -> a device, and its numbers -> the host; neither waits for more than it must."""

import torch
from torch import Tensor

_COPY_ALONGSIDE = frozenset({"cuda"})
"""Devices that copy from and to pinned memory while they, and the host, do something else."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The same on a device, in the order of what that is told to do.

    A plain `tensor.to(device)` returns when all that the device was told before is done: the host, which should prepare
    what comes next, stands still.
    """
    if tensor.device.type == "cpu" and device.type in _COPY_ALONGSIDE:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Reading:
    """Numbers on their way from a device.

    Args:
        numbers: Any few, perhaps not computed yet.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._arrival = torch.cuda.Event(blocking=True) if numbers.device.type == "cuda" else None
        self._numbers = numbers.to("cpu", non_blocking=self._arrival is not None)
        if self._arrival is not None:
            self._arrival.record(torch.cuda.current_stream(numbers.device))

    def values(self) -> list[float]:
        """Wait until they are there; not for what the device was told to do since."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._numbers.tolist()
