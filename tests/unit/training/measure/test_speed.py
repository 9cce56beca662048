from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.training.fit.budget import Pace
from vitreous.training.measure import speed as room
from vitreous.training.measure.speed import evaluation_images_per_s, training_images_per_s

TINY = {
    "data.source": "nowhere", "data.img_size": (8, 12), "data.in_chans": 3, "data.num_classes": 5, "data.batch_size": 6,
    "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu",
    "train.precision": "fp32",
}  # fmt: skip


def config(**changes: Any) -> RunConfig:
    return keys.assemble("tiny", TINY | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MEASURED_S", 0.01)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("measure", [training_images_per_s, evaluation_images_per_s])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_is_positive_and_needs_no_data(measure: Callable[[RunConfig], float], precision: str) -> None:
    assert measure(config(train__precision=precision)) > 0


@pytest.mark.usefixtures("_quick")
def test_larger_model_is_slower() -> None:
    large = config(model__embed_dim=128, model__depth=6, model__patch_size=2)
    assert training_images_per_s(large) < training_images_per_s(config())


@pytest.mark.usefixtures("_quick")
def test_steps_are_measured_with_both_kernels_of_attention_and_the_better_turn_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    durations = iter([3.0, 2.0, 1.0, 4.0])

    def pace(measured: RunConfig, teacher: object) -> Pace:
        seen.append(measured.train.kernel)
        return Pace(((0.0, 1.0, next(durations)),))

    assert all(seconds > 0 for seconds in room.attention_s(config()).values())
    monkeypatch.setattr(room, "training_pace", pace)
    assert room.attention_s(config(train__attention_kernel="measured")) == {"explicit": 3.0, "sdpa": 1.0}
    assert seen == ["explicit", "sdpa", "sdpa", "explicit"]
    durations = iter([2 * room.SLOW_S, room.SLOW_S])
    assert room.attention_s(config()) == {"explicit": 2 * room.SLOW_S, "sdpa": room.SLOW_S}


def fake_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [0.0]
    monkeypatch.setattr(room, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def spend(seconds: float) -> None:
        now[0] += seconds

    return spend


def test_first_repetition_does_not_count_and_the_median_of_the_others_does(monkeypatch: pytest.MonkeyPatch) -> None:
    spend = fake_clock(monkeypatch)
    durations = iter([9.0, 0.4, 0.1, 0.6])
    assert room._median_s(lambda: spend(next(durations))) == pytest.approx(0.4)


def test_work_that_is_slow_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    spend = fake_clock(monkeypatch)
    calls = []

    def work() -> None:
        calls.append(1)
        spend(30.0)

    assert room._median_s(work) == 30.0
    assert len(calls) == 2


def test_batch_is_of_the_configured_shape() -> None:
    images, labels = room._random_batch(config(), torch.device("cpu"))
    assert images.shape == (6, 3, 8, 12)
    assert labels.shape == (6,)
    assert int(labels.max()) < 5
