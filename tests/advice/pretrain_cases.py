"""Cases of learning without labels, and of the commands that came with it."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from tests.advice.data_cases import images
from tests.advice.key_cases import config
from tests.advice.walk import Refusals, case

import vitreous as vt
from vitreous.cli.completion import completion
from vitreous.cli.train.pretrain import PretrainOptions, _check_pretrains, pretrain
from vitreous.data.sources import check_task, open_source
from vitreous.data.survey.facts import survey
from vitreous.recipe.files import write_config
from vitreous.recipe.shipped import SHIPPED
from vitreous.recipe.without_labels import check_without_labels
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import members
from vitreous.use.export.page.pack import _check
from vitreous.use.predict.classes import check_has_classes

MAE: dict[str, Any] = {"objective.loss": "mae"}
VIEWS: dict[str, Any] = {"objective.loss": "lejepa", "data.repeats": 2}
KEYS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    ({"train.pretrain_ratio": 0.5, "train.epochs": 0.0, "train.pretrained": "run", "train.head_init": "fitted"},
     "use more epochs", {"train.epochs": 1.0}),
    (MAE | {"train.patience_ratio": 0.5}, "leave it out", {"train.patience_ratio": 0.0}),
    ({"data.task": "unlabeled"}, "use `vitreous pretrain`", MAE),
    ({"objective.mask_ratio": 0.5}, "leave it out", {"objective.mask_ratio": 0.75}),
    ({"objective.mask_ratio": 0.5}, "or learn without labels", MAE),
    (MAE | {"train.parallel": "fsdp"}, "use train.parallel=ddp", {"train.parallel": "ddp"}),
    (MAE | {"model.patch_size": 1, "data.in_chans": 1}, "use larger patches", {"model.patch_size": 2}),
    (MAE | {"model.patch_size": 1, "data.in_chans": 1}, "or objective.loss=simmim", {"objective.loss": "simmim"}),
    (MAE | {"model.patch_size": 24}, "use smaller patches", {"model.patch_size": 12}),
    (VIEWS | {"data.repeats": 1}, "use 2 or more", {"data.repeats": 2}),
    (VIEWS | {"data.repeats": 1}, "or objective.loss=mae", MAE),
    (VIEWS | {"train.micro_batches": 2}, "use train.micro_batches=1", {"train.micro_batches": 1}),
)  # fmt: skip


@case
def keys_without_labels(folder: Path) -> Refusals:
    for wrong, advice, change in KEYS:
        yield lambda wrong=wrong: check_without_labels(config(wrong)), advice
        check_without_labels(config(wrong | change))
    facts, recipe = survey(open_source("digits")).facts, SHIPPED["pretrain"]
    yield lambda: recipe(facts, {"objective.loss": "bce"}), "use mae, simmim or lejepa"
    assert recipe(facts, {"objective.loss": "mae"})
    yield lambda: members(TrainRequest(seeds=3, values={"objective.loss": "mae"})), "pretrain once"
    assert len(members(TrainRequest(seeds=3))) == 3


@case
def images_without_labels(folder: Path) -> Refusals:
    yield lambda: open_source("digits", task="unlabeled"), "leave the task out"
    digits = open_source("digits")
    yield lambda: check_task(digits, "unlabeled"), "leave the task out"
    check_task(digits, "auto")
    photos = images(folder / "photos")
    (folder / "empty").mkdir()
    yield lambda: open_source(folder / "empty", task="unlabeled"), "use a folder of images"
    with patch.object(os, "scandir", side_effect=PermissionError(13, "Permission denied", str(photos))):
        yield lambda: open_source(photos, task="unlabeled"), "check the path and its permissions"
    assert len(open_source(photos, task="unlabeled")) == 2


@case
def runs_without_labels(folder: Path) -> Refusals:
    yield lambda: pretrain("digits", options=PretrainOptions(method="bce")), "use one of lejepa, mae, simmim"
    run = RunFolder(folder)
    write_config(run.config, config({}))
    yield lambda: _check_pretrains(folder), "continue it with `vitreous train --resume"
    write_config(run.config, config(MAE))
    _check_pretrains(folder)
    yield lambda: check_has_classes({"pretraining": {}}, run.model), "train it on labeled images"
    check_has_classes({}, run.model)
    yield lambda: completion("bsh"), "did you mean bash?"
    completion("bash")


@case
def page_of_a_model_with_parts_of_ones_own(folder: Path) -> Refusals:
    vt.register("paged", change_model=lambda model: None)

    def check(extension: str | None) -> None:
        model = vt.create_model("vit_pico_patch4_28", extension=extension)
        _check(SimpleNamespace(model=model, preprocess=SimpleNamespace(in_chans=3, value_range=())))

    yield lambda: check("paged"), "use `vitreous predict` for this model"
    check(None)
