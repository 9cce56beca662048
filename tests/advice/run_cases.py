"""Cases of `training/` and `use/`: run folders, devices, requests, and paths to read or write."""

import json
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image
from tests.advice.model_cases import TINY
from tests.advice.walk import Refusals, case

from vitreous.atomic import write_text
from vitreous.cli.look.embed import embed
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.model import ModelConfig, build_model, load_model, save_model
from vitreous.training.fit.familiarity import Familiarity, write_familiarity
from vitreous.training.folder.access import check_free, create_run_folder, exclusive, open_run_folder
from vitreous.training.folder.records import ignore
from vitreous.training.machine.device import resolve_device, resolve_precision
from vitreous.training.machine.launch import launch
from vitreous.training.request import TrainRequest
from vitreous.training.series import members
from vitreous.training.start import dry_run, run_training
from vitreous.use.convert import convert
from vitreous.use.doctor.page import check_page_path
from vitreous.use.embed.embedder import Embedder
from vitreous.use.embed.embeddings import check_clusters, check_top
from vitreous.use.inspect import DataOptions, inspect
from vitreous.use.predict.inputs import list_images
from vitreous.use.predict.predictor import Predictor, find_model
from vitreous.use.predict.table import check_table_path
from vitreous.use.run import Run
from vitreous.use.series.series import Series


