"""Every configuration key and every argument, inside and outside its range: refused by a check, or it trains.

A refusal is a VitreousError of one line. Anything else that is raised fails the test. An accepted value must complete a
training step of a model of width 8 on images of 8x8 px.
"""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.campaign import drawing

import vitreous as vt
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources import open_object
from vitreous.errors import VitreousError
from vitreous.recipe import keys
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.use.predict.inputs import each_image

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]

fuzzed = drawing(0.15)
"""Values are slow: each one opens data and builds a model."""


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in a folder of the test, because a relative path is a value of some keys."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


PIXELS = np.random.default_rng(5)
IMAGES = [(PIXELS.integers(0, 256, (8, 8, 3), dtype=np.uint8), number % 2) for number in range(24)]
TINY: dict[str, Any] = {
    "data.img_size": 8, "data.batch_size": 8, "data.cache": "none", "model.patch_size": 4, "model.embed_dim": 8,
    "model.depth": 1, "model.num_heads": 2, "train.device": "cpu",
}  # fmt: skip
SLOW = {"data.source", "data.root", "data.cache", "train.logger", "train.compile", "train.budget_s",
        "train.attention_kernel"}  # fmt: skip
"""Keys that read or write elsewhere, or measure the machine for seconds; their wrong values are tried, others not."""
AFFORDABLE = {"model.depth": 4, "model.embed_dim": 64, "model.num_heads": 8, "model.head_dim": 16, "data.img_size": 32,
              "data.batch_size": 64, "data.repeats": 8, "train.start_img_size": 8, "model.mlp_ratio": 8.0,
              "model.num_registers": 8, "train.lora_rank": 8, "data.policy_num_ops": 3, "train.max_retries": 3,
              "train.micro_batches": 8}  # fmt: skip
"""Largest values that a step can afford; beyond them, values are drawn that no machine can."""


class Described:
    """An object whose text has several lines."""

    def __repr__(self) -> str:
        return "<two\nlines>"


class Stepped(BaseException):
    """The first step is complete."""


WRONG = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.complex_numbers(),
    st.lists(st.one_of(st.integers(), st.floats(), st.none(), st.text(max_size=3)), max_size=4),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([10**400, 10**5_000, -(10**400), "1" * 5_000, "0" * 5_000 + "1", "8x0", "8x8x8", "x", "nan",
                     "1e400", "inf", "none", "\0", "\ud800", "a\nb", "~ghost/x", "", " ", Path("x"),
                     Described(), object,
                     np.array([8, 8]), np.int64(4), np.float32(0.5), torch.tensor(4), [math.nan] * 2, (10**400, 1)]),
)  # fmt: skip
"""Values of every type, mostly unsuitable."""


def suitable(key: str) -> st.SearchStrategy[Any]:
    """Return values within the range of a key: small enough to train with, or too large for any machine."""
    rule, most = keys.rules()[key], AFFORDABLE.get(key, 100)
    if rule.choices:
        return st.sampled_from(rule.choices)
    one: st.SearchStrategy[Any] = {
        bool: st.booleans(),
        int: st.integers(0, int(most)) | st.integers(2**30, 2**31 - 1),
        float: st.floats(0, most) | st.floats(0, 1) | st.floats(1e30, 1e308),
        str: st.text(min_size=1, max_size=5),
    }[rule.kind]
    if rule.length:
        one = st.tuples(*[one] * rule.length) if rule.length > 0 else st.lists(one, min_size=1, max_size=3).map(tuple)
    return (one | st.none()) if rule.is_optional else one


def settings_of(key: str) -> st.SearchStrategy[tuple[str, Any]]:
    values = WRONG if key in SLOW or keys.rules()[key].kind is str else suitable(key) | WRONG
    return st.tuples(st.just(key), values.flatmap(lambda value: st.sampled_from([value, shown(value)])))


