"""outputs.safetensors: logits and labels of the held-out images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vitreous.errors import DamagedFileError
from vitreous.tensor_file import write_tensor_file
from vitreous.training.folder import outputs
from vitreous.training.folder.outputs import SplitOutputs, read_outputs, write_outputs

LOGITS = torch.arange(15.0).reshape(5, 3)
INDICES = np.array([7, 1, 9, 4, 2])


@pytest.mark.parametrize("labels", [torch.tensor([0, 2, 1, 1, 0]), torch.eye(3)[[0, 1, 1, 2, 0]]])
def test_outputs_are_read_as_they_were_written(tmp_path: Path, labels: torch.Tensor) -> None:
    write_outputs(tmp_path / "o.safetensors", {"test": SplitOutputs(LOGITS, labels, INDICES)})
    found = read_outputs(tmp_path / "o.safetensors")
    assert list(found) == ["test"]
    torch.testing.assert_close(found["test"].logits, LOGITS)
    torch.testing.assert_close(found["test"].labels, labels)
    np.testing.assert_array_equal(found["test"].indices, INDICES)


def test_a_run_of_an_older_version_has_no_outputs(tmp_path: Path) -> None:
    assert read_outputs(tmp_path / "none.safetensors") == {}


def test_a_split_that_is_too_large_is_not_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MOST_VALUES", 14)
    write_outputs(tmp_path / "o.safetensors", {"test": SplitOutputs(LOGITS, torch.zeros(5).long(), INDICES)})
    assert read_outputs(tmp_path / "o.safetensors") == {}


@pytest.mark.parametrize("change", [
    {"test.labels": torch.tensor([0, 1])}, {"test.labels": torch.tensor([0, 1, 2, 3, 0])},
    {"test.indices": torch.tensor([1])}, {"test.logits": torch.zeros(5)},
])  # fmt: skip
def test_outputs_that_do_not_fit_each_other_are_damaged(tmp_path: Path, change: dict[str, torch.Tensor]) -> None:
    good = {"test.logits": LOGITS, "test.labels": torch.tensor([0, 2, 1, 1, 0]), "test.indices": torch.arange(5)}
    write_tensor_file(tmp_path / "o.safetensors", good | change, {})
    with pytest.raises(DamagedFileError, match="delete it; the report then has fewer figures"):
        read_outputs(tmp_path / "o.safetensors")