def model_file(path: Path, *, num_classes: int = 3, **changes: object) -> Path:
    """Write a model with what prediction needs."""
    preprocess = Preprocess(img_size=(12, 12), in_chans=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    metadata = {"classes": ["a", "b", "c"], "preprocess": preprocess.as_dict(), "temperature": 1.0, "metrics": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, build_model(ModelConfig(**{**TINY, "num_classes": num_classes})), {**metadata, **changes})
    return path


@case
def folders_of_runs(folder: Path) -> Refusals:
    run = create_run_folder(folder / "run", "x")
    with exclusive(run.path, ignore):
        yield lambda: exclusive(run.path, ignore).__enter__(), "wait until it ends, or stop it first"
    with exclusive(run.path, ignore):
        yield lambda: check_free(run.path), "choose another folder"
    check_free(folder / "other")
    yield lambda: open_run_folder(folder / "gone"), "use one of" if Path("runs").exists() else "create one with"
    run.config.touch()
    assert open_run_folder(run.path)
    yield lambda: check_free(run.path), f"continue it with --resume {run.path}"
    yield lambda: find_model(run.path), f"continue it with `vitreous train --resume {run.path}`"
    yield lambda: Run(folder / "empty"), "train a model with `vitreous train DATA`"
    model_file(run.model)
    yield lambda: Run(folder / "runn"), f"did you mean {run.path}?"
    assert Run(run.path).classes == ("a", "b", "c")
    (run.checkpoints / "step-000000001.safetensors").touch()
    yield lambda: find_model(run.checkpoints / "step-000000001.safetensors"), f"give the run folder {run.path}"
    yield lambda: find_model(run.checkpoints), "give a run folder that `vitreous train` made"
    Image.new("RGB", (12, 12)).save(folder / "a.png")
    yield lambda: find_model(folder / "a.png"), "give the run first, as in `vitreous predict RUN IMAGE`"
    assert Run(run.path).predict(folder / "a.png")[0].error == ""


@case
def folders_of_series(folder: Path) -> Refusals:
    yield lambda: Series(folder), "`--folds 5` makes one"
    (folder / "series.json").write_text("{")
    yield lambda: Series(folder), "restore it"
    (folder / "series.json").write_text(json.dumps({"data": "digits", "folds": 3}))
    assert Series(folder).runs == []
    yield lambda: find_model(folder), "wait until a run is finished"
    model_file(folder / "fold-0" / "model.safetensors")
    yield lambda: find_model(folder), f"give one of them, e.g. {folder}/fold-0"
    assert find_model(folder / "fold-0")
    yield lambda: open_run_folder(folder), f"continue with `vitreous train --resume {folder}`"


@case
def files_without_metadata(folder: Path) -> Refusals:
    path = folder / "model.safetensors"
    for changes in ({"temperature": 0.0}, {"temperature": "x"}, {"classes": ["a"]}):
        model_file(path, **changes)
        yield lambda: Predictor.load(path), "use the model file of a run"
    assert Predictor.load(model_file(path))


@case
def familiarity_of_other_weights(folder: Path) -> Refusals:
    path = folder / "familiarity.safetensors"
    found = Familiarity(torch.ones(4, 16).half(), torch.zeros(4).long(), False, known=torch.zeros(19).double())
    write_familiarity(path, found, load_model(model_file(folder / "other" / "model.safetensors")))
    run = Run(model_file(folder / "model.safetensors"))
    Image.new("RGB", (12, 12)).save(folder / "a.png")
    yield (
        lambda: run.predict(folder / "a.png"),
        "move it to another folder; images are then not compared with the training images",
    )
    path.unlink()
    assert run.predict(folder / "a.png")[0].error == ""


@case
def requests_for_runs(folder: Path) -> Refusals:
    yield lambda: run_training(TrainRequest()), "give a folder of class folders, or one of digits"
    yield lambda: run_training(TrainRequest(data="digits", recipe="digit")), "did you mean digits?"
    yield lambda: dry_run(TrainRequest(recipe="digits")), "give a folder or the name of a data set"
    yield (
        lambda: run_training(TrainRequest(resume=folder, model="vit_tiny")),
        "leave out all options except --data and --data.root",
    )
    yield lambda: members(TrainRequest(folds=1)), "use 5, or leave it out for a single run"
    yield lambda: members(TrainRequest(seeds=10**9)), "use 5, or leave it out for a single run"
    yield lambda: members(TrainRequest(folds=5, values={"data.fold": 1})), "leave it out"
    assert len(members(TrainRequest(folds=5))) == 5
    assert len(members(TrainRequest())) == 1


@case
def devices(folder: Path) -> Refusals:
    with (
        patch.object(torch.cuda, "device_count", return_value=0),
        patch.object(torch.cuda, "is_available", lambda: False),
    ):
        yield lambda: resolve_device("gpu"), "use auto or cpu"
        yield lambda: resolve_device("cuda:1"), "use auto or cpu"
        assert resolve_device("auto") == resolve_device("cpu")
    yield lambda: resolve_device("cdua"), "did you mean cuda?"
    with patch.object(torch.cuda, "device_count", return_value=2):
        yield lambda: resolve_device("cuda:2"), "use cuda:0 to cuda:1"
        yield lambda: resolve_device("gpu"), "use cuda"
        assert resolve_device("cuda:1").index == 1
    cpu = torch.device("cpu")
    yield lambda: resolve_precision("fp23", cpu), "did you mean fp32?"
    assert resolve_precision("fp32", cpu) == "fp32"
    yield lambda: launch(lambda: None, 0), "use the number of GPUs, or 1 for one process"


@case
def embeddings(folder: Path) -> Refusals:
    model, image, lone = model_file(folder / "run" / "model.safetensors"), folder / "a.png", folder / "b.png"
    Image.new("RGB", (12, 12)).save(image)
    lone.write_bytes(b"no image")
    yield lambda: embed(str(model), [image]), "use --out FILE, --nearest IMAGE, --duplicates or --clusters NUMBER"
    yield lambda: check_top(0), "use e.g. 10"
    yield lambda: check_clusters(2, 1), "use a number in this range"
    yield lambda: Embedder.load(model, img_size=(13, 12)), "use 12x12"
    found = Embedder.load(model, img_size=(12, 12)).embed(image)
    yield lambda: found.nearest(found.vectors[0]), "use vectors of this model"
    none = Embedder.load(model).embed(lone)
    yield lambda: none.nearest(found.vectors), "give at least one readable image"
    check_top(10)
    check_clusters(1, 1)
    assert found.nearest(found.vectors)


@case
def paths_to_read(folder: Path) -> Refusals:
    yield lambda: list_images([folder]), "give images or a folder of them"
    yield lambda: list_images([folder / "gone.png"]), "give images or folders of them"
    Image.new("RGB", (12, 12)).save(folder / "a.png")
    assert list_images([folder]) == list_images([folder / "a.png"])
    yield lambda: inspect(str(folder / "a.png")), "give a folder of class folders, a run or a model"
    yield lambda: inspect(str(folder / "gone")), "give an existing path"
    (folder / "photos").mkdir()
    yield lambda: inspect(str(folder / "photo")), f"did you mean {folder}/photos?"
    yield lambda: inspect("digits", options=DataOptions(root=folder)), "leave it out"
    yield lambda: inspect("vit_tiny_patch16_224", options=DataOptions(pretrained=str(folder))), "leave it out"
    assert inspect("vit_tiny_patch16_224")


@case
def paths_to_write(folder: Path) -> Refusals:
    for check, name in ((check_table_path, "classes.csv"), (check_page_path, "doctor.html")):
        yield lambda check=check: check(folder / "x.txt"), name.rpartition(".")[2]
        yield lambda check=check, name=name: check(folder / "gone" / name), "create it first"
        (folder / name).mkdir()
        yield lambda check=check, name=name: check(folder / name), f"name a file, e.g. {folder}/{name}/{name}"
        check(folder / name / name)
    with patch.object(Path, "open", side_effect=OSError(28, "No space left on device")):
        yield lambda: write_text(folder / "x", "x"), "free some space or choose another folder"
    write_text(folder / "x", "x")
    source = str(model_file(folder / "model.safetensors"))
    yield lambda: convert(source, to="tim", out=folder / "y"), "did you mean timm?"
    yield lambda: convert(source, to="timm", out=folder / "x"), "choose another name with --out"
    assert convert(source, to="timm", out=folder / "y.safetensors", check=False)
