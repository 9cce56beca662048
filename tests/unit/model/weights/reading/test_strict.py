import pytest
import torch
from tests.unit.model.weights.samples import PLAIN, plain_state, refusal, write_as

from vitreous.errors import DamagedFileError
from vitreous.model.weights.reading.strict import check_plausible, check_shapes, check_values

EXPECTED = {"a": (2, 3), "b": (4,), "c": ()}


def faults(found, way_out=None):
    with pytest.raises(DamagedFileError) as caught:
        check_shapes("file", expected=EXPECTED, found=found, way_out=way_out)
    return str(caught.value)


def test_all_faults_are_listed_in_one_line():
    assert faults({"a": (3, 2), "c": (5,), "d": (1,), "e": ()}, way_out="send it back") == (
        "file: its tensors do not match the model (missing: b; unexpected: d, e; "
        "wrong shape: a is 3x2, must be 2x3, c is 5, must be a scalar); send it back"
    )


@pytest.mark.parametrize(
    ("found", "cause"),
    [
        ({"a": (2, 3)}, "it is cut short, or one shard of several; copy the file again, or retrain the model"),
        (
            EXPECTED | {"d": (1,)},
            "the model has more parts than its name or description says; pass its name, or architecture={…}",
        ),
        (
            EXPECTED | {"a": (3, 2)},
            "the model differs from its name or description; pass its name, or architecture={…}",
        ),
        (
            {"a": (2, 3), "d": (1,)},
            "the model differs from its description; pass its name, or copy the file again, or retrain the model",
        ),
    ],
)
def test_likely_cause_is_named(found, cause):
    assert faults(found).endswith(f"); {cause}")


def test_tensors_that_fit_pass():
    check_shapes("file", expected=EXPECTED, found=dict(EXPECTED))


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
def test_tensors_that_are_not_finite_floats_are_named(tensor):
    with pytest.raises(DamagedFileError) as caught:
        check_values("file", {"good": torch.ones(2), "bad": tensor})
    assert str(caught.value) == (
        "file: these weights are not finite floating-point numbers: bad; copy the file again, or retrain the model"
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_point_dtype_of_models_passes(dtype):
    check_values("file", {"a": torch.ones(2, dtype=dtype)})


def test_more_parameters_than_stored_values_are_refused():
    with pytest.raises(DamagedFileError) as caught:
        check_plausible("file", PLAIN, {"a": (5, 20)})
    assert str(caught.value) == (
        "file: its architecture has 7,407 parameters, but its tensors have 100 values; "
        "copy the file again, or retrain the model"
    )


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_values_are_checked_in_every_kind_of_file(tmp_path, kind, value):
    state = plain_state()
    state["encoder.ln.bias"][3] = value
    assert refusal(write_as(kind, tmp_path, state)) == (
        "these weights are not finite floating-point numbers: encoder.ln.bias; "
        "copy the file again, or retrain the model"
    )


def test_number_in_a_tensor_name_cannot_demand_a_million_blocks(tmp_path):
    huge = {**plain_state(), "encoder.layers.encoder_layer_999.ln_1.weight": torch.zeros(20)}
    assert refusal(write_as("pt", tmp_path, huge)).startswith(
        "its architecture has 3,011,387 parameters, but its tensors have 7,427 values;"
    )
