"""A list of runs, as JSON -> each trained by all processes of the group that torchrun started; run as a script."""

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from vitreous.training.fit import loop
from vitreous.training.machine.signals import Interrupted
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training


def train(run: Mapping[str, Any]) -> None:
    """One run; with `stop_at`, asked to stop by a signal to the first process once this step is told.

    With `runs_ahead`, each step is read when the next one's gradient was asked for, as on a GPU.
    """

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "step" and fields["step"] == run.get("stop_at"):
            signal.raise_signal(signal.SIGTERM)

    place = Path(run["out"])
    if run.get("resume"):
        request = TrainRequest(resume=place)
    else:
        request = TrainRequest(data=run["data"], values=run["values"], out=place)
    try:
        with patch.object(loop, "can_run_ahead", lambda state: run.get("runs_ahead", False)):
            run_training(request, listen)
    except Interrupted as stopped:
        if "stop_at" not in run:
            raise stopped from None


if __name__ == "__main__":
    torch.set_num_threads(1)
    for run in json.loads(sys.argv[1]):
        train(run)
