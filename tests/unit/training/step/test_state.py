import json
from collections.abc import Callable
from dataclasses import fields

import pytest

from vitreous.errors import DamagedFileError
from vitreous.training.step.state import TrainState

MakeState = Callable[..., TrainState]


def test_every_field_is_saved(make_state: MakeState) -> None:
    saved = set(make_state().numbers()) | {"model", "ema", "optimizer"}
    assert saved == {field.name for field in fields(TrainState)}


def test_numbers_are_json(make_state: MakeState) -> None:
    state = make_state()
    state.elapsed_s = 0.1 + 0.2
    assert json.loads(json.dumps(state.numbers())) == state.numbers()


def test_progress_comes_from_the_horizon(make_state: MakeState) -> None:
    state = make_state(end_step=8)
    state.step = 2
    assert state.progress == 0.25


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": "many"}, "invalid literal for int() with base 10: 'many'"),
        ({"horizon": {"end": 3}}, "got an unexpected keyword argument 'end'"),
        ({"horizon": None}, "must be a mapping, not NoneType"),
    ],
)
def test_numbers_that_do_not_fit_are_an_error(make_state: MakeState, changes: dict[str, object], reason: str) -> None:
    state = make_state()
    with pytest.raises(DamagedFileError) as caught:
        state.load(state.tensors(), state.numbers() | changes)
    message = str(caught.value)
    assert message.startswith("does not fit this run, perhaps because config.yaml was edited (")
    assert reason in message
    assert message.endswith("); undo the edit, or train again with --out")


def test_missing_number_is_an_error(make_state: MakeState) -> None:
    state, other = make_state(), make_state()
    numbers = state.numbers()
    del numbers["lr_scale"]
    with pytest.raises(
        DamagedFileError, match=r"^does not fit this run, perhaps because config\.yaml was edited \('lr_scale'\)"
    ):
        other.load(state.tensors(), numbers)


@pytest.mark.parametrize("name", ["model.head.bias", "ema.tokenizer.proj.weight"])
def test_missing_tensor_is_named(make_state: MakeState, name: str) -> None:
    state = make_state()
    tensors = state.tensors()
    del tensors[name]
    with pytest.raises(DamagedFileError, match=f'Missing key.*"{name.partition(".")[2]}"'):
        make_state().load(tensors, state.numbers())
