import dataclasses

import pytest
import torch
from tests.unit.model.weights.samples import PLAIN, plain_state, refusal, write_as

from vitreous.errors import DamagedFileError
from vitreous.model.weights.strict import check_plausible, check_shapes, check_values, listed, shown

EXPECTED = {"a": (2, 3), "b": (4,), "c": ()}


def faults(found, way_out=None):
    with pytest.raises(DamagedFileError) as caught:
        check_shapes("file", expected=EXPECTED, found=found, way_out=way_out)
    return str(caught.value)


def test_all_faults_stand_in_one_line_with_what_was_got():
    assert faults({"a": (3, 2), "c": (5,), "d": (1,), "e": ()}, way_out="send it back") == (
        "file: its tensors are not the model's (missing: b; unexpected: d, e; "
        "wrong shape: a is 3x2, must be 2x3, c is 5, must be a scalar); send it back"
    )


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"a": (2, 3)}, "it was cut short, or is one part of several; copy or train it again"),
        (
            EXPECTED | {"d": (1,)},
            "it has parts that its name or description do not say; pass its name, or architecture={…}",
        ),
        (
            EXPECTED | {"a": (3, 2)},
            "it is another model than its name or shapes say; pass its name, or architecture={…}",
        ),
        ({"a": (2, 3), "d": (1,)}, "it is another model than it says; pass its name, or copy or train it again"),
    ],
)
def test_the_likely_cause_is_named(found, cause):
    assert faults(found).endswith(f"); {cause}")


def test_tensors_that_fit_pass():
    check_shapes("file", expected=EXPECTED, found=dict(EXPECTED))


def test_a_list_of_names_is_cut():
    assert listed(["b", "a", "d", "c"], 2) == "a, b and 2 more"
    assert listed({"b", "a"}, 2) == "a, b"


def test_a_strangers_words_are_made_printable_and_short():
    assert shown("tête.weight") == "tête.weight"
    assert shown("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert shown("x" * 500, 10) == "xxxxxxxxxx…"


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([1.0, float("nan")]),
        torch.tensor([-float("inf")]),
        torch.tensor([3]),
        torch.tensor([True]),
        torch.tensor([1j]),
        torch.tensor([1.0]).to(torch.float8_e5m2),
    ],
    ids=["nan", "inf", "int", "bool", "complex", "float8"],
)
def test_what_is_no_finite_floating_point_number_is_named(tensor):
    with pytest.raises(DamagedFileError) as caught:
        check_values("file", {"good": torch.ones(2), "bad": tensor})
    assert str(caught.value) == (
        "file: holds weights that are not finite floating-point numbers: bad; copy or train it again"
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_that_models_train_in_passes(dtype):
    check_values("file", {"a": torch.ones(2, dtype=dtype)})


def test_more_parameters_than_there_are_numbers_are_refused():
    with pytest.raises(DamagedFileError) as caught:
        check_plausible("file", PLAIN, {"a": (5, 20)})
    assert str(caught.value) == "file: its architecture has 7407 parameters, its tensors 100; copy or train it again"


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_weights_of_any_kind_of_file_are_finite(tmp_path, kind, value):
    state = plain_state()
    state["encoder.ln.bias"][3] = value
    assert refusal(write_as(kind, tmp_path, state)) == (
        "holds weights that are not finite floating-point numbers: encoder.ln.bias; copy or train it again"
    )


def test_a_number_in_a_name_does_not_make_a_model_of_a_million_blocks(tmp_path):
    huge = {**plain_state(), "encoder.layers.encoder_layer_999999.ln_1.weight": torch.zeros(20)}
    assert refusal(write_as("pt", tmp_path, huge)).startswith(
        "its architecture has 3010001387 parameters, its tensors 7427;"
    )


def test_more_blocks_than_could_be_built_in_a_while_are_refused():
    with pytest.raises(DamagedFileError) as caught:
        check_plausible("file", dataclasses.replace(PLAIN, depth=5000), {"a": (10**7,), "b": (5,)})
    assert str(caught.value) == "file: its architecture has 5000 blocks of 2 tensors; copy or train it again"
