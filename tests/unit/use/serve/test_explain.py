"""`POST /explain`: the picture of `vitreous explain`."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.serve.conftest import encoded

from vitreous.use.run import Run


@pytest.mark.parametrize("target", [None, "two words"])
def test_picture_is_that_of_the_default_explanation(target: str | None, client: Any, run: Run) -> None:
    content = encoded(2, "PNG", (33, 52))
    answer = client.post("/explain", params={"target": target} if target else {}, content=content)
    (expected,) = run.explain(content, target=target)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-finding"] == expected.finding
    found = Image.open(io.BytesIO(answer.content))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected.pictures(640)[1]))


@pytest.mark.parametrize(
    ("parameters", "content", "status", "error"),
    [
        ({"target": "two word"}, encoded(), 404, "target=two word: no such class; did you mean two words?"),
        ({"targt": "two words"}, encoded(), 400, "targt: no such parameter; did you mean target?"),
        ({"model": "other"}, encoded(), 404, "model=other: no such model; use one of tiny run"),
        ({}, b"no image", 422, "image 0: not an image that Pillow can read"),
        ({}, b"", 422, "image 0: empty file"),
    ],
)
def test_what_is_wrong_is_said(
    parameters: dict[str, str], content: bytes, status: int, error: str, client: Any
) -> None:
    answer = client.post("/explain", params=parameters, content=content)
    assert (answer.status_code, answer.json()) == (status, {"error": error})


def test_only_one_image_is_explained(client: Any) -> None:
    answer = client.post("/explain", files=[("image", (f"{n}.png", encoded(n))) for n in range(2)])
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "images=2: one at a time is explained; send one image",
    )
