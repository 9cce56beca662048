"""The Vision Transformer in a checkpoint is found whatever it is wrapped in; what is left out is listed."""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.model.weights.samples import HEADS, PLAIN, assert_same, load_model, noisy, plain_state, write_as
from torch import nn

from vitreous.errors import AssumptionWarning, ConfigError, DamagedFileError
from vitreous.model import ModelConfig
from vitreous.model.weights.open import identify
from vitreous.model.weights.reading.files import open_weights
from vitreous.model.weights.subtree import find_parts, others
from vitreous.model.weights.table import Hints, write_tensors
from vitreous.model.weights.timm import TIMM

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

RAW, EMA = noisy(PLAIN), noisy(PLAIN, seed=1)


def under(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def opened(folder, content, **options):
    return load_model(write_as("pt", folder, content), architecture=HEADS, **options)


def described(folder, content):
    with open_weights(write_as("pt", folder, content)) as file:
        return identify(file, Hints(architecture=HEADS))


WRAPPERS = [
    *("module.", "_orig_mod.", "model.", "net.", "vit.", "backbone.", "encoder.", "visual.trunk.", "0."),
    *("module._orig_mod.", "_orig_mod.module.", "model.model.", "state_dict.model.net.vit.", "a.b.c.d.e.f.g."),
]


@pytest.mark.parametrize("kind", ["pt", "legacy pt", "safetensors"])
@pytest.mark.parametrize("prefix", WRAPPERS)
def test_any_prefix_of_names_is_accepted(tmp_path, prefix, kind):
    path = write_as(kind, tmp_path, under(prefix, plain_state()))
    assert_same(load_model(path, architecture=HEADS), RAW)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "net", "params", "weights", "teacher", "ema", "ema_state_dict"]
)
def test_any_key_of_a_checkpoint_is_accepted(tmp_path, key):
    content = {"epoch": 3, key: OrderedDict(plain_state()), "best": torch.tensor(0.9)}
    assert_same(opened(tmp_path, content), RAW)
    assert described(tmp_path, content).other_parts == ["best (1 tensor)"]


def test_other_objects_do_not_prevent_reading(tmp_path):
    content = {
        "model": plain_state(),
        "args": argparse.Namespace(lr=0.1, out=Path("runs/a"), sizes=(3, 4)),
        "best_acc": np.float64(0.83),
        "epoch": np.int64(4),
        "curve": np.arange(3.0),
        "optimizer": torch.optim.AdamW([nn.Parameter(torch.zeros(2))]).state_dict(),
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.8)}},
        "names": {1, 2},
    }
    assert_same(opened(tmp_path, content), RAW)


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(2, 2)


def test_pickled_modules_are_read_by_the_names_of_their_parts(tmp_path):
    module = Wrapped()
    torch.save({"model": module}, tmp_path / "model.pt")
    with open_weights(tmp_path / "model.pt") as file:
        assert torch.equal(file.read("model.backbone.weight"), module.backbone.weight)
        assert file.objects == {"model": f"{__name__}.Wrapped"}


AVERAGES = [
    ("state_dict", "state_dict_ema"), ("model", "model_ema"), ("state_dict", "ema_state_dict"), ("net", "ema"),
    ("student", "teacher"), ("module.base_encoder", "module.momentum_encoder"), ("encoder", "target_encoder"),
    ("model", "averaged_model"), ("model", "swa_model"),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "ema"), AVERAGES)
def test_averaged_weights_are_taken_by_default_and_raw_ones_on_request(tmp_path, raw, ema):
    content = {raw: plain_state(), ema: plain_state(EMA)}
    assert_same(opened(tmp_path, content), EMA)
    assert_same(opened(tmp_path, content, weights="ema"), EMA)
    assert_same(opened(tmp_path, content, weights="raw"), RAW)
    assert_same(opened(tmp_path, content, weights=raw), RAW)


def test_average_of_torch_is_recognized_by_its_counter(tmp_path):
    averaged = {"n_averaged": torch.tensor(3), **under("module.", plain_state(EMA))}
    assert_same(opened(tmp_path, {"model": plain_state(), "other": averaged}), EMA)
    assert_same(opened(tmp_path, averaged), EMA)


@pytest.mark.filterwarnings("error")
def test_choice_of_averaged_weights_is_said_once_and_not_if_it_was_asked_for(tmp_path):
    content = {"model": plain_state(), "model_ema": plain_state(EMA)}
    with pytest.warns(AssumptionWarning, match="reads model_ema, averaged weights or a teacher, not model; w"):
        opened(tmp_path, content)
    with pytest.warns(AssumptionWarning) as caught:
        opened(tmp_path, content, weights="ema")
    assert "model_ema" not in str(caught[0].message)
    assert len(caught) == 1


