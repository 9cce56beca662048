"""Finding weights: files, folders, shards with an index, checkpoints that contain them, prefixes of names."""

import json
import os

import pytest
import torch
from tests.unit.model.weights.samples import (
    HEADS,
    PLAIN,
    assert_same,
    load_model,
    noisy,
    plain_state,
    refusal,
    write_as,
)

from vitreous.errors import ConfigError, NotARunError

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")


@pytest.mark.parametrize(
    "part", ["../outside.safetensors", "/etc/passwd", "..", "", "gone.safetensors", "a\0b", "a.txt"]
)
def test_index_may_only_name_files_in_its_folder(tmp_path, part):
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a.txt").touch()
    write_as("safetensors", tmp_path, plain_state()).rename(tmp_path / "outside.safetensors")
    index = inside / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(plain_state(), part)}))
    assert refusal(index) == f"names {part!r}, but its folder has no such file of weights; download it again"


@pytest.mark.parametrize("weight_map", [None, [], {"class_token": 3}, {"class_token": ["a"]}, "x"])
def test_index_without_file_names_is_damaged(tmp_path, weight_map):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert refusal(index) == "does not say which file holds which tensor; download it again"


def test_index_that_lists_absent_tensors_is_damaged(tmp_path):
    index = write_as("index.json", tmp_path, plain_state())
    weight_map = json.loads(index.read_text())["weight_map"] | {"head": "a.safetensors", "tail": "b.safetensors"}
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert refusal(index) == "lists tensors that its files do not have (head, tail); download it again"


def test_path_that_is_not_a_file_is_refused(tmp_path):
    (tmp_path / "loop.pt").symlink_to(tmp_path / "loop.pt")
    (tmp_path / "dangling.pt").symlink_to(tmp_path / "nowhere.pt")
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("loop.pt", "dangling.pt", "pipe.pt", "absent.pt"):
        assert refusal(tmp_path / name, NotARunError) == (
            "no such file; give a file of weights, a folder with one, or hf://organization/name"
        )
    assert refusal(tmp_path / "folder.pt", NotARunError).startswith("the folder has none of model.safetensors, model.")
    with pytest.raises(ConfigError, match="is not a path; give the path of a file or folder"):
        load_model(tmp_path / ("x" * 300 + ".pt"))


def test_unknown_file_type_is_refused(tmp_path):
    (tmp_path / "weights.h5").touch()
    assert refusal(tmp_path / "weights.h5") == (
        "not a type of file that holds weights; use one of .safetensors, .npz, .pt, .pth, .bin, .ckpt, .pth.tar"
    )


def test_symbolic_link_is_followed(tmp_path):
    path = write_as("pt", tmp_path, plain_state())
    (tmp_path / "link.pt").symlink_to(path)
    assert_same(load_model(tmp_path / "link.pt", architecture=HEADS), noisy(PLAIN))


@pytest.mark.parametrize("kind", ["safetensors", "index.json", "bin"])
def test_folder_gives_the_file_that_transformers_would_read(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write_as(kind, folder, plain_state())
    if kind == "bin":
        path.rename(folder / "pytorch_model.bin")
    assert_same(load_model(folder, architecture=HEADS), noisy(PLAIN))


def test_folder_with_one_file_gives_it_and_with_several_is_refused(tmp_path):
    write_as("npz", tmp_path, plain_state())
    assert_same(load_model(tmp_path, architecture=HEADS), noisy(PLAIN))
    write_as("pth", tmp_path, plain_state())
    assert refusal(tmp_path, NotARunError) == (
        "the folder has several files of weights (model.npz, model.pth); give one"
    )


def test_index_of_torch_files_is_read(tmp_path):
    state = plain_state()
    torch.save({"class_token": state.pop("class_token")}, tmp_path / "a.bin")
    torch.save(state, tmp_path / "b.bin")
    weight_map = dict.fromkeys(state, "b.bin") | {"class_token": "a.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(load_model(tmp_path, architecture=HEADS), noisy(PLAIN))


def test_parameters_are_read_like_tensors(tmp_path):
    state = {name: torch.nn.Parameter(tensor) for name, tensor in plain_state().items()}
    assert_same(load_model(write_as("pt", tmp_path, state), architecture=HEADS), noisy(PLAIN))
