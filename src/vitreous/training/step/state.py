"""TrainState <-> named tensors and JSON numbers: everything that must survive a crash, in one dataclass.

Random draws and the order of the data are functions of the step (see `seeding`), so they are not part of the state.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from vitreous.errors import DamagedFileError
from vitreous.model.vit import VisionTransformer
from vitreous.optim.ema import Ema
from vitreous.training.machine.parallel import sharded_like
from vitreous.training.step.horizon import Horizon
from vitreous.wording import printable_error


@dataclass
class TrainState:
    """A run between two steps.

    Attributes:
        model: The model that is trained.
        ema: Moving average of its weights.
        optimizer: The optimizer, with its moments.
        horizon: The last step, and the progress at each step.
        step: Number of steps taken.
        elapsed_s: Seconds spent so far, including those before a resume.
        lr_scale: Factor on the learning rate; halved each time the run goes back to a checkpoint.
        refused: Number of steps that were rejected because of NaN or infinity.
        attempt: Number of consecutive rejections of the current step.
        rollbacks: Number of times the run went back to a checkpoint.
        data_fingerprint: Fingerprint of the images, labels and splits that the run trains on.
        teacher_fingerprint: Fingerprint of the teacher; empty without one.
        best_loss: Lowest calibrated validation loss so far.
        best_progress: Progress at which that loss was measured, in [0, 1].
    """

    model: VisionTransformer
    ema: Ema[VisionTransformer]
    optimizer: torch.optim.Optimizer
    horizon: Horizon
    step: int = 0
    elapsed_s: float = 0.0
    lr_scale: float = 1.0
    refused: int = 0
    attempt: int = 0
    rollbacks: int = 0
    data_fingerprint: str = ""
    teacher_fingerprint: str = ""
    best_loss: float = math.inf
    best_progress: float = 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return self.horizon.progress(self.step)

    def tensors(self) -> dict[str, Tensor]:
        """Return weights, averages and moments by name; views, not copies."""
        named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        named |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        return named

    def numbers(self) -> dict[str, Any]:
        """Return all fields that are not tensors, ready for JSON."""
        return {name: getattr(self, name) for name in _NUMBERS} | {"horizon": asdict(self.horizon)}

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Load what `tensors` and `numbers` returned, in place; the tensors are full, even if this model is sharded.

        Raises:
            DamagedFileError: Tensors or numbers do not fit this run's model.
        """
        owners: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            owner, _, rest = name.partition(".")
            owners.setdefault(owner, {})[rest] = tensor
        try:
            self.model.load_state_dict(sharded_like(owners["model"], self.model.state_dict()))
            self.ema.model.load_state_dict(sharded_like(owners["ema"], self.ema.model.state_dict()))
            self._load_moments(owners["optimizer"])
            self.horizon = Horizon(**numbers["horizon"])
            for name in _NUMBERS:
                setattr(self, name, type(getattr(self, name))(numbers[name]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"does not fit this run, perhaps because config.yaml was edited ({printable_error(error)}); undo the "
                "edit, or train again with --out"
            ) from error

    def _load_moments(self, named: Mapping[str, Tensor]) -> None:
        groups = self.optimizer.param_groups
        parameters = dict(enumerate(parameter for group in groups for parameter in group["params"]))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in named.items():
            index, _, moment = name.partition(".")
            loaded = sharded_like({moment: tensor}, {moment: parameters.get(int(index))})
            state.setdefault(int(index), {}).update(loaded)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


_NUMBERS = (
    *("step", "elapsed_s", "lr_scale", "refused", "attempt", "rollbacks", "data_fingerprint"),
    *("teacher_fingerprint", "best_loss", "best_progress"),
)
