"""A list of runs, as JSON -> each of them trained by all processes that torchrun started. Run as a script."""

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitreous.training.machine.signals import Interrupted
from vitreous.training.measure.instruments import Instruments
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training


def train(run: Mapping[str, Any]) -> None:
    """Train one run.

    With `stop_at`, the first process gets a stop signal after this step. With `runs_ahead`, the next gradient is
    computed before the result of the last step is read, as on a GPU.
    """

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "step" and fields["step"] == run.get("stop_at"):
            signal.raise_signal(signal.SIGTERM)

    out, instruments = Path(run["out"]), Instruments(can_run_ahead=lambda state: run.get("runs_ahead", False))
    if run.get("resume"):
        request = TrainRequest(resume=out)
    else:
        request = TrainRequest(data=run["data"], values=run["values"], out=out)
    try:
        run_training(request, listen, instruments=instruments)
    except Interrupted as stopped:
        if "stop_at" not in run:
            raise stopped from None


if __name__ == "__main__":
    torch.set_num_threads(1)
    for run in json.loads(sys.argv[1]):
        train(run)
