import json
import os
import resource
import struct

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from tests.unit.model.weights.samples import assert_same, load_model

from vitreous import extensions, tensor_file
from vitreous.errors import ConfigError, DamagedFileError, NotARunError, SaveError
from vitreous.model import ModelConfig, build_model, read_metadata, save_model
from vitreous.model.change.lora import add_lora
from vitreous.model.weights import export_weights, is_native
from vitreous.model.weights.native import load_native

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

CONFIG = ModelConfig(img_size=(12, 20), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=2, num_heads=5)
METADATA = {"classes": ["ant", "bée"], "accuracy": 0.75, "preprocessing": {"mean": [0.5]}}


@pytest.fixture
def model():
    return build_model(CONFIG, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_model(path, model, METADATA)
    return path


def rewrite(path, *, header=lambda header: header, architecture=None):
    """Alter the header of a file as an attacker could; `architecture` changes keys of the stored configuration."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + length])
    if architecture is not None:
        stored = json.loads(entries["__metadata__"]["vitreous"])
        stored["architecture"] |= architecture
        entries["__metadata__"]["vitreous"] = json.dumps(stored)
    text = json.dumps(header(entries)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def damage(path):
    with pytest.raises(DamagedFileError) as caught:
        load_native(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_are_bit_identical_through_two_rounds(tmp_path, model, dtype):
    model = model.to(dtype)
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_model(first, model, METADATA)
    loaded = load_model(first)
    save_model(second, loaded, METADATA)
    assert first.read_bytes() == second.read_bytes()
    assert loaded.config == CONFIG
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("position", ["learned", "sinusoidal", "none"])
def test_loaded_model_has_equal_logits(tmp_path, position):
    model = build_model(ModelConfig.from_dict(CONFIG.as_dict() | {"position": position})).double().eval()
    save_model(tmp_path / "m.safetensors", model, {})
    images = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(load_model(tmp_path / "m.safetensors")(images), model(images), rtol=0, atol=0)


@pytest.mark.parametrize("given", [{"name": "vit_tiny_patch16_224"}, {"architecture": {"act": "relu"}}])
def test_own_file_needs_no_description(saved, given):
    with pytest.raises(ConfigError) as caught:
        load_model(saved, **given)
    assert str(caught.value) == f"{saved}: already describes its model; leave out name, architecture and weights"


def test_own_file_does_not_read_a_description_of_something_else(saved):
    saved.with_name("config.json").write_text("[1]")
    assert load_model(saved).config == CONFIG


def test_own_file_can_get_another_head_and_size(saved, model):
    loaded = load_model(saved, num_classes=2, img_size=(20, 12))
    assert loaded(torch.zeros(1, 3, 20, 12)).shape == (1, 2)
    torch.testing.assert_close(loaded.encoder.norm.weight, model.encoder.norm.weight, rtol=0, atol=0)


def test_only_files_of_save_model_are_native(saved, tmp_path):
    assert is_native(saved)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "empty.safetensors").touch()
    assert not is_native(tmp_path / "other.safetensors")
    assert not is_native(tmp_path / "empty.safetensors")
    assert not is_native(tmp_path / "absent.safetensors")


def test_metadata_is_returned_with_format_and_architecture(saved):
    assert read_metadata(saved) == {"format": 1, "architecture": CONFIG.as_dict(), **METADATA}


def test_counters_of_an_extension_are_kept(tmp_path, monkeypatch):
    def change(model):
        model.fc_norm = torch.nn.BatchNorm1d(model.config.embed_dim)

    monkeypatch.setattr(extensions, "_registered", {})
    extensions.register("batch_norm", change_model=change)
    config = ModelConfig(
        img_size=(8, 8), patch_size=4, in_chans=3, num_classes=3, embed_dim=16, depth=1, num_heads=2,
        extension="batch_norm",
    )  # fmt: skip
    model = build_model(config).train()
    model(torch.randn(4, 3, 8, 8))
    save_model(tmp_path / "m.safetensors", model, {})
    assert_same(load_native(tmp_path / "m.safetensors"), model)
    assert model.state_dict()["fc_norm.num_batches_tracked"] == 1


def test_compiled_model_is_saved_under_plain_names(tmp_path, model):
    path = tmp_path / "model.safetensors"
    save_model(path, torch.compile(model, backend="eager"), {})
    assert load_model(path).state_dict().keys() == model.state_dict().keys()


def test_loaded_model_does_not_change_with_its_file(saved, model):
    loaded = load_native(saved)
    saved.write_bytes(bytes(saved.stat().st_size))
    torch.testing.assert_close(loaded.head.weight, model.head.weight, rtol=0, atol=0)


def test_reserved_metadata_keys_are_refused(tmp_path, model):
    with pytest.raises(ConfigError) as caught:
        save_model(tmp_path / "m.safetensors", model, {"format": 7})
    assert str(caught.value) == "metadata.format=7: save_model writes this key itself; use another key"


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_metadata_that_json_cannot_hold_is_refused(tmp_path, model, value):
    with pytest.raises(ConfigError, match=r"metadata=\['score'\]: cannot be written as JSON .*; use plain values"):
        save_model(tmp_path / "m.safetensors", model, {"score": value})
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_the_old_file(saved, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    before = saved.read_bytes()
    monkeypatch.setattr(tensor_file, "save_file", full)
    with pytest.raises(SaveError, match="No space left on device"):
        save_model(saved, build_model(CONFIG), {})
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file size limit")
def test_disk_that_fills_up_while_writing_is_a_save_error(saved, model):
    before, limits = saved.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(SaveError, match=r"model\.safetensors: could not be written"):
            save_model(saved, model, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert saved.read_bytes() == before


@pytest.mark.parametrize("read", [load_native, read_metadata])
def test_missing_file_is_not_a_run(tmp_path, read):
    with pytest.raises(NotARunError) as caught:
        read(tmp_path / "nowhere.safetensors")
    assert str(caught.value) == (
        f"{tmp_path / 'nowhere.safetensors'}: no such file; give a model.safetensors written by vitreous"
    )
    with pytest.raises(NotARunError, match="is a folder"):
        read(tmp_path)


def keep(part):
    return lambda content: content[: int(len(content) * part)]


@pytest.mark.parametrize(
    "alter",
    [
        keep(0.0),
        keep(0.01),
        keep(0.9),
        lambda content: content[:-1],
        lambda content: content + b"more",
        lambda content: struct.pack("<Q", 2**62) + content[8:],
        lambda content: struct.pack("<Q", 2**26) + content[8:],
        lambda content: b"\x80\x04\x95pickle" + content,
        lambda content: b"PK\x03\x04" + content,
    ],
)
@pytest.mark.parametrize("read", [load_native, read_metadata])
def test_file_cut_short_or_of_another_type_is_damaged(saved, read, alter):
    saved.write_bytes(alter(saved.read_bytes()))
    with pytest.raises(DamagedFileError) as caught:
        read(saved)
    assert str(caught.value).startswith(f"{saved}: cannot be read as .safetensors (")


def test_safetensors_file_of_another_library_is_refused(saved):
    rewrite(saved, header=lambda entries: {k: v for k, v in entries.items() if k != "__metadata__"})
    assert damage(saved) == "has no vitreous metadata; give a file written by vitreous"


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_metadata_that_is_not_json_is_damaged(saved, text):
    rewrite(saved, header=lambda entries: entries | {"__metadata__": {"vitreous": text}})
    assert damage(saved).startswith("its metadata is not valid JSON (")


@pytest.mark.parametrize(("text", "got"), [('{"format": 2}', "2"), ("{}", "None"), ("[]", "None")])
def test_newer_format_is_refused_with_its_number(saved, text, got):
    rewrite(saved, header=lambda entries: entries | {"__metadata__": {"vitreous": text}})
    assert damage(saved) == (
        f"has format {got}, but this version reads only format 1; use the vitreous version that wrote it"
    )


def test_missing_architecture_is_damaged(saved):
    rewrite(saved, header=lambda entries: entries | {"__metadata__": {"vitreous": '{"format": 1}'}})
    assert damage(saved) == "its metadata has no architecture; copy the file again, or retrain the model"


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({"num_heads": 3}, "model.num_heads=3: does not divide model.embed_dim=20 (remainder 2)"),
        ({"heads": 3}, "model.heads=3: no such key"),
        ({"embed_dim": 10**30}, "model.embed_dim=1000000000000000000000000000000: must be from 1 to 2,147,483,647"),
        ({"img_size": [10**9, 10**9]}, "into 62,500,000,000,000,000 patches"),
    ],
)
def test_invalid_architecture_is_damaged(saved, architecture, reason):
    rewrite(saved, architecture=architecture)
    message = damage(saved)
    assert message.startswith("its architecture is not valid (")
    assert reason in message


@pytest.mark.parametrize("architecture", [{"depth": 10**9}, {"num_classes": 10**9}, {"embed_dim": 5 * 10**8}])
def test_forged_architecture_costs_neither_time_nor_memory(saved, architecture):
    rewrite(saved, architecture=architecture)
    assert damage(saved).startswith(
        ("its architecture has ", "its architecture is not valid (model.depth=1000000000: ")
    )


def test_all_missing_extra_and_misshapen_tensors_are_listed_at_once(tmp_path, model):
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    state["stranger"] = state.pop("encoder.norm.bias")
    state["head.weight"] = torch.zeros(5, 20)
    path = tmp_path / "model.safetensors"
    save_file(state, path, metadata={"vitreous": json.dumps({"format": 1, "architecture": CONFIG.as_dict()})})
    assert damage(path) == (
        "its tensors do not match the model (missing: encoder.norm.bias; unexpected: stranger; "
        "wrong shape: head.weight is 5x20, must be 7x20); copy the file again, or retrain the model"
    )


def test_long_list_of_tensors_is_shortened(saved):
    rewrite(saved, architecture={"depth": 4})
    message = damage(saved)
    assert "missing: encoder.blocks.2.attn.proj.bias, " in message
    assert message.count("encoder.blocks.") == 8
    assert " and 16 more" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_damaged(tmp_path, model, value):
    with torch.no_grad():
        model.head.bias[3] = value
    save_model(tmp_path / "m.safetensors", model, {})
    assert damage(tmp_path / "m.safetensors") == (
        "these weights are not finite floating-point numbers: head.bias; copy the file again, or retrain the model"
    )


def test_integers_are_not_weights(tmp_path, model):
    state = model.state_dict() | {"head.bias": torch.arange(7)}
    path = tmp_path / "m.safetensors"
    save_file(state, path, metadata={"vitreous": json.dumps({"format": 1, "architecture": CONFIG.as_dict()})})
    assert damage(path).startswith("these weights are not finite floating-point numbers: head.bias;")


@pytest.mark.parametrize("to", ["vitreous", "timm"])
def test_low_rank_updates_are_merged_into_the_written_weights(tmp_path, model, to):
    images = torch.randn(2, model.config.in_chans, *model.config.img_size)
    add_lora(model, rank=2, alpha=3.0)
    for name, parameter in model.named_parameters():
        if name.endswith("up.weight"):
            torch.nn.init.normal_(parameter)
    path = export_weights(model, tmp_path / "x.safetensors", to=to)
    hints = {} if to == "vitreous" else {"architecture": {"num_heads": 5, "img_size": (12, 20)}}
    loaded = load_model(path, **hints)
    torch.testing.assert_close(loaded(images), model.eval()(images))


@pytest.mark.parametrize("to", ["timm", "hf"])
def test_file_with_the_names_of_another_library_is_read_like_ours(tmp_path, model, to):
    written = export_weights(model, tmp_path / "folder", to=to, metadata=METADATA)
    assert is_native(written)
    assert read_metadata(written).items() >= METADATA.items()
    again = load_native(written)
    assert again.config == CONFIG
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor, rtol=0, atol=0)
    assert load_file(written).keys() != model.state_dict().keys()


@pytest.mark.parametrize("layout", ["unknown", 3, None, "transformers dinov2", "torchvision"])
def test_layout_that_the_architecture_does_not_have_is_refused(tmp_path, model, layout):
    written = export_weights(model, tmp_path / "folder", to="timm", metadata=METADATA)

    def change(entries):
        stored = json.loads(entries["__metadata__"]["vitreous"]) | {"layout": layout}
        return entries | {"__metadata__": {"vitreous": json.dumps(stored)}}

    rewrite(written, header=change)
    found = damage(written)
    names_differ = layout in (None, "torchvision")
    expected = "its tensors do not match the model" if names_differ else f"no model has the layout {layout!r}"
    assert found.startswith(expected)


def test_tensor_that_is_not_in_the_layout_is_refused(tmp_path, model):
    written = export_weights(model, tmp_path / "folder", to="timm", metadata=METADATA)
    with safe_open(written, framework="pt") as file:
        header = file.metadata()
    save_file(load_file(written) | {"extra": torch.ones(2)}, written, header)
    assert damage(written).startswith("its tensors do not match the model (unexpected: extra)")
