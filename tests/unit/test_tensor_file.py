from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from vitreous import tensor_file
from vitreous.errors import DamagedFileError, DataError, SaveError
from vitreous.tensor_file import open_tensor_file, parsing, write_tensor_file

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7.0, dtype=torch.bfloat16)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_tensor_file(tmp_path / "x.safetensors", TENSORS, {"key": "text"})
    return tmp_path / "x.safetensors"


def test_written_file_is_read_back(path: Path) -> None:
    with open_tensor_file(path, way_out="train again") as file:
        assert file.metadata == {"key": "text"}
        assert file.shapes() == {"a": (2, 3), "b": ()}
        torch.testing.assert_close(file.read_all(), TENSORS, rtol=0, atol=0)
        torch.testing.assert_close(file.read("b"), TENSORS["b"], rtol=0, atol=0)
    torch.testing.assert_close(load_file(path), TENSORS, rtol=0, atol=0)


def test_file_of_the_same_content_has_the_same_bytes(tmp_path: Path) -> None:
    metadata = {"z": 'ä\n\x00\x1f\u2028"\\/', "b": "2", "a": "", "long": "x" * 3_000, "é": "😀"}
    files = [tmp_path / f"{number}.safetensors" for number in range(9)]  # of 9 random orders, some differ
    for file in files:
        write_tensor_file(file, TENSORS, metadata)
    assert len({file.read_bytes() for file in files}) == 1
    with open_tensor_file(files[0], way_out="train again") as file:
        assert file.metadata == metadata
    torch.testing.assert_close(load_file(files[0]), TENSORS, rtol=0, atol=0)


def test_tensors_do_not_change_with_the_file(path: Path) -> None:
    with open_tensor_file(path, way_out="train again") as file:
        found = file.read_all()
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    torch.testing.assert_close(found, TENSORS, rtol=0, atol=0)


@pytest.mark.parametrize("num_bytes", [0, 5, 50, -1])
def test_file_that_is_cut_short_is_damaged(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])
    with (
        pytest.raises(DamagedFileError, match=r"x\.safetensors: cannot be read as \.safetensors \(.*\); train again$"),
        open_tensor_file(path, way_out="train again"),
    ):
        pass


def test_missing_file_is_damaged(tmp_path: Path) -> None:
    with (
        pytest.raises(DamagedFileError, match=r"train again$"),
        open_tensor_file(tmp_path / "no", way_out="train again"),
    ):
        pass


def test_missing_tensor_is_damaged(path: Path) -> None:
    with open_tensor_file(path, way_out="train again") as file, pytest.raises(DamagedFileError, match=r"train again$"):
        file.read("c")


def test_errors_of_the_with_block_are_not_blamed_on_the_file(path: Path) -> None:
    with pytest.raises(OSError, match=r"^disk$"), open_tensor_file(path, way_out="train again"):
        raise OSError("disk")


def test_errors_of_the_project_pass_through_a_parser(path: Path) -> None:
    with pytest.raises(DataError, match=r"^no images; add some$"), parsing(path, "download it again"):
        raise DataError("no images; add some")


def test_full_disk_is_a_save_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    before = path.read_bytes()
    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        write_tensor_file(path, {"a": torch.zeros(2)}, {})
    assert path.read_bytes() == before
