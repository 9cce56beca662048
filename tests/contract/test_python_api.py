"""`import vitreous as vt`: quick to import, few names, and each works as the README says."""

import ast
import importlib
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import get_overloads

import numpy as np
import pytest
import torch
from PIL import Image
from tests.contract.sources import modules

import vitreous as vt
from vitreous.errors import ConfigError, DataError, NotARunError, RunError, UnknownNameError
from vitreous.model.config.model_config import ModelConfig
from vitreous.recipe.files import read_config

KEYS = {
    "data.img_size": (8, 12), "data.batch_size": 8, "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1,
    "model.num_heads": 2, "train.device": "cpu", "train.precision": "fp32",
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images, 9 px high and 14 wide, dark ones and light ones; not to be changed."""
    root = tmp_path_factory.mktemp("api") / "day and night"
    draw = np.random.default_rng(2)
    for name, low, count in (("day ü", 130, 22), ("night", 10, 18)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(low, low + 100, (9, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> vt.Run:
    """A finished run; not to be changed."""
    return vt.train(photos, epochs=2, out=tmp_path_factory.mktemp("runs") / "first", config=KEYS)


def _python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60).stdout.strip()


# The public names.


def test_public_names_are_the_known_ones() -> None:
    functions = ["compare", "create_model", "embed", "explain", "load_model", "load_run", "register", "train"]
    assert vt.__all__ == ["Run", "Series", "VitreousClassifier", *functions]
    assert set(vt.__all__) <= set(dir(vt))
    assert "__version__" in dir(vt)


def test_import_is_quick_and_loads_no_large_package() -> None:
    heavy = ("torch", "numpy", "sklearn", "scipy", "matplotlib", "PIL", "yaml", "cyclopts", "rich")
    code = f"""
import sys, time
began = time.process_time()
import vitreous
took = time.process_time() - began
print([name for name in {heavy} if name in sys.modules], took < 0.5)
"""
    assert _python(code) == "[] True"


def test_training_and_run_load_no_package_that_few_users_need() -> None:
    heavy = ("sklearn", "scipy", "pandas", "matplotlib", "torch._dynamo", "torch.distributed.fsdp",
             "torch.distributed.tensor", "timm", "transformers")  # fmt: skip
    code = f"""
import sys
import vitreous.training.start, vitreous.use.run, vitreous.use.report.page
print([name for name in {heavy} if name in sys.modules])
"""
    assert _python(code) == "[]"


def test_import_prints_nothing_and_changes_no_global_setting() -> None:
    code = """
import logging, signal, warnings
before = (list(logging.root.handlers), logging.root.level, signal.getsignal(signal.SIGINT), list(warnings.filters))
import vitreous
after = (list(logging.root.handlers), logging.root.level, signal.getsignal(signal.SIGINT), list(warnings.filters))
print(before == after)
"""
    assert _python(code) == "True"


def test_only_the_command_line_changes_settings_of_the_process() -> None:
    importing = {
        name
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in ("vitreous.heap", "vitreous.threads")
    }
    assert importing == {"cli/main.py"}


@pytest.mark.parametrize(
    "code",
    [
        "import vitreous, vitreous.training.step.horizon",
        "import vitreous.training.step.horizon, vitreous",
        "from vitreous.training.step import horizon; import vitreous",
        "import vitreous; from vitreous.training.step import horizon",
        "import importlib, vitreous; importlib.import_module('vitreous.training.step.horizon')",
    ],
)
def test_train_is_the_function_for_any_order_of_imports(code: str) -> None:
    check = "import types; print(isinstance(vitreous.train, types.FunctionType), vitreous.train.__module__)"
    assert _python(f"{code}; {check}") == "True vitreous.api"


def test_modules_of_training_can_be_imported() -> None:
    assert importlib.import_module("vitreous.training.fit.loop").fit.__module__ == "vitreous.training.fit.loop"
    from vitreous.training.fit import loop

    assert loop.fit.__module__ == "vitreous.training.fit.loop"


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'vitreous' has no attribute 'trian'"):
        vt.trian  # noqa: B018


# Models.


def test_create_model_builds_a_model_with_its_head() -> None:
    model = vt.create_model("vit_pico", num_classes=5, img_size=(8, 12), patch_size=4)
    assert model(torch.zeros(2, 3, 8, 12)).shape == (2, 5)
    assert isinstance(model.config, ModelConfig)


def test_create_model_suggests_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"^model=vit_smal_patch16_224: no such model; did you mean vit_small_"):
        vt.create_model("vit_smal_patch16_224")


def test_load_model_opens_the_model_of_a_run(run: vt.Run) -> None:
    model = vt.load_model(run.path / "model.safetensors")
    assert not model.training
    assert model(torch.zeros(3, 3, 8, 12)).shape == (3, 2)


# Training.


def test_train_returns_a_run_that_predicts_and_evaluates(run: vt.Run, photos: Path) -> None:
    image = photos / "night" / "3.png"
    assert run.classes == ("day ü", "night")
    assert 0 <= run.accuracy <= 1
    assert run.predict(image)[0].label in run.classes
    assert run.evaluate().accuracy == run.accuracy == run.metrics["test"]["accuracy"]
    assert (run.path / "report.html").is_file()


def test_load_run_opens_a_finished_run(run: vt.Run, photos: Path) -> None:
    again = vt.load_run(str(run.path))
    assert (again.classes, again.metrics) == (run.classes, run.metrics)
    assert again.predict(photos / "night" / "3.png") == run.predict(photos / "night" / "3.png")


def test_config_overrides_model_and_plan(photos: Path, tmp_path: Path) -> None:
    keys = {**KEYS, "train.epochs": 0.3, "train.seed": 9, "optim.lr": 3e-4}
    run = vt.train(str(photos), model="vit_micro", out=str(tmp_path / "run"), config=keys)
    config = read_config(run.path / "config.yaml")
    assert (config.train.epochs, config.train.seed, config.optim.lr) == (0.3, 9, 3e-4)
    assert (config.model.embed_dim, config.model.depth) == (16, 1)


def test_most_used_keys_are_arguments(photos: Path, tmp_path: Path) -> None:
    model = {key: value for key, value in KEYS.items() if key.startswith("model.")}
    run = vt.train(
        photos, epochs=0.3, img_size=(8, 12), batch_size=5, lr=3e-4, device="cpu", seed=9, out=tmp_path, config=model
    )
    config = read_config(run.path / "config.yaml")
    assert (config.data.img_size, config.data.batch_size, config.optim.lr) == ((8, 12), 5, 3e-4)
    assert (config.train.epochs, config.train.device, config.train.seed) == (0.3, "cpu", 9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"lr": 0.1, "config": {"optim.lr": 0.3}},
            "optim.lr=0.3: lr=0.1 sets the same key to another value; give only one",
        ),
        ({"img_size": 8, "config": {"data.img_size": "8x12"}}, "data.img_size=8x12: img_size=8 sets the same key to "),
        (
            {"epochs": 3, "budget": "5ep"},
            "train.epochs=3: budget=5ep sets the same key to another value; give only one",
        ),
    ],
)
def test_two_values_for_one_key_are_an_error(
    arguments: dict[str, object], message: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        vt.train(photos, out=tmp_path / "run", **arguments)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "run").exists()


def test_train_changes_neither_environment_nor_allocator(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise AssertionError("a library call must not change the process")

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.setattr("vitreous.heap.keep_freed_memory", fail)
    monkeypatch.setattr("vitreous.threads.let_threads_sleep", fail)
    before = {name: value for name, value in os.environ.items() if "OMP" in name}
    vt.train(photos, epochs=0.2, out=tmp_path / "run", config=KEYS)
    assert {name: value for name, value in os.environ.items() if "OMP" in name} == before


def test_train_returns_a_series_for_folds_or_seeds(photos: Path, tmp_path: Path) -> None:
    series = vt.train(photos, folds=2, epochs=0.2, out=tmp_path / "folds", config=KEYS)
    assert isinstance(series, vt.Series)
    assert [run.path.name for run in series.runs] == ["fold-0", "fold-1"]
    assert all((run.path / "report.html").is_file() for run in series.runs)
    again = vt.train(resume=tmp_path / "folds")
    assert isinstance(again, vt.Series)
    assert again.path == series.path
    series = vt.train(photos, seeds=2, seed=5, epochs=0.2, out=tmp_path / "seeds", config=KEYS)
    assert [run.path.name for run in series.runs] == ["seed-5", "seed-6"]


def test_type_of_the_result_depends_on_the_arguments() -> None:
    returned = [overload.__annotations__["return"] for overload in get_overloads(vt.train)]
    assert returned == [vt.Series, vt.Series, vt.Run | vt.Series, vt.Run]


def test_budget_is_a_text_or_seconds_or_epochs(photos: Path, tmp_path: Path) -> None:
    run = vt.train(photos, budget="0.3ep", out=tmp_path / "a", config=KEYS)
    assert read_config(run.path / "config.yaml").train.epochs == pytest.approx(0.3)
    run = vt.train(photos, budget=2.5, epochs=0.3, out=tmp_path / "b", config=KEYS)
    assert read_config(run.path / "config.yaml").train.budget_s == 2.5


def test_home_is_expanded(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = vt.train(photos, epochs=0.2, out="~/run", config=KEYS)
    assert run.path == tmp_path / "run"
    assert vt.train(resume="~/run").path == tmp_path / "run"


def test_progress_is_logged_and_not_printed(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, "vitreous"):
        vt.train(photos, epochs=0.2, out=tmp_path / "run", config=KEYS)
    assert {record.message.split()[0] for record in caplog.records} >= {"start", "plan", "data", "end"}
    assert all(record.name == "vitreous" for record in caplog.records)
    assert capfd.readouterr() == ("", "")


def test_invalid_requests_raise_errors_of_the_tree(photos: Path, run: vt.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data=none: nothing to train on; give a folder of class folders, or one "):
        vt.train()
    with pytest.raises(UnknownNameError, match=r"^optim\.lrr=1: no such key; did you mean optim\.lr\?$"):
        vt.train(photos, config={"optim.lrr": 1}, out=tmp_path / "run")
    with pytest.raises(RunError, match=r"first: exists and is not empty; continue it with --resume "):
        vt.train(photos, out=run.path)
    with pytest.raises(ConfigError, match=r"a run or series keeps its settings; leave out all options except --data"):
        vt.train(photos, resume=run.path, epochs=2)  # type: ignore[call-overload]
    with pytest.raises(DataError, match=r"gone: no such set and no such folder"):
        vt.train(tmp_path / "gone")
    with pytest.raises(NotARunError, match=r"gone: does not exist; "):
        vt.load_run(tmp_path / "gone")
    assert not (tmp_path / "run").exists()
