"""`POST /predict`: the answers of `vitreous predict`, for every kind of body; what is wrong is said in one line."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.use.serve.conftest import encoded

from vitreous.cli.main import main
from vitreous.use.run import Run


def answers(run: Run, images: list[bytes]) -> list[dict[str, Any]]:
    """Return what Python predicts, as JSON holds it."""
    found = run.predict(images, coverage=0.95)
    return json.loads(json.dumps([prediction.as_dict(run.classes) for prediction in found]))


def as_text(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_bytes_get_exactly_the_answer_of_python(kind: str, client: Any, run: Run) -> None:
    content = encoded(3, kind, (31, 47))
    answer = client.post("/predict", content=content)
    assert answer.status_code == 200
    assert answer.json()["predictions"] == answers(run, [content])
    assert answer.json()["model"] == "tiny run"
    assert answer.json()["predictions"][0]["set"]


def test_form_gets_exactly_the_answer_of_the_command(
    client: Any, run: Run, image_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run.path), *map(str, image_files), "--coverage", "0.95", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    form = [("images", (path.name, path.read_bytes())) for path in image_files]
    found = client.post("/predict", files=form).json()["predictions"]
    assert [each.pop("image") for each in found] == [path.name for path in image_files]
    assert [Path(each.pop("image")) for each in expected] == image_files
    assert found == expected


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_in_json_gets_exactly_the_answer_of_python(prefix: str, client: Any, run: Run) -> None:
    images = [encoded(1), encoded(2, "JPEG", (50, 33))]
    answer = client.post("/predict", json={"images": [prefix + as_text(image) for image in images]})
    assert answer.json()["predictions"] == answers(run, images)


def test_body_of_a_plain_curl_command_is_an_image(client: Any, run: Run) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}  # what curl --data-binary sends
    answer = client.post("/predict", content=encoded(4), headers=headers)
    assert answer.json()["predictions"] == answers(run, [encoded(4)])


def test_concurrent_requests_are_answered_like_single_ones(client: Any, run: Run) -> None:
    images = [encoded(seed, "PNG", (9 + seed % 5, 14 + seed % 3)) for seed in range(48)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda image: client.post("/predict", content=image).json(), images))
    for answer, image in zip(found, images, strict=True):
        (prediction,), (expected,) = answer["predictions"], answers(run, [image])
        assert prediction["label"] == expected["label"]
        assert prediction["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)


def test_unreadable_image_fails_only_itself(client: Any, run: Run) -> None:
    bad = {"cut.png": encoded(1)[:60], "no image.png": b"no image", "empty.png": b""}
    good = {"a.png": encoded(5), "b.png": encoded(6)}
    files = [("images", item) for item in (*list(good.items())[:1], *bad.items(), *list(good.items())[1:])]
    answer = client.post("/predict", files=files)
    assert answer.status_code == 200
    found = {each["image"]: each for each in answer.json()["predictions"]}
    assert list(found) == ["a.png", *bad, "b.png"]
    expected = answers(run, list(good.values()))
    for name, wanted in zip(good, expected, strict=True):
        assert found[name] == wanted | {"image": name}
    for name in bad:
        assert found[name]["error"].startswith(f"{name}: ")
        assert (found[name]["label"], found[name]["probabilities"], found[name]["set"]) == ("", {}, [])


def test_text_that_is_not_base64_fails_only_itself(client: Any, run: Run) -> None:
    answer = client.post("/predict", json={"images": ["no base64!", as_text(encoded(7))]})
    first, second = answer.json()["predictions"]
    assert first["error"] == "image 0: is not base64"
    assert second == answers(run, [b"", encoded(7)])[1]


def test_request_without_a_readable_image_is_refused(client: Any) -> None:
    answer = client.post("/predict", content=b"no image")
    assert (answer.status_code, answer.json()) == (422, {"error": "image 0: not an image that Pillow can read"})
    answer = client.post("/predict", files=[("a", ("a.png", b"x")), ("b", ("b.png", b""))])
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "2 of 2 images could not be read (a.png: not an image that Pillow can read and b.png: empty file); none is "
        "classified",
    )


def test_too_many_pixels_are_refused_before_they_are_decoded(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_MAX_PIXELS", "400")
    answer = client.post("/predict", files=[("a", ("a.png", encoded(1))), ("b", ("b.png", encoded(1, size=(20, 21))))])
    first, second = answer.json()["predictions"]
    assert (first["error"], second["label"]) == ("", "")
    assert "is over the limit of 400 px" in second["error"]


FORM = {"content-type": "multipart/form-data; boundary=x"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("body", "headers", "status", "error"),
    [
        (b"{", JSON, 400, "body: Invalid JSON"),
        (b"[]", JSON, 400, "body: "),
        (b"{}", JSON, 400, "body: Give either images or urls; see /openapi.json"),
        (
            b'{"images": ["a"], "urls": ["https://a/"]}',
            JSON,
            400,
            "body: Give either images or urls; see /openapi.json",
        ),
        (b'{"images": ["a"], "modle": "b"}', JSON, 400, "modle: Extra inputs are not permitted; see /openapi.json"),
        (b'{"images": []}', JSON, 400, "images: List should have at least 1 item"),
        (b'{"images": [3]}', JSON, 400, "images.0: Input should be a valid string"),
        (json.dumps({"images": [""] * 65}).encode(), JSON, 400, "images: List should have at most 64 items"),
        (b"--x--\r\n", FORM, 400, "form: has no file"),
        (b"no form", FORM, 400, "form: Invalid multipart data."),
        (b"a", {"content-type": "multipart/form-data"}, 400, "form: Missing boundary in multipart."),
    ],
)
def test_malformed_body_is_refused_in_one_line(
    body: bytes, headers: dict[str, str], status: int, error: str, client: Any
) -> None:
    answer = client.post("/predict", content=body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(error)
    assert answer.json()["error"].isprintable()


def test_form_field_that_is_not_a_file_is_refused(client: Any) -> None:
    answer = client.post("/predict", data={"size": "3"}, files={"image": encoded()})
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "size: is not a file; send each image as a file of the form",
    )


def test_more_than_64_files_are_refused(client: Any) -> None:
    answer = client.post("/predict", files=[("image", (f"{n}.png", encoded(n))) for n in range(65)])
    assert answer.status_code == 400  # as for JSON with too many images
    assert "Maximum number of files is 64" in answer.json()["error"]


def test_unknown_model_and_parameter_are_refused_with_the_nearest_name(client: Any) -> None:
    answer = client.post("/predict?model=tiny+rum", content=encoded())
    assert (answer.status_code, answer.json()["error"]) == (
        404,
        "model=tiny rum: no such model; did you mean tiny run?",
    )
    answer = client.post("/predict?modle=x", content=encoded())
    assert (answer.status_code, answer.json()["error"]) == (400, "modle: no such parameter; did you mean model?")
    answer = client.post("/predict?model=tiny+run&model=b", content=encoded())
    assert (answer.status_code, answer.json()["error"]) == (400, "model=b: is the second one; give one model")
    answer = client.post("/predict?version=7", content=encoded())
    assert (answer.status_code, answer.json()["error"][:34]) == (404, "version=7: is not served; use one ")


def test_several_models_answer_by_their_names(
    client_of: Callable[..., Any], run: Run, blind_run: Run, tmp_path: Path
) -> None:
    from vitreous.use.serve.models import Models, named

    client = client_of(Models(named([run.path, blind_run.path])))
    first, second = (client.post("/predict", params=p, content=encoded()).json() for p in ({}, {"model": "blind"}))
    assert (first["model"], second["model"]) == ("tiny run", "blind")
    assert "set" in first["predictions"][0]
    assert "set" not in second["predictions"][0]  # a run without held-out images has no sets
    expected = blind_run.predict(encoded())[0]
    assert list(second["predictions"][0]["probabilities"].values()) == list(expected.probabilities)
