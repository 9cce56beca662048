"""Cases of `extensions.py`: names without parts, files that cannot be imported, and parts that do not fit."""

from pathlib import Path
from typing import Any

import torch
from tests.advice.walk import Refusals, case
from torch.nn import functional as F

import vitreous as vt
from vitreous.extensions import import_file
from vitreous.objective.build import build_task
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.own import OwnLoss
from vitreous.training.step.learner import with_own_loss


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


@case
def parts_under_a_name(folder: Path) -> Refusals:
    def make() -> object:
        return vt.create_model("vit_pico_patch4_28", extension="advised")

    yield lambda: vt.register("my loss", loss=losses), "use letters, digits and underscores"
    yield lambda: vt.register("advised"), "give change_model, loss or augment"
    yield make, "on the command line with --import FILE"
    file = folder / "parts.txt"
    file.write_text("import vitreous\nvitreous.register('advised', loss=print")
    yield lambda: import_file(file), "give a .py file that exists"
    file = file.rename(folder / "parts.py")
    yield lambda: import_file(file), "correct the file"
    file.write_text(f"{file.read_text()})")
    import_file(file)
    make()


@case
def losses_that_do_not_fit(folder: Path) -> Refusals:
    def loss_of(function: Any) -> float:
        return float(OwnLoss(function)(torch.zeros(2, 3), torch.tensor([0, 1])))

    def task_of(**objective: Any) -> object:
        return with_own_loss(build_task(ObjectiveConfig(**objective)), "fitting")

    yield lambda: loss_of(F.cross_entropy), "return one number for each image"
    loss_of(losses)
    vt.register("fitting", loss=losses)
    yield lambda: task_of(loss="bce"), "leave out objective.loss"
    task_of()
