"""Finding weights: files, folders, shards with an index, checkpoints that contain them, prefixes of names."""

import json
import os
from collections import OrderedDict

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

from vitreous.errors import NotARunError
from vitreous.model.weights.reading.files import open_weights

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
    assert refusal(tmp_path / ("x" * 300 + ".pt"), NotARunError)


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


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.model."]
)
def test_prefixes_of_wrappers_are_removed(tmp_path, prefix):
    path = write_as("pt", tmp_path, {prefix + name: tensor for name, tensor in plain_state().items()})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    with open_weights(path) as file:
        assert file.notes[0] == f"removed the prefix {prefix[: prefix.index('.') + 1]!r} from every name"


def test_counter_of_averaged_models_is_ignored(tmp_path):
    averaged = {f"module.{name}": tensor for name, tensor in plain_state().items()}
    path = write_as("pt", tmp_path, {"n_averaged": torch.tensor(3), **averaged})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "module", "teacher", "params", "model_ema"])
def test_weights_in_a_checkpoint_are_found(tmp_path, key):
    path = write_as("pt", tmp_path, {"epoch": 3, key: OrderedDict(plain_state()), "best": torch.tensor(0.9)})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    with open_weights(path) as file:
        assert file.notes == [
            f"read the weights under {key!r}; the file has {', '.join(sorted(('best', 'epoch', key)))}"
        ]


def test_averaged_weights_are_preferred_and_noted(tmp_path):
    averaged = noisy(PLAIN, seed=1)
    path = write_as("pt", tmp_path, {"state_dict": plain_state(), "state_dict_ema": plain_state(averaged)})
    assert_same(load_model(path, architecture=HEADS), averaged)
    with open_weights(path) as file:
        assert file.notes == ["read the weights under 'state_dict_ema'; the file has state_dict, state_dict_ema"]


def test_average_without_weights_is_passed_over(tmp_path):
    path = write_as("pt", tmp_path, {"ema": {"decay": 0.99}, "model": {"state_dict": plain_state(), "lr": 0.1}})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    with open_weights(path) as file:
        assert file.notes == [
            "read the weights under 'model'; the file has ema, model",
            "read the weights under 'state_dict'; the file has lr, state_dict",
        ]


def test_values_that_are_not_tensors_are_skipped_with_a_note(tmp_path):
    path = write_as("pt", tmp_path, {**plain_state(), "epoch": 3})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    with open_weights(path) as file:
        assert file.notes == ["skipped epoch: not tensors"]


def test_parameters_are_read_like_tensors(tmp_path):
    state = {name: torch.nn.Parameter(tensor) for name, tensor in plain_state().items()}
    assert_same(load_model(write_as("pt", tmp_path, state), architecture=HEADS), noisy(PLAIN))