def test_several_equal_choices_are_asked_for_and_the_way_out_works(tmp_path):
    content = {"left": plain_state(), "right": plain_state(EMA)}
    with pytest.raises(ConfigError) as caught:
        opened(tmp_path, content)
    assert str(caught.value).endswith(
        "model.pt has several Vision Transformers (left, right); choose one, e.g. weights=left"
    )
    assert_same(opened(tmp_path, content, weights="left"), RAW)
    assert_same(opened(tmp_path, content, weights="right"), EMA)


def test_weights_that_the_file_does_not_have_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"weights=ema: .*model\.pt has only model; use auto, or one of these names"):
        opened(tmp_path, {"model": plain_state()}, weights="ema")
    with pytest.raises(ConfigError, match=r"weights=mode: .*model\.pt has only model; did you mean model\?"):
        opened(tmp_path, {"model": plain_state()}, weights="mode")


DINO = ModelConfig(
    img_size=(12, 12), patch_size=4, in_chans=3, num_classes=0, embed_dim=20, depth=4, num_heads=5, layer_scale=1e-5
)
DINO_HEADS = {"num_heads": 5}


def dino_state(model, *, chunks):
    """Return a backbone under the names of DINOv2, whose training code numbers chunks of blocks and blocks."""
    state = {}
    for name, tensor in write_tensors(TIMM[0].rows(model.config), model.state_dict()).items():
        first, number, rest = (*name.split(".", 2), "", "")[:3]
        name = f"blocks.{int(number) // 2}.{number}.{rest}" if chunks and first == "blocks" else name
        state[name] = tensor.detach().contiguous().clone()
    return state


@pytest.mark.parametrize("chunks", [False, True])
def test_self_supervised_checkpoint_opens_as_its_teacher_and_lists_the_rest(tmp_path, chunks):
    student, teacher = noisy(DINO), noisy(DINO, seed=1)
    head = {"head.mlp.0.weight": torch.zeros(8, 20), "head.last_layer.weight_g": torch.ones(9, 1)}
    content = {
        "student": under("module.", {**under("backbone.", dino_state(student, chunks=chunks)), **head}),
        "teacher": {**under("backbone.", dino_state(teacher, chunks=chunks)), **head},
        "dino_loss": {"center": torch.zeros(1, 9)},
    }
    path = write_as("pt", tmp_path, content)
    assert_same(load_model(path, architecture=DINO_HEADS), teacher)
    with open_weights(path) as file:
        found = identify(file, Hints(architecture=DINO_HEADS))
    count = len(dino_state(student, chunks=chunks)) + 2
    assert found.other_parts == ["dino_loss (1 tensor)", f"student ({count} tensors)", "teacher.head (2 tensors)"]


def test_modules_next_to_the_known_parts_are_left_out_with_a_note(tmp_path):
    content = {**plain_state(), "neck.weight": torch.zeros(3), "neck.bias": torch.zeros(3)}
    found = described(tmp_path, content)
    assert found.notes[0] == "left out neck (2 tensors)"
    assert_same(opened(tmp_path, content), RAW)


@pytest.mark.parametrize(
    "name", ["encoder.layers.encoder_layer_0.adapter.weight", "heads.extra.weight", "prompt_tokens", "scale"]
)
def test_tensor_that_may_change_the_outputs_is_never_left_out(tmp_path, name):
    with pytest.raises(DamagedFileError, match=f"unexpected: {name}"):
        opened(tmp_path, {**plain_state(), name: torch.zeros(3)})


@pytest.mark.parametrize("part", ["reg_token", "norm_pre.weight", "attn_pool.latent", "rope.x", "fc_norm.bias"])
def test_known_part_that_a_name_does_not_have_is_never_left_out(tmp_path, part):
    state = dino_state(noisy(DINO), chunks=False)
    with pytest.raises((DamagedFileError, ConfigError)):
        opened(tmp_path, {**state, part: torch.zeros(1, 3, 20)}, name="vit_tiny_patch16_224")


def test_only_outermost_models_are_parts(tmp_path):
    with open_weights(write_as("pt", tmp_path, {"a": {"b": plain_state()}})) as file:
        assert [part.root for part in find_parts(file)] == ["a.b."]


def test_unread_tensors_are_summarized_below_what_they_share_with_the_model():
    names = ["a.m.head.x", "a.m.head.y", "a.neck.w", "opt.0.s", "opt.1.s", "t"]
    assert others(names, "a.m.") == ["a.m.head (2 tensors)", "a.neck (1 tensor)", "opt (2 tensors)", "t (1 tensor)"]
