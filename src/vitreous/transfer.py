"""Tensors -> a device, and numbers -> back to the host, without blocking the host for longer than necessary."""

import torch
from torch import Tensor

_ASYNC_DEVICES = frozenset({"cuda"})
"""Device types that copy from and to pinned memory while the host and the device do other work."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device without blocking the host; the copy is ordered with the device's other work.

    A plain `tensor.to(device)` blocks the host until the device has finished all earlier work, so that the host cannot
    prepare the next batch meanwhile.
    """
    if tensor.device.type == "cpu" and device.type in _ASYNC_DEVICES:
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


class Reading:
    """Numbers on their way from a device to the host.

    There are a few of them, `[n]`, and the device may still be computing them.
    """

    def __init__(self, numbers: Tensor) -> None:
        self._copied = torch.cuda.Event(blocking=True) if numbers.device.type == "cuda" else None
        self._numbers = numbers.to("cpu", non_blocking=self._copied is not None)
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(numbers.device))

    def values(self) -> list[float]:
        """Wait for the numbers, but not for work that was queued on the device after them."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._numbers.tolist()
