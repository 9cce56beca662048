"""Series of runs: what the runs share, what differs, and how an interrupted series continues."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from vitreous.errors import ConfigError, DamagedFileError, DataError, NotARunError, RunError
from vitreous.model.weights import load_model
from vitreous.recipe import keys
from vitreous.recipe.files import read_config, write_config
from vitreous.training import series
from vitreous.training.fit.checkpoint import list_checkpoints
from vitreous.training.folder.access import open_run_folder
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import first_of, members, read_series, run_series
from vitreous.wording import show

Tiny = Callable[..., TrainRequest]


def nothing(run: RunFolder) -> None:
    """Do nothing after a run."""


@pytest.fixture(scope="module")
def asked(images_folder: Path, tiny_keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> TrainRequest:
    """A request for two folds with two seeds each; every run takes 12 steps and saves all of them."""
    values = tiny_keys | {"train.seed": 4, "train.checkpoint_every_s": 0}
    out = tmp_path_factory.mktemp("series") / "whole"
    return TrainRequest(data=str(images_folder), values=values, out=out, folds=2, seeds=2)


@pytest.fixture(scope="module")
def whole(asked: TrainRequest) -> SeriesFolder:
    """The complete series, never interrupted. Tests must not change it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = run_series(asked, nothing)
    torch.set_num_threads(before)
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    return load_model(run / "model.safetensors").state_dict()


def assert_same_weights(series: SeriesFolder, other: SeriesFolder) -> None:
    for member in members(read_series(series)):
        torch.testing.assert_close(
            weights(series.path / member.name), weights(other.path / member.name), rtol=0, atol=0
        )


