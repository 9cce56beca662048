"""A benchmark's name -> its file below results/HARDWARE/, and the content of that file."""

import datetime
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).parent / "results"


def command_line() -> str:
    """Return the command of this process, to be stored with its results."""
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def results_file(name: str, device: "torch.device | None" = None) -> tuple[Path, dict[str, Any]]:
    """Return the results file of this machine, and its content with today's date and the hardware filled in.

    Args:
        name: Name of the benchmark.
        device: Device that it runs on; None for the CPU.
    """
    import torch

    from vitreous.training.machine.device import describe_hardware

    hardware = describe_hardware(device or torch.device("cpu"))
    folder = re.sub(r"[^a-z0-9]+", "-", f"{hardware['device_name']}-{hardware['cpus']}-cores".lower()).strip("-")
    path = RESULTS / folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = json.loads(path.read_text()) if path.exists() else {}
    return path, stored | {"date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(), "hardware": hardware}
