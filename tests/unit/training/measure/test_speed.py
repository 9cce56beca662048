from functools import partial
from typing import Any

import pytest
import torch

from vitreous.recipe import keys
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.training.measure.speed import (
    STEADY_S,
    attention_paces,
    evaluation_images_per_s,
    median_s,
    random_batch,
    training_pace,
)

TINY = {
    "data.source": "nowhere", "data.img_size": (8, 12), "data.in_chans": 3, "data.num_classes": 5, "data.batch_size": 6,
    "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "train.device": "cpu",
    "train.precision": "fp32",
}  # fmt: skip


def config(**changes: Any) -> RunConfig:
    return keys.assemble("tiny", TINY | {key.replace("__", "."): value for key, value in changes.items()})


class Clock:
    """Time that passes only when a test spends it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def spend(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_speed_is_positive_and_needs_no_data(precision: str) -> None:
    assert training_pace(config(train__precision=precision), seconds=0.01).mean_s() > 0
    assert evaluation_images_per_s(config(train__precision=precision), seconds=0.01) > 0


def test_larger_model_is_slower() -> None:
    large = config(model__embed_dim=128, model__depth=6, model__patch_size=2)
    assert training_pace(large, seconds=0.01).mean_s() > training_pace(config(), seconds=0.01).mean_s()


def test_both_attention_kernels_are_measured_twice_and_the_faster_turn_counts() -> None:
    seen: list[str] = []
    durations = iter([0.03, 0.02, 0.01, 0.04])

    def measure(measured: RunConfig, teacher: object) -> Pace:
        seen.append(measured.train.kernel)
        return Pace(((0.0, 1.0, next(durations)),))

    paces = attention_paces(config(train__attention_kernel="measured"), None, measure)
    assert {kernel: pace.mean_s() for kernel, pace in paces.items()} == {"explicit": 0.03, "sdpa": 0.01}
    assert seen == ["explicit", "sdpa", "sdpa", "explicit"]
    durations = iter([2 * STEADY_S, STEADY_S])
    paces = attention_paces(config(), None, measure)
    assert {kernel: pace.mean_s() for kernel, pace in paces.items()} == {"explicit": 2 * STEADY_S, "sdpa": STEADY_S}


def test_both_attention_kernels_can_be_measured() -> None:
    paces = attention_paces(config(), None, partial(training_pace, seconds=0.01))
    assert set(paces) == {"explicit", "sdpa"}


def test_median_leaves_the_first_repetition_out() -> None:
    clock, durations = Clock(), iter([9.0, 0.4, 0.1, 0.6])
    assert median_s(lambda: clock.spend(next(durations)), clock=clock) == pytest.approx(0.4)


def test_slow_work_is_not_repeated() -> None:
    clock, calls = Clock(), []

    def work() -> None:
        calls.append(1)
        clock.spend(30.0)

    assert median_s(work, clock=clock) == 30.0
    assert len(calls) == 2


def test_random_batch_has_the_configured_shape() -> None:
    images, labels = random_batch(config(), torch.device("cpu"))
    assert images.shape == (6, 3, 8, 12)
    assert labels.shape == (6,)
    assert int(labels.max()) < 5


def test_evaluation_is_measured_in_float32_as_the_final_test_is() -> None:
    seen: list[torch.dtype] = []

    def note(module: torch.nn.Module, inputs: object, output: object) -> None:
        if isinstance(module, torch.nn.Linear) and isinstance(output, torch.Tensor):
            seen.append(output.dtype)

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        evaluation_images_per_s(config(train__precision="bf16"), seconds=0.0)
    finally:
        handle.remove()
    assert set(seen) == {torch.float32}
