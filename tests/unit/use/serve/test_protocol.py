"""The Open Inference Protocol (V2): its addresses, its tensors, and its errors."""

import base64
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded

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


def test_only_outputs_that_are_asked_for_are_given(client: Any) -> None:
    found = client.post(f"{MODEL}/infer", json=body(encoded()) | {"outputs": [{"name": "label"}]}).json()
    assert [tensor["name"] for tensor in found["outputs"]] == ["label"]
    assert "id" not in found


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
