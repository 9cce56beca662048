"""Request -> a run that was killed after some step, to be resumed."""

from dataclasses import replace
from typing import Any

import pytest

from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training


def interrupted(request: TrainRequest, step: int = 4) -> RunFolder:
    """A run that saved each step and was killed after this one."""

    def kill(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= step:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_training(replace(request, values={**request.values, "train.checkpoint_every_s": 0}), kill)
    assert request.out is not None
    return RunFolder(request.out)