def images_tested(run: Path) -> list[str]:
    lines = (run / "predictions.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [line.split(",")[0] for line in lines]


# The runs of a series.


def test_each_fold_runs_with_each_seed_and_every_image_is_tested_once_per_seed(whole: SeriesFolder) -> None:
    names = ["fold-0-seed-4", "fold-1-seed-4", "fold-0-seed-5", "fold-1-seed-5"]
    assert [member.name for member in members(read_series(whole))] == names
    for seed in (4, 5):
        images = [image for fold in (0, 1) for image in images_tested(whole.path / f"fold-{fold}-seed-{seed}")]
        assert len(images) == len(set(images)) == 61


def test_runs_differ_only_in_fold_seed_and_what_follows_from_them(whole: SeriesFolder) -> None:
    configs = [read_config(whole.path / member.name / "config.yaml") for member in members(read_series(whole))]
    flat = [keys.take_apart(config) for config in configs]
    differing = {key for key in flat[0] if len({str(values[key]) for values in flat}) > 1}
    assert {"data.fold", "train.seed", "data.mean", "data.std"} == differing - {"data.flip"}
    assert [(c.data.num_folds, c.data.fold, c.train.seed) for c in configs] == [
        (2, 0, 4),
        (2, 1, 4),
        (2, 0, 5),
        (2, 1, 5),
    ]


def test_plan_of_a_later_run_says_where_its_choices_come_from(whole: SeriesFolder) -> None:
    first, later = ((whole.path / name / "plan.md").read_text() for name in ("fold-0-seed-4", "fold-1-seed-4"))
    assert "taken over from the first run" not in first
    assert "taken over from the first run" in later
    assert "| `model.embed_dim` | 16 | you asked for it |" in later


def test_later_runs_take_over_the_choices_of_the_first(images_folder: Path, tmp_path: Path) -> None:
    values = {"train.epochs": 0.1, "data.img_size": 8, "model.depth": 1, "train.device": "cpu"}
    request = TrainRequest(data=str(images_folder), values=values, out=tmp_path / "s", seeds=2)

    def change(run: RunFolder) -> None:
        if run.path.name == "seed-0":
            config = read_config(run.config)
            write_config(run.config, replace(config, optim=replace(config.optim, lr=0.0123)))

    run_series(request, change)
    assert read_config(tmp_path / "s" / "seed-1" / "config.yaml").optim.lr == 0.0123


def test_seeds_without_folds_share_one_split(tiny: Tiny) -> None:
    folder = run_series(replace(tiny("s", train__epochs=0.2), seeds=2), nothing)
    assert images_tested(folder.path / "seed-0") == images_tested(folder.path / "seed-1")
    assert not torch.equal(
        weights(folder.path / "seed-0")["head.weight"], weights(folder.path / "seed-1")["head.weight"]
    )


def test_budget_is_split_among_the_runs_and_epochs_are_not(tiny: Tiny) -> None:
    request = replace(tiny(train__budget_s="90", train__epochs=7), folds=3, seeds=2)
    assert first_of(request).values["train.budget_s"] == 15.0
    assert first_of(request).values["train.epochs"] == 7
    assert (first_of(request).folds, first_of(request).seeds) == (0, 0)


def test_recipe_file_is_copied_for_later_runs(tiny: Tiny, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("recipe: small-images\ntrain: {seed: 8}\noptim: {lr: 0.005}\n", encoding="utf-8")

    folder = run_series(
        replace(tiny("s", train__epochs=0.2), recipe=str(recipe), seeds=2), lambda run: recipe.unlink(missing_ok=True)
    )
    assert [member.name for member in members(read_series(folder))] == ["seed-8", "seed-9"]
    assert read_config(folder.path / "seed-9" / "config.yaml").optim.lr == 0.005


def test_listener_hears_which_run_begins(tiny: Tiny) -> None:
    heard: list[Mapping[str, Any]] = []
    run_series(
        replace(tiny("s", train__epochs=0.2), seeds=2),
        nothing,
        lambda kind, got: heard.append(got) if kind == "member" else None,
    )
    assert heard == [
        {"name": "seed-0", "number": 1, "total": 2, "done": False},
        {"name": "seed-1", "number": 2, "total": 2, "done": False},
    ]


# Errors.


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"folds": 1}, "folds=1: must be from 2 to 1,000; use 5, or leave it out for a single run"),
        ({"seeds": -3}, "seeds=-3: must be from 2 to 1,000; use 5, or leave it out for a single run"),
        ({"folds": 3, "values": {"data.fold": 2}}, "data.fold=2: is decided by folds=3; leave it out"),
        ({}, "folds=0: is not a series without seeds; use 5, or train a single run"),
    ],
)
def test_settings_that_make_no_series_are_refused(changes: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        run_series(replace(TrainRequest(data="digits", out=tmp_path / "s"), **changes), nothing)
    assert str(caught.value) == line
    assert not (tmp_path / "s").exists()


def test_data_with_too_few_images_for_the_folds_leaves_no_folder_behind(tiny: Tiny) -> None:
    request = replace(tiny("s"), folds=26)
    with pytest.raises(
        DataError, match=r"^data\.num_folds=26: no class has that many distinct images; use at most 25 folds$"
    ):
        run_series(request, nothing)
    assert request.out is not None
    assert not request.out.exists()


def test_new_series_is_refused_in_the_folder_of_another(whole: SeriesFolder, asked: TrainRequest) -> None:
    with pytest.raises(RunError, match=r"whole: exists and is not empty; continue it with --resume .*whole, or choose"):
        run_series(asked, nothing)
    with pytest.raises(
        NotARunError, match=r"whole: is a series of runs; .* continue with `vitreous train --resume .*whole`"
    ):
        open_run_folder(whole.path)


def test_resume_takes_no_other_options_and_needs_a_series(whole: SeriesFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"whole: a run or series keeps its settings; leave out all options except "):
        run_series(TrainRequest(resume=whole.path, folds=3), nothing)
    with pytest.raises(NotARunError, match=r"^series=.*: has no series\.json; `--folds 5` makes one$"):
        run_series(TrainRequest(resume=tmp_path), nothing)


@pytest.mark.parametrize("text", ["{", "[]", '{"data": "x", "lr": 3}', '{"folds": 1}', '{"values": {"optim.lrr": 3}}'])
def test_altered_file_of_a_series_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "series.json").write_text(text, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"series\.json: was altered \(.+\); restore it$"):
        read_series(SeriesFolder(tmp_path))


