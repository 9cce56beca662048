"""Cases of `use/batch/` and of what `vitreous predict` reads: folders of tables, clusters, lists of images."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

from PIL import Image
from tests.advice.run_cases import model_file
from tests.advice.walk import Refusals, case

from vitreous.cli.look.predict import PredictOptions, predict
from vitreous.data.decoding.depth import Clipped
from vitreous.data.sources.table import read_paths
from vitreous.training.folder.records import ignore
from vitreous.use.batch.cluster import RayWorkers, connected
from vitreous.use.batch.job import Job, Part
from vitreous.use.batch.part_folder import PartFolder, make_request
from vitreous.use.batch.workers import Death, Worker, Workers, do_parts
from vitreous.use.evaluate.sets.decide import Decisions
from vitreous.use.predict.listing import list_data
from vitreous.use.predict.predictor import Predictor


@case
def folders_of_tables(folder: Path) -> Refusals:
    job = Job.of(Predictor.load(model_file(folder / "a.safetensors")), Decisions(), ".csv")
    request = make_request(job, {"count": 300, "sha256": "1"}, {"tta": 1})
    (folder / "photos").mkdir()
    (folder / "photos" / "a.png").touch()

    def opened(name: str, **changes: Any) -> PartFolder:
        with PartFolder.opened(folder / name, {**request, **changes}, ignore) as found:
            return found

    yield lambda: opened("photos"), "name a new or empty folder"
    assert opened("new").missing() == [0, 1]
    yield lambda: opened("no/new"), "choose another folder"
    yield lambda: opened("new", options={"tta": 2}), "choose another folder, or delete it to start again"
    (folder / "new" / "manifest.json").write_text(json.dumps([]))
    yield lambda: opened("new"), "choose another folder, or delete it to start again"
    assert opened("newer").missing() == [0, 1]


@case
def options_for_folders(folder: Path) -> Refusals:
    model, image = model_file(folder / "a.safetensors"), folder / "a.png"
    Image.new("RGB", (12, 12)).save(image)

    def call(**options: Any) -> None:
        predict(model, [str(image)], options=PredictOptions(device="cpu", **options))

    yield lambda: call(workers=1), "add --out FOLDER"
    call(workers=1, out=folder / "parts")
    yield lambda: call(workers=1, out=folder / "more", address="10.0.0.1:6379"), "add --engine ray"
    yield lambda: call(out=Path("s3:/bucket/more")), "name a folder of this machine, and copy it afterwards"
    with patch.dict(sys.modules, {"ray": None}):
        yield lambda: call(out=folder / "more", engine="ray"), "run `pip install 'vitreous[ray]'`"
    call(out=folder / "more")


@case
def clusters(folder: Path) -> Refusals:
    job = Job.of(Predictor.load(model_file(folder / "a.safetensors")), Decisions(), ".csv")
    ray = Mock(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 3.0}}])
    yield lambda: RayWorkers(ray, job, "cuda:1", 1), "use auto, cpu or cuda"
    yield lambda: RayWorkers(ray, job, "cuda", 1), "use auto or cpu"
    assert RayWorkers(ray, job, "auto", 1).count == 3
    unreachable = SimpleNamespace(init=Mock(side_effect=ConnectionError("no answer")))
    with patch.dict(sys.modules, {"ray": unreachable}):
        yield lambda: connected("10.0.0.1:1").__enter__(), "check the address, or leave it out to use this machine"
    with patch.dict(sys.modules, {"ray": ray}), connected(None):
        ray.init.assert_called_once()
    yield lambda: replace(job, version="0.0").begin("cpu", 1), "install the same version on all machines"


class _Dying(Worker, Workers):
    """A worker that dies until there are no deaths left; it also starts itself again."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.is_ready = deaths, False

    def begin(self, images: Sequence[Any]) -> None:
        """Do nothing."""

    def result(self) -> Part | Death | None:
        if self.deaths:
            self.deaths -= 1
            return Death("exit code -9")
        was_ready, self.is_ready = self.is_ready, True
        return Part(b"", 1, 0, (), Clipped()) if was_ready else None

    def stop(self) -> None:
        """Do nothing."""

    def start(self) -> Worker:
        return self

    def finished(self, busy: Sequence[Worker]) -> Sequence[Worker]:
        return busy


@case
def workers_that_die(folder: Path) -> Refusals:
    parts = [(0, [("a", b"")])]
    yield lambda: list(do_parts(_Dying(3), 1, parts, 1)), "run the command again with fewer --workers to continue"
    assert len(list(do_parts(_Dying(2), 1, parts, 1))) == 1


@case
def data_to_classify(folder: Path) -> Refusals:
    yield lambda: list_data([str(folder / "gone")]), "give images, folders, tables of paths, exports or tar files"
    (folder / "a.tar").write_bytes(bytes(1024))
    yield lambda: list_data([str(folder / "a.tar")]), "give images, or tar files that hold some"
    Image.new("RGB", (12, 12)).save(folder / "a.png")
    table = folder / "list.csv"
    table.write_text("path\n\n")
    yield lambda: read_paths(table), "add one row per image"
    table.write_text("path,x\n,1\n")
    yield lambda: read_paths(table), "fill it in or delete the row"
    table.write_text("path,x\na.png,1\n")
    assert len(list_data([str(table), str(folder / "a.png")])) == 2
