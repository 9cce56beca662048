"""The Open Inference Protocol (V2): its addresses, its tensors, and its errors."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded
from tests.unit.use.serve.test_models import retrain

from vitreous import __version__
from vitreous.use.run import Run

MODEL = "/v2/models/tiny run"


def body(*images: bytes, **changes: Any) -> dict[str, Any]:
    data = [base64.b64encode(image).decode() for image in images]
    return {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [len(data)], "data": data} | changes]}


@pytest.fixture
def version(client: Any) -> str:
    return client.get(MODEL).json()["versions"][0]


def test_server_says_that_it_is_ready(client: Any) -> None:
    assert client.get("/v2").json() == {"name": "vitreous", "version": __version__, "extensions": []}
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    assert client.get(f"{MODEL}/ready").json() == {"name": "tiny run", "ready": True}


def test_model_describes_its_tensors(client: Any, run: Run, version: str) -> None:
    found = client.get(MODEL).json()
    assert found["name"] == "tiny run"
    assert found["inputs"] == [{"name": "images", "datatype": "BYTES", "shape": [-1]}]
    assert found["outputs"][:2] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
    assert found["parameters"] == {"classes": list(run.classes), "img_size": [8, 12]}
    assert client.get(f"{MODEL}/versions/{version}").json() == found


def test_tensor_gets_exactly_the_answer_of_python(client: Any, run: Run, version: str) -> None:
    images = [encoded(1), encoded(2, "JPEG", (40, 23)), encoded(3)]
    expected = run.predict(images)
    for path in (f"{MODEL}/infer", f"{MODEL}/versions/{version}/infer"):
        found = client.post(path, json=body(*images) | {"id": "seven"}).json()
        assert (found["id"], found["model_name"], found["model_version"]) == ("seven", "tiny run", version)
        tensors = {tensor["name"]: tensor for tensor in found["outputs"]}
        assert tensors["probabilities"]["shape"] == [3, 3]
        assert tensors["probabilities"]["data"] == [value for each in expected for value in each.probabilities]
        assert tensors["label"] == {
            "name": "label",
            "datatype": "BYTES",
            "shape": [3],
            "data": [each.label for each in expected],
        }
        if "unfamiliar" in tensors:
            assert tensors["unfamiliar"]["data"] == [each.unfamiliar for each in expected]


def test_replaced_versions_answer_as_before(client_of: Callable[..., Any], own_run: Run) -> None:
    from vitreous.use.serve.models import Models, named

    (own_run.path / "familiarity.safetensors").unlink(missing_ok=True)
    models = Models(named([own_run.path]), keep_versions=2)
    client, path = client_of(models), "/v2/models/own"
    asked = body(encoded())
    before = client.post(f"{path}/infer", json=asked).json()
    retrain(own_run.path / "model.safetensors")
    list(models.renew())
    after = client.post(f"{path}/infer", json=asked).json()
    new, old = versions = client.get(path).json()["versions"]
    assert [after["model_version"], before["model_version"]] == versions
    assert after["outputs"] != before["outputs"]
    for version, expected in ((new, after), (old, before)):
        where = f"{path}/versions/{version}"
        assert client.post(f"{where}/infer", json=asked).json() == expected
        assert client.get(where).json()["versions"] == versions
        assert client.get(f"{where}/ready").json() == {"name": "own", "ready": True}
        answer = client.post("/predict", params={"version": version}, content=encoded()).json()
        data = expected["outputs"][0]["data"]
        assert (answer["version"], list(answer["predictions"][0]["probabilities"].values())) == (version, data)
        assert client.post("/explain", params={"version": version}, content=encoded()).status_code == 200
    assert f'vitreous_model_info{{model="own",version="{old}"}} 1' in client.get("/metrics").text
    retrain(own_run.path / "model.safetensors")
    list(models.renew())
    gone = client.get(f"{path}/versions/{old}")
    assert gone.status_code == 404
    assert gone.json()["error"].startswith(f"version={old}: is not served; ")


def test_only_outputs_that_are_asked_for_are_given(client: Any) -> None:
    found = client.post(f"{MODEL}/infer", json=body(encoded()) | {"outputs": [{"name": "label"}]}).json()
    assert [tensor["name"] for tensor in found["outputs"]] == ["label"]
    assert "id" not in found


def test_parameters_of_clients_are_accepted(client: Any) -> None:
    asked = body(encoded(), parameters={"content_type": "base64"})
    asked |= {
        "parameters": {"binary_data_output": False},
        "outputs": [{"name": "label", "parameters": {"binary_data": False}}],
    }
    assert client.post(f"{MODEL}/infer", json=asked).status_code == 200


def test_unknown_output_is_refused_with_the_nearest_name(client: Any) -> None:
    answer = client.post(f"{MODEL}/infer", json=body(encoded()) | {"outputs": [{"name": "labels"}]})
    assert (answer.status_code, answer.json()) == (
        400,
        {"error": "outputs=labels: no such output; did you mean label?"},
    )


@pytest.mark.parametrize("shape", [[2], [1, 2], [0], [], [-1]])
def test_shape_must_be_that_of_the_images(shape: list[int], client: Any) -> None:
    answer = client.post(f"{MODEL}/infer", json=body(encoded(), shape=shape))
    assert answer.status_code == 400
    assert answer.json()["error"] == f"inputs.0.shape={shape}: is not that of the data; use [1]"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "pixels"}, "inputs.0.name: Input should be 'images'"),
        ({"datatype": "FP32"}, "inputs.0.datatype: Input should be 'BYTES'"),
        ({"data": []}, "inputs.0.data: List should have at least 1 item"),
        ({"data": [1.5]}, "inputs.0.data.0: Input should be a valid string"),
        ({"shape": "1"}, "inputs.0.shape: Input should be a valid list"),
        ({"shape": ["1"]}, "inputs.0.shape.0: Input should be a valid integer"),
        ({"dtype": "BYTES"}, "inputs.0.dtype: Extra inputs are not permitted"),
    ],
)
def test_malformed_tensor_is_refused(changes: dict[str, Any], error: str, client: Any) -> None:
    answer = client.post(f"{MODEL}/infer", json=body(encoded(), **changes))
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


def test_unreadable_image_is_named(client: Any) -> None:
    answer = client.post(f"{MODEL}/infer", json=body(encoded(), b"no image"))
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("1 of 2 images could not be read (image 1: ")


@pytest.mark.parametrize("path", ["/v2/models/other", f"{MODEL}/versions/7", "/v2/models/other/ready", "/v3"])
def test_unknown_model_or_version_is_not_found(path: str, client: Any) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


def test_other_methods_are_refused(client: Any) -> None:
    assert client.get("/predict").status_code == 405
    assert client.options("/predict").status_code == 405
    assert client.delete(MODEL).status_code == 405
