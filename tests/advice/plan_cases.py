"""Cases of planning a run: keys that do not fit the data, the model or the machine, and what Python passes."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from tests.advice.data_cases import images
from tests.advice.model_cases import TINY
from tests.advice.walk import Refusals, case

import vitreous as vt
from vitreous import atomic
from vitreous.cli.train.train import TrainOptions, train
from vitreous.data.sources import open_object
from vitreous.model import ModelConfig, build_model
from vitreous.optim.config import OptimConfig
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe import keys
from vitreous.recipe.plan import Plan
from vitreous.training.machine import device as devices
from vitreous.training.machine.launch import launch
from vitreous.training.measure.instruments import REAL
from vitreous.training.request import TrainRequest
from vitreous.training.start import dry_run
from vitreous.training.step import compiled

PHOTOS = tuple(f"{name}/{number}.png" for name in ("ant", "bee") for number in range(6))
QUICK: Mapping[str, Any] = {"train.epochs": 1, "data.cache": "none", "train.device": "cpu"}


def plan(data: Path, *, recipe: str | None = None, memory: float = 0.1, **options: Any) -> Plan:
    """Plan a run on a small model."""
    values = {**QUICK, **{key.replace("__", "."): value for key, value in options.items()}}
    request = TrainRequest(data=str(data), recipe=recipe, model="vit_pico", values=values)
    return dry_run(request, instruments=replace(REAL, memory_share=lambda _: memory))[1]


@case
def keys_that_do_not_fit_the_data(folder: Path) -> Refusals:
    images(folder, *PHOTOS)
    yield lambda: plan(folder, data__num_classes=3), "leave the key out, since the data decides it"
    yield lambda: plan(folder, data__in_chans=5), "use 3"
    assert plan(folder, data__in_chans=3)
    yield lambda: plan(folder, data__sampler="weighted"), "use balanced or shuffle"
    assert plan(folder, data__sampler="balanced")
    assert plan(folder, data__sampler="shuffle")


@case
def sizes_that_do_not_fit(folder: Path) -> Refusals:
    images(folder, *PHOTOS)
    yield lambda: plan(folder, data__img_size="97x97"), "use 96x96, or set model.patch_size"
    assert plan(folder, data__img_size="96x96")
    assert plan(folder, data__img_size="97x97", model__patch_size=97)
    yield lambda: plan(folder, data__img_size="25x25", model__stem="conv"), "use 24x24"
    assert plan(folder, data__img_size="24x24", model__stem="conv")
    advice = "use sizes of which one is half of the other"
    yield lambda: plan(folder, data__img_size="97x97", train__start_img_size="60x60"), advice
    assert plan(folder, data__img_size="96x96", train__start_img_size="48x48")


@case
def machines_that_are_too_small(folder: Path) -> Refusals:
    images(folder, *PHOTOS)
    yield (
        lambda: plan(folder, memory=11.0),
        "use a smaller model, smaller images, larger patches or more train.micro_batches",
    )
    assert plan(folder, memory=9.0)
    with patch.object(compiled.shutil, "which", return_value=None):
        yield lambda: plan(folder, train__compile="default"), "or use train.compile=none"
        assert plan(folder, train__compile="none")
    with patch.object(compiled.shutil, "which", lambda name: "/bin/x" if name == "g++" else None):
        assert plan(folder, train__compile="default")
    with patch.object(devices, "has_tf32", return_value=False):
        yield lambda: plan(folder, train__precision="tf32"), "use auto or fp32"
    assert plan(folder, train__precision="auto")
    assert plan(folder, train__precision="fp32")


@case
def several_processes(folder: Path) -> Refusals:
    launched = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    with patch.dict(os.environ, launched), patch.object(devices.torch.cuda, "device_count", return_value=1) as count:
        yield lambda: devices.resolve_device("cuda:0"), "use auto, cuda or cpu"
        yield lambda: devices.resolve_device("cuda"), "start 1 process, or use cpu"
        count.return_value = 0
        yield lambda: devices.resolve_device("cuda"), "finds 0 GPUs; use cpu"
        assert devices.resolve_device("cpu").type == "cpu"
        yield lambda: train("digits", options=TrainOptions(seeds=2)), "start it once, as `vitreous train … --nproc N`"
        yield lambda: launch(lambda: None, 2), "leave out --nproc"
    launched["LOCAL_WORLD_SIZE"] = "1"
    with patch.dict(os.environ, launched), patch.object(devices.torch.cuda, "device_count", return_value=1):
        assert devices.resolve_device("cuda").type == "cuda"


@case
def requests_from_python(folder: Path) -> Refusals:
    images(folder, *PHOTOS)
    yield lambda: vt.train(str(folder), config=["optim.lr"]), "use {'optim.lr': 1e-3}"  # type: ignore[arg-type]
    yield lambda: vt.train(str(folder), out=" "), "give the path of a file or folder"
    yield lambda: vt.load_model(3), "give the path of a file or folder"  # type: ignore[arg-type]
    source = open_object([(np.full((8, 8, 3), number, np.uint8), number % 2) for number in range(12)])
    request = TrainRequest(source=source, values={**QUICK, "data.root": str(folder)})
    yield lambda: dry_run(request), "leave it out"
    assert dry_run(replace(request, values={**QUICK, "optim.lr": 1e-3}))
    yield lambda: dry_run(TrainRequest(resume=folder)), "leave the dry run out"
    yield lambda: keys.architecture({"num_head": 4}), "did you mean num_heads?"
    assert keys.architecture({"num_heads": 4})
    yield lambda: plan(folder, recipe="distill"), "give --teacher auto, RUN or FILE"


@case
def optimizers(folder: Path) -> Refusals:
    model = build_model(ModelConfig(**TINY))
    model.encoder.requires_grad_(False)
    yield lambda: build_optimizer(model, OptimConfig(name="muon")), "use optim.name=adamw"
    assert build_optimizer(model, OptimConfig(name="adamw"))


@case
def folders_that_cannot_be_written(folder: Path) -> Refusals:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    yield lambda: atomic.write_folder(folder / "x", full), "free some space or choose another folder"
    atomic.write_folder(folder / "x", lambda path: None)
    assert (folder / "x").is_dir()
