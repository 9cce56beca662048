"""Compiled code takes the same steps, is compiled once, and does not affect the model itself."""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.model.weights import load_model
from vitreous.recipe.keys import assemble
from vitreous.tensors import Images, Labels
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.training.step import compiled
from vitreous.training.step.compiled import compile_ahead, compile_model
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

NO_DROPOUT = {"pos_drop_rate": 0.0, "drop_path_rate": 0.0, "depth": 1}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()  # a reset keeps those of other tests in this process
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of inductor itself
        yield
    torch.compiler.reset()


@pytest.mark.slow
@needs_compiler
def test_compiled_steps_equal_eager_steps(
    make_state: Callable[..., TrainState], settings: StepSettings, batch: tuple[Images, Labels]
) -> None:
    plain, fast = make_state(**NO_DROPOUT), make_state(**NO_DROPOUT)
    compiling = replace(settings, compiled=compile_model(fast.model, "default"))
    before = {name: tensor.clone() for name, tensor in fast.tensors().items()}
    assert compile_ahead(fast, Pair(*batch), compiling) > 0
    torch.testing.assert_close(fast.tensors(), before, rtol=0, atol=0)
    for _ in range(3):
        expected, result = train_step(plain, *batch, settings), train_step(fast, *batch, compiling)
        assert result.loss == pytest.approx(expected.loss, rel=1e-5)
        assert result.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)
        plain.step, fast.step = plain.step + 1, fast.step + 1
    assert set(fast.tensors()) == set(plain.tensors())
    train_step(fast, batch[0][:4], batch[1][:4], compiling)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    )  # one for this batch size, one for any batch size


class Pair:
    """A batch of images and labels."""

    def __init__(self, images: Images, labels: Labels) -> None:
        self.images, self.labels = images, labels


@pytest.mark.slow
@needs_compiler
def test_run_records_the_seconds_of_compiling_and_is_reproducible(tiny: Callable[..., TrainRequest]) -> None:
    weights, seconds = [], []
    for out in ("first", "again"):
        folder = run_training(tiny(out, train__compile="default"))
        records = [json.loads(line) for line in folder.records.read_text().splitlines()]
        (record,) = [record for record in records if record["kind"] == "compiled"]
        assert record["mode"] == "default"
        seconds.append(record["seconds"])
        weights.append(load_model(folder.path).state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert seconds[0] > 0


def test_run_does_not_start_without_a_compiler(
    make_state: Callable[..., TrainState],
    tiny: Callable[..., TrainRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiled, "_COMPILERS", ("no-such-compiler",))
    with pytest.raises(ConfigError, match=r"train\.compile=default: found no C\+\+ compiler \(no-such-compiler\)"):
        compile_model(make_state().model, "default")
    assert compile_model(make_state().model, "none") is None
    with pytest.raises(ConfigError, match="found no C"):
        run_training(tiny("run", train__compile="default"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({"train.parallel": "fsdp"}, r"^train\.compile=default: .*train\.parallel=fsdp"),
        (
            {"objective.teacher": "t", "objective.distill": "feature"},
            "objective.distill=feature reads activations inside",
        ),
        (
            {"objective.teacher": "t", "objective.distill": "token_soft", "model.distill_token": True},
            "objective.distill=token_soft reads activations inside",
        ),
    ],
)
def test_compiling_is_refused_with_incompatible_keys(keys: dict[str, Any], rule: str) -> None:
    values = {"data.source": "random", "data.img_size": (8, 8), "data.in_chans": 3, "data.num_classes": 3,
              "model.patch_size": 4,
              "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train.compile": "default"}  # fmt: skip
    with pytest.raises(ConfigError, match=rule):
        assemble("test", values | keys)
