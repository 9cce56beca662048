"""Data sets of PyTorch and of Hugging Face train a run, and evaluate it, as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitreous as vt

TINY = {"model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "data.img_size": 8}
DRAW = np.random.default_rng(3)
LABELS = np.arange(45) % 3
PIXELS = (60 * LABELS[:, None, None, None] + DRAW.integers(0, 60, (45, 8, 12, 3))).astype(np.uint8)


class Photos(torch.utils.data.Dataset[Any]):
    """A data set as users write it, with a transform to tensors."""

    classes = ("ant", "bee", "cat")

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(PIXELS[index]).permute(2, 0, 1).float() / 255, int(LABELS[index])


def of_huggingface() -> Any:
    """Return the same images as a `datasets.DatasetDict`."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(Photos.classes))})
    rows = {"img": [Image.fromarray(image) for image in PIXELS], "label": LABELS.tolist()}
    return datasets.Dataset.from_dict(rows, features=features).train_test_split(0.3, seed=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [Photos, of_huggingface])
def test_data_set_of_another_library_trains_and_evaluates_a_run(make: Any, tmp_path: Path) -> None:
    data = make()
    run = vt.train(data, epochs=2, out=tmp_path / "run", config=TINY)
    assert run.classes == Photos.classes
    assert run.evaluate(data).accuracy == run.accuracy
    assert (run.path / "report.html").is_file()