# Interruptions.


class Cut(BaseException):
    """A power failure."""


def test_interrupted_series_continues_bit_for_bit(asked: TrainRequest, whole: SeriesFolder, tmp_path: Path) -> None:
    heard: list[str] = []

    def cut(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "member":
            heard.append(fields["name"])
        if kind == "checkpoint" and heard[-1] == "fold-1-seed-4" and fields["step"] >= 5:
            raise Cut

    request = replace(asked, out=tmp_path / "cut")
    with pytest.raises(Cut):
        run_series(request, nothing, cut)
    assert heard == ["fold-0-seed-4", "fold-1-seed-4"]
    done = tmp_path / "cut" / "fold-0-seed-4" / "model.safetensors"
    written = done.stat().st_mtime_ns

    unstarted = RunFolder(tmp_path / "cut" / "fold-0-seed-5")  # as if killed before it wrote its configuration
    unstarted.checkpoints.mkdir(parents=True)
    unstarted.records.write_text('{"kind": "start"}\n', encoding="utf-8")
    (unstarted.path / ".config.yaml.x.tmp").touch()

    moved = SeriesFolder(Path(shutil.move(tmp_path / "cut", tmp_path / "elsewhere")))
    run_series(TrainRequest(resume=moved.path), nothing)
    assert (moved.path / "fold-0-seed-4" / "model.safetensors").stat().st_mtime_ns == written
    assert_same_weights(whole, moved)


def test_resuming_a_complete_series_changes_nothing(whole: SeriesFolder) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")}
    complete: list[str] = []
    run_series(TrainRequest(resume=whole.path), lambda run: complete.append(run.path.name))
    assert complete == ["fold-0-seed-4", "fold-1-seed-4", "fold-0-seed-5", "fold-1-seed-5"]
    assert {path: path.stat().st_mtime_ns for path in whole.path.rglob("*")} == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143)])
def test_process_stopped_in_its_second_run_continues_bit_for_bit(
    number: signal.Signals, code: int, asked: TrainRequest, whole: SeriesFolder, tmp_path: Path
) -> None:
    out, environment = tmp_path / "series", {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    options = [word for key, value in asked.values.items() for word in (f"--{key}", show(value))]
    begin = [str(asked.data), "--folds", "2", "--seeds", "2", "--out", str(out), *options]
    command = [sys.executable, "-m", "vitreous", "train"]
    with subprocess.Popen([*command, *begin], stderr=subprocess.PIPE, text=True, env=environment) as running:
        second, began_s = out / "fold-1-seed-4" / "checkpoints", time.monotonic()
        while len(list_checkpoints(second)) < 2 and running.poll() is None and time.monotonic() - began_s < 120:
            time.sleep(0.002)
        running.send_signal(number)
        _, said = running.communicate(timeout=120)
    assert running.returncode == code
    assert not (out / "fold-1-seed-4" / "model.safetensors").exists()
    if number == signal.SIGTERM:
        assert said.startswith(f"{out}: stopped at step ")
        assert " of fold-1-seed-4 and saved; " in said
        assert said.endswith(f"; continue with `vitreous train --resume {out}`\n")
    subprocess.run([*command, "--resume", str(out)], check=True, timeout=240, env=environment, capture_output=True)
    assert_same_weights(whole, SeriesFolder(out))
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["num_finished"] == 4


def test_series_on_the_working_folder_is_named_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    folder, _ = series._begin(TrainRequest(data=".", seeds=2))
    assert folder.path == Path("runs/photos-1")


def test_paths_of_weights_and_teacher_are_stored_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {"train.pretrained": "w.safetensors", "objective.teacher": "hf://organization/name"}
    _, request = series._begin(TrainRequest(data="digits", seeds=2, values=values, out=tmp_path / "out"))
    assert request.values["train.pretrained"] == str(tmp_path / "w.safetensors")
    assert request.values["objective.teacher"] == "hf://organization/name"