def shown(value: Any) -> Any:
    """Return a value as it is typed on the command line."""
    if isinstance(value, tuple):
        return "x".join(map(str, value)) if all(abs(item) < 10**300 for item in value) else value
    return str(value) if isinstance(value, int | float) and abs(value) < 10**300 else value


def stop_after_a_step(kind: str, fields: Any) -> None:
    if kind in ("step", "progress"):
        raise Stepped


def refused_in_one_line(work: Callable[[], object]) -> None:
    """Run work that may be refused by a VitreousError, and end after its first training step."""
    try:
        work()
    except Stepped:
        return
    except VitreousError as error:
        message = str(error)
    else:
        return
    assert message.isprintable()
    assert ": " in message


@fuzzed
@given(st.lists(st.sampled_from(sorted(keys.rules())).flatmap(settings_of), min_size=1, max_size=3))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_value_of_every_key_is_refused_or_trains(tmp_path: Path, chosen: list[tuple[str, Any]]) -> None:
    out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
    values = {**TINY, **dict(chosen)}
    request = TrainRequest(source=open_object(IMAGES), values=values, out=out)
    refused_in_one_line(lambda: run_training(request, stop_after_a_step))


ARGUMENTS = ("data", "budget", "epochs", "model", "pretrained", "img_size", "batch_size", "lr", "device", "seed",
             "folds", "seeds", "recipe", "out", "resume", "config")  # fmt: skip


@fuzzed
@given(st.dictionaries(st.sampled_from(ARGUMENTS), WRONG, min_size=1, max_size=3))
def test_every_argument_of_train_is_refused_or_reaches_training(tmp_path: Path, arguments: dict[str, Any]) -> None:
    logging.disable()
    given = {"data": IMAGES, **arguments}
    with (
        mock.patch("vitreous.training.start.run_training", side_effect=Stepped),
        mock.patch("vitreous.training.series.run_series", side_effect=Stepped),
    ):
        refused_in_one_line(lambda: vt.train(given.pop("data"), **given))


FUNCTIONS: dict[str, Callable[[Any], object]] = {
    "load_run": vt.load_run,
    "load_model": vt.load_model,
    "Run": vt.Run,
    "Series": vt.Series,
    "compare": lambda value: vt.compare(value, value),
    "create_model": lambda value: vt.create_model(value),
    **{
        f"create_model {name}": lambda value, name=name: vt.create_model(
            "vit_pico", **{"patch_size": 4, "img_size": 8, "num_classes": 2, name: value}
        )
        for name in (
            "num_classes",
            "in_chans",
            "img_size",
            "patch_size",
            "seed",
            "qk_norm",
            "pool",
            "head_dim",
            "other",
        )
    },
}


@fuzzed
@given(st.sampled_from(sorted(FUNCTIONS)), WRONG)
def test_other_public_functions_refuse_what_they_cannot_use(name: str, value: Any) -> None:
    is_large = isinstance(value, int | float) and not abs(value) < 10_000
    if not is_large:  # a model of any size is built on request
        refused_in_one_line(lambda: FUNCTIONS[name](value))


ARRAYS = st.builds(
    lambda shape, dtype, scale: (torch.rand(shape) * scale).to(dtype),
    st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 9]), max_size=5),
    st.sampled_from([torch.uint8, torch.float32, torch.float16, torch.bool, torch.int64, torch.complex64]),
    st.sampled_from([1, 255, -3]),
)


@fuzzed
@given(ARRAYS | ARRAYS.map(lambda tensor: tensor.numpy()) | WRONG, st.sampled_from([1, 3]))
def test_what_is_passed_to_predict_is_refused_or_becomes_pixels(value: Any, in_chans: int) -> None:
    preprocess = Preprocess((8, 8), in_chans)

    def predict() -> None:
        for image in each_image(value, in_chans):
            assert preprocess.pixels(image).shape == (in_chans, 8, 8)

    refused_in_one_line(predict)
