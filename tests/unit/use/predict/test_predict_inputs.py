"""What people pass to `predict` in Python: an image in every form gets the same class; the rest is refused."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from vitreous.errors import DataError, VitreousError
from vitreous.use.predict.inputs import each_image
from vitreous.use.run import Run

PIXELS = np.random.default_rng(3).integers(0, 256, (11, 17, 3), dtype=np.uint8)
CHANNELS_FIRST = np.moveaxis(PIXELS, 2, 0)
TENSOR = torch.from_numpy(PIXELS.copy())


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


ONE_IMAGE: dict[str, Callable[[], Any]] = {
    "PIL image": lambda: Image.fromarray(PIXELS),
    "bytes": lambda: png(PIXELS),
    "bytearray": lambda: bytearray(png(PIXELS)),
    "memoryview": lambda: memoryview(png(PIXELS)),
    "open file": lambda: io.BytesIO(png(PIXELS)),
    "array": lambda: PIXELS,
    "array with channels first": lambda: CHANNELS_FIRST,
    "float array": lambda: PIXELS / 255,
    "float array of a batch": lambda: (PIXELS / 255).astype(np.float32)[None],
    "tensor": lambda: TENSOR,
    "tensor with channels first": lambda: TENSOR.permute(2, 0, 1),
    "float tensor with channels first": lambda: TENSOR.permute(2, 0, 1) / 255,
    "half-precision tensor that needs a gradient": lambda: (TENSOR / 255).half().requires_grad_(),
    "batch with channels first": lambda: TENSOR.permute(2, 0, 1)[None] / 255,
    "batch with channels last": lambda: TENSOR[None],
    "array of a batch": lambda: PIXELS[None],
    "list": lambda: [PIXELS],
    "tuple": lambda: (TENSOR,),
    "generator": lambda: (image for image in [PIXELS]),
    "batch with labels": lambda: [TENSOR.permute(2, 0, 1)[None], torch.tensor([2])],
    "loader": lambda: DataLoader(TensorDataset(TENSOR.permute(2, 0, 1)[None], torch.tensor([2]))),
    "list of batches": lambda: [TENSOR[None]],
}


@pytest.mark.parametrize("form", ONE_IMAGE)
def test_an_image_in_every_form_gets_the_prediction_of_its_file(run: Run, tmp_path: Path, form: str) -> None:
    (tmp_path / "image.png").write_bytes(png(PIXELS))
    expected = run.predict(tmp_path / "image.png")[0]
    (found,) = run.predict(ONE_IMAGE[form]())
    assert (found.label, found.error) == (expected.label, "")
    assert found.label
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-3)


def test_values_slightly_outside_0_to_1_as_resizing_makes_them_are_clipped() -> None:
    (found,) = each_image(torch.tensor([[-0.02, 0.25, 1.03]]), 3)
    np.testing.assert_array_equal(found, np.array([[0, 0.25, 1]], dtype=np.float32))


def test_a_generator_is_read_batch_by_batch(run: Run) -> None:
    read = []
    stream = run.predictor.stream(read.append(number) or PIXELS for number in range(150))
    names = [next(stream).image for _ in range(65)]
    assert len(read) == 128
    assert names == [f"image {number}" for number in range(65)]


def test_paths_folders_and_arrays_may_be_mixed(run: Run, tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        (tmp_path / name).write_bytes(png(PIXELS))
    found = run.predict([tmp_path, PIXELS, str(tmp_path / "b.png")])
    assert [Path(prediction.image).name for prediction in found] == ["a.png", "b.png", "image 2", "b.png"]


@pytest.mark.parametrize(
    ("given", "start"),
    [
        (None, "image=None: is not an image; give paths"),
        (7, "image=7: is not an image; give paths"),
        ({"pixel_values": TENSOR}, "image={'pixel_values': <Tensor>}: is not an image; "),
        ([PIXELS, 3.5], "image=3.5: is not an image; "),
        ([(Image.fromarray(PIXELS), 2)], "image=2: is not an image; "),
        (io.StringIO("text"), "image=<StringIO>: is not an image; "),
        (torch.zeros(5), "image=Tensor of shape [5]: must be [height, width], or have 1 or 3 or 4 channels, "),
        (torch.zeros(7, 8, 9), "image=Tensor of shape [7, 8, 9]: must be [height, width], or have "),
        (torch.zeros(3, 9, 3), "image=Tensor of shape [3, 9, 3]: must be [height, width], or have "),
        (np.zeros((2, 2, 3, 5, 6)), "image=ndarray of shape [2, 2, 3, 5, 6]: must be "),
        (torch.zeros(3, 5, 6, dtype=torch.complex64), "image=tensor of torch.complex64, torch.strided: holds no "),
        (torch.zeros(3, 5, 6, device="meta"), "image=tensor of torch.float32, torch.strided: holds no pixels"),
        (torch.zeros(3, 5, 6).to_sparse(), "image=tensor of torch.float32, torch.sparse_coo: holds no pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_anything_else_is_refused_by_its_type_or_shape(run: Run, given: Any, start: str) -> None:
    with pytest.raises(DataError) as caught:
        run.predict(given)
    assert str(caught.value).startswith(start)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values", [(torch.zeros(3, 5, 6) - 2.1), np.full((5, 6, 3), np.nan)], ids=["normalized", "NaN"]
)
def test_array_with_values_of_unknown_meaning_is_refused_and_gets_no_empty_label(run: Run, values: Any) -> None:
    with pytest.raises(VitreousError, match=r"^image 0: "):
        run.predict(values)
