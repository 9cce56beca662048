"""Everything that must survive a crash, in one dataclass -> tensors and numbers, and back.

Randomness and data order are functions of the step (see `seeding`), so they need no place here.
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
from vitreous.training.machine.parallel import divided_like
from vitreous.training.step.horizon import Horizon


@dataclass
class TrainState:
    """A run between two steps.

    Attributes:
        model: The weights that are trained.
        ema: Their running average.
        optimizer: Moments of the gradient.
        horizon: How far the run goes.
        step: Steps taken.
        elapsed_s: Seconds spent so far, over all the processes that worked on this run.
        lr_scale: Factor on the learning rate; halved each time the run has to go back to a checkpoint.
        refused: Steps refused because of NaN or infinity.
        attempt: Consecutive refusals of the present step.
        rollbacks: How often the run went back to a checkpoint.
        data_fingerprint: Of the images, labels and splits that it trains on.
        teacher_fingerprint: Of the model that it learns from; empty where there is none.
        best_loss: The lowest on validation images so far, where the run stops early.
        best_progress: When that was.
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
        """Weights, averages and moments by name; views, not copies."""
        named = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        named |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            named |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        return named

    def numbers(self) -> dict[str, Any]:
        """All that is no tensor, ready for JSON."""
        return {name: getattr(self, name) for name in _NUMBERS} | {"horizon": asdict(self.horizon)}

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Take over a saved state, in place.

        Raises:
            DamagedFileError: Tensors or numbers that do not fit this run's model.
        """
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            self.model.load_state_dict(divided_like(parts["model"], self.model.state_dict()))
            self.ema.model.load_state_dict(divided_like(parts["ema"], self.ema.model.state_dict()))
            self._load_moments(parts["optimizer"])
            self.horizon = Horizon(**numbers["horizon"])
            for name in _NUMBERS:
                setattr(self, name, type(getattr(self, name))(numbers[name]))
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise DamagedFileError(f"does not fit this run ({reason}); was config.yaml edited?") from error

    def _load_moments(self, named: Mapping[str, Tensor]) -> None:
        groups = self.optimizer.param_groups
        parameters = dict(enumerate(parameter for group in groups for parameter in group["params"]))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in named.items():
            index, _, moment = name.partition(".")
            own = divided_like({moment: tensor}, {moment: parameters.get(int(index))})
            state.setdefault(int(index), {}).update(own)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


_NUMBERS = (
    *("step", "elapsed_s", "lr_scale", "refused", "attempt", "rollbacks", "data_fingerprint"),
    *("teacher_fingerprint", "best_loss", "best_progress"),
)
