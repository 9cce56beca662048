"""Cases of `training/`: runs that are stopped, resumed with other data, damaged, or end in an error."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from tests.advice.run_cases import model_file
from tests.advice.walk import Refusals, case
from tests.pictures import write_pictures
from tests.unit.model.weights.samples import HEADS, plain_state, write_as
from tests.unit.training.conftest import TINY_KEYS
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from vitreous.data.sources import open_object
from vitreous.model import build_model
from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.recipe.files import read_config
from vitreous.training.fit.checkpoint import list_checkpoints, load_checkpoint
from vitreous.training.folder import access
from vitreous.training.folder.access import check_free, create_run_folder
from vitreous.training.folder.loggers import _import
from vitreous.training.folder.records import Listener, Recorder, ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine import launch as launching
from vitreous.training.moved import reopen_data
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.training.start import run_training
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.weights.pretrained import full_source, open_pretrained
from vitreous.use.convert import convert

COLORS = {"apple": ((220, 30, 40), 12), "kiwi": ((60, 190, 50), 12), "plum": ((80, 40, 170), 12)}


def fruit(folder: Path, name: str = "fruit") -> Path:
    return write_pictures(folder / name, COLORS, seed=7, name="{}.png", noise=40)


def request(folder: Path, out: str = "run", **options: Any) -> TrainRequest:
    """Ask for a run of a few steps on the fruit."""
    values = {**TINY_KEYS, "data.cache": "none", **{key.replace("__", "."): value for key, value in options.items()}}
    return TrainRequest(data=str(folder / "fruit"), values=values, out=folder / out)


def stopped(asked: TrainRequest) -> RunFolder:
    """Train until a checkpoint is written, and stop as a crash does."""

    def stop(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "step":
            raise RuntimeError("stopped")

    try:
        run_training(replace(asked, values={**asked.values, "train.checkpoint_every_s": 0}), stop)
    except RuntimeError:
        return RunFolder(asked.out or Path())
    raise AssertionError("the run has ended")


def resume(run: RunFolder, **options: Any) -> RunFolder:
    return run_training(TrainRequest(resume=run.path, **options))


@case
def data_of_a_run_that_changed(folder: Path) -> Refusals:
    data = fruit(folder)
    run = stopped(request(folder, "my run"))
    moved = data.rename(folder / "moved")
    yield lambda: resume(run), f"give its new place: `vitreous train --resume '{run.path}' --data NEW`"
    assert reopen_data(run, TrainRequest(resume=run.path, data=str(moved)), ignore)
    moved.rename(data)
    assert reopen_data(run, TrainRequest(resume=run.path, data=str(data)), ignore)
    (data / "kiwi" / "0.png").rename(folder / "0.png")
    yield lambda: resume(run), f"restore {data}, or start a new run"
    shutil.copytree(data, moved)
    yield lambda: resume(run, data=str(moved)), "give the data that it started with, or start a new run"
    records = run.records.rename(folder / "records")
    yield lambda: resume(run), f"restore {data}, or start a new run"
    records.rename(run.records)
    (folder / "0.png").rename(data / "kiwi" / "0.png")
    source = open_object([(torch.zeros(3, 8, 8), number % 2) for number in range(9)])
    yield lambda: resume(run, source=source), "give no data with resume, or its path if it has moved"
    assert resume(run).model.is_file()


@case
def checkpoints(folder: Path) -> Refusals:
    fruit(folder)
    run = stopped(request(folder))
    text, paths = run.config.read_text(), list_checkpoints(run.checkpoints)
    run.config.write_text(text.replace("embed_dim: 16", "embed_dim: 20"))
    yield lambda: resume(run), "undo the edit, or train again with --out"
    run.config.write_text(text)
    contents = [path.read_bytes() for path in paths]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content[:-4] + b"\x01\x02\x03\x04")
    yield lambda: load_checkpoint(paths[-1], None), "the checkpoint before it is used"  # type: ignore[arg-type]
    yield lambda: resume(run), "the file was changed or damaged); train again with --out"
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    model = build_model(read_config(run.config).model)
    state = TrainState(model, Ema(model), build_optimizer(model, OptimConfig()), Horizon(9))
    yield lambda: state.load({}, state.numbers()), "undo the edit, or train again with --out"
    load_checkpoint(paths[-1], state)
    assert resume(run).model.is_file()


@case
def losses_that_are_not_finite(folder: Path) -> Refusals:
    fruit(folder)
    yield lambda: run_training(request(folder, optim__lr=1e30, train__max_retries=0)), "lower optim.lr"
    assert run_training(request(folder, "second", optim__lr=1e-3)).model.is_file()


@case
def images_that_cannot_be_decoded(folder: Path) -> Refusals:
    data = fruit(folder)
    broken = data / "kiwi" / "0.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:-60])
    asked = request(folder, data__on_error="error")
    yield lambda: run_training(asked), "fix or remove it, or set data.on_error=skip"
    assert run_training(request(folder, "skipped", data__on_error="skip")).model.is_file()
    broken.write_bytes(content)
    assert run_training(replace(asked, out=folder / "fixed")).model.is_file()
    contents = {path: path.read_bytes() for path in data.glob("[kp]*/*.png")}
    for path in contents:
        path.write_bytes(contents[path][:-60])
    yield lambda: run_training(request(folder, "none")), "fix the others, of which the first is"
    for path in contents:
        path.write_bytes(contents[path])
    assert run_training(request(folder, "all")).model.is_file()


@case
def runs_that_would_learn_nothing(folder: Path) -> Refusals:
    fruit(folder)
    with patch("vitreous.training.measure.overfit.MOST_STEPS", 60):
        asked = request(folder, train__overfit_one_batch=True, optim__lr=1e-12)
        yield lambda: run_training(asked), "check the labels of the images and optim.lr=1e-12"
        assert run_training(request(folder, "second", train__overfit_one_batch=True, optim__lr=0.003)).model.is_file()


@case
def teachers(folder: Path) -> Refusals:
    fruit(folder)
    teacher = model_file(folder / "teacher" / "model.safetensors", classes=["apple", "kiwi", "plum"])
    for number, classes in enumerate((["a", "kiwi", "plum"], ["apple", "kiwi"])):
        other = model_file(folder / f"{number}" / "model.safetensors", num_classes=len(classes), classes=classes)
        assert run_training(request(folder, f"f{number}", objective__teacher=str(other))).model.is_file()
    untiled = {"objective__teacher": str(teacher), "objective__teacher_img_size": (9, 13)}
    yield lambda: run_training(request(folder, **untiled)), "which have 4 px; use 8x12"
    assert run_training(request(folder, "tiled", **untiled | {"objective__teacher_img_size": (8, 12)})).model.is_file()
    open_file = write_as("pt", folder, plain_state())
    yield (
        lambda: run_training(request(folder, objective__teacher=str(open_file))),
        f"`vitreous convert {open_file} --to vitreous --architecture.num_heads VALUE`",
    )
    answered = convert(
        str(open_file), to="vitreous", out=folder / "teacher.safetensors", architecture=HEADS, check=False
    )
    feature = request(folder, "answered", objective__teacher=str(answered.path), objective__distill="feature")
    assert run_training(feature).model.is_file()
    run = stopped(request(folder, "same", objective__teacher=str(teacher)))
    content = teacher.read_bytes()
    model_file(teacher, classes=["apple", "kiwi", "plum"])
    yield lambda: resume(run), f"restore {teacher}, or start a new run"
    teacher.write_bytes(content)
    assert resume(run).model.is_file()


@case
def folders_of_runs_that_cannot_be_created(folder: Path) -> Refusals:
    yield lambda: check_free(folder / "a\udcff"), "choose another folder"
    full = OSError(28, "No space left on device")
    with patch.object(Path, "mkdir", side_effect=full):
        yield lambda: create_run_folder(folder / "a", "x"), "choose another folder"
        yield lambda: access.create_numbered(folder, "x"), "choose another folder"
    out, make = folder / "b", Path.mkdir
    for error, advice in ((full, "choose another folder"), (FileExistsError(), "choose another folder")):

        def mkdir(self: Path, error: OSError = error, **options: Any) -> None:
            if not options["exist_ok"]:
                raise error
            make(self, **options)

        with patch.object(Path, "mkdir", mkdir):
            yield lambda: create_run_folder(out, "x"), advice
    with patch.object(Path, "mkdir", partialmethod(mkdir, full)):
        yield lambda: access.create_numbered(folder, "x"), "choose another folder"
    assert create_run_folder(folder / "c", "x").checkpoints.is_dir()
    with patch.object(Path, "open", side_effect=full):
        yield lambda: Recorder(folder / "records.jsonl").record("x", {}), "free some space"
    Recorder(folder / "records.jsonl").record("x", {})
    with patch.dict(sys.modules, {"mlflow": None}):
        yield lambda: _import("mlflow"), "pip install mlflow"
    with patch.dict(sys.modules, {"mlflow": ModuleType("mlflow")}):
        assert _import("mlflow")


@case
def processes_that_fail(folder: Path) -> Refusals:
    failed = ChildFailedError("x", {0: ProcessFailure(local_rank=0, pid=1, exitcode=3, error_file="")})

    def fail(*arguments: object) -> None:
        raise failed

    def begin_and_fail(*arguments: object) -> None:
        launching.note_run(folder / "my run")
        raise failed

    for work, advice in ((fail, "add --debug"), (begin_and_fail, f"`vitreous train --resume '{folder}/my run'`")):
        with patch.object(launching, "elastic_launch", lambda *_, work=work: work):
            yield lambda: launching.launch(print, 1), advice
    with patch.object(launching, "elastic_launch", lambda *_: lambda *_: {0: None}):
        launching.launch(print, 1)


@case
def series_of_runs(folder: Path) -> Refusals:
    data, trained = fruit(folder), list[TrainRequest]()

    def train(asked: TrainRequest, listener: Listener) -> None:
        trained.append(asked)

    def run(asked: TrainRequest) -> object:
        return run_series(asked, lambda _: None, ignore, train)

    yield lambda: run(TrainRequest(data=str(data), out=folder / "none")), "use 5, or train a single run"
    assert run(replace(request(folder, "series"), folds=5))
    assert len(trained) == 5
    source = open_object([(torch.zeros(3, 8, 8), number % 2) for number in range(9)])
    yield lambda: run(TrainRequest(resume=folder / "series", source=source)), "give no data with resume"
    advice = "start a new series with the data at its new place"
    moved = data.rename(folder / "moved")
    yield lambda: run(TrainRequest(resume=folder / "series", data=str(moved))), advice
    assert run(replace(request(folder, "new"), data=str(moved), folds=5))
    assert run(TrainRequest(resume=folder / "series"))


@case
def pretrained_weights(folder: Path) -> Refusals:
    fruit(folder)
    path = str(model_file(folder / "model.safetensors"))
    yield lambda: open_pretrained(path, {"model.depth": 3}), "remove this key"
    assert open_pretrained(path, {})
    yield lambda: full_source("dinov2-smal"), "did you mean dinov2-small?"
    assert full_source("dinov2-small").startswith("hf://")
    own = {key: value for key, value in TINY_KEYS.items() if not key.startswith("model.")}
    asked = replace(request(folder), values={**own, "train.pretrained": path, "model.pool": "map"})
    yield lambda: run_training(asked), "remove all model.* keys"
    assert run_training(replace(asked, values={**own, "train.pretrained": path}, out=folder / "b")).model.is_file()
