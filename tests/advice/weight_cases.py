"""Cases of `model/weights/`: files of other libraries that are damaged, or leave something open."""

import dataclasses
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import huggingface_hub
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tests.advice.model_cases import TINY
from tests.advice.walk import Refusals, case
from tests.unit.model.weights import test_google as google
from tests.unit.model.weights import test_huggingface as huggingface
from tests.unit.model.weights import test_timm as timm
from tests.unit.model.weights import test_vit_pytorch as vit_pytorch
from tests.unit.model.weights.samples import HEADS, PLAIN, noisy, plain_state, write_as

from vitreous.errors import AssumptionWarning
from vitreous.model import ModelConfig, VisionTransformer, build_model, load_model, save_model
from vitreous.model.weights import export_weights, read_metadata
from vitreous.model.weights.native import METADATA_KEY
from vitreous.model.weights.reading import kinds, torch_file


def opened(path: Path | str, **options: Any) -> VisionTransformer:
    """Open a file without the warning about what is assumed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AssumptionWarning)
        return load_model(path, **{"architecture": HEADS, **options})


def question(path: Path, advice: str, *architectures: Mapping[str, Any], **options: Any) -> Refusals:
    """Open a file that leaves something open, then give each of the answers."""
    yield lambda: opened(path, architecture={}, **options), advice
    for architecture in architectures:
        assert opened(path, architecture=architecture, **options)


@case
def files_that_vitreous_wrote(folder: Path) -> Refusals:
    path, model = folder / "model.safetensors", build_model(ModelConfig(**TINY))
    export_weights(model, path, to="timm")
    yield lambda: read_metadata(path), "give a file written by vitreous"
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    valid = {"format": 1, "architecture": model.config.as_dict()}
    wider = {**model.config.as_dict(), "embed_dim": 4096}
    broken: Mapping[object, str] = {
        "{": "copy the file again",
        json.dumps({**valid, "format": 9}): "use the vitreous version that wrote it",
        json.dumps({"format": 1}): "copy the file again",
        json.dumps({**valid, "architecture": {**TINY, "depth": 0}}): "copy the file again",
        json.dumps({**valid, "architecture": wider}): "copy the file again",
        json.dumps({**valid, "layout": "unknown"}): "copy the file again",
    }
    for text, advice in broken.items():
        save_file(state, path, {METADATA_KEY: str(text)})
        yield lambda: load_model(path), advice
    save_file({**state, "encoder.norm.bias": torch.full((16,), torch.nan)}, path, {METADATA_KEY: json.dumps(valid)})
    yield lambda: load_model(path), "copy the file again, or retrain the model"
    save_file({name: state[name] for name in sorted(state)[1:]}, path, {METADATA_KEY: json.dumps(valid)})
    yield lambda: load_model(path), "copy the file again, or retrain the model"
    save_model(path, model, {})
    assert load_model(path)
    assert read_metadata(path)


@case
def files_of_another_type(folder: Path) -> Refusals:
    state, path = plain_state(), folder / "x.pt"
    for content, advice in {
        b"": "download it again",
        b"version https://git-lfs.github.com": "run `git lfs pull`",
        b"<html>": "download the file again with its direct link",
        b"{}": "give the file of weights that belongs to it",
        b"\x1f\x8b": "unpack it and give the file inside",
    }.items():
        path.write_bytes(content)
        yield lambda: opened(path), advice
    torch.save({"epoch": 3}, path)
    yield lambda: opened(path), "give a file with a state_dict()"
    torch.save({"x": torch.zeros(2)}, path)
    yield lambda: opened(path), "use a file in one of these formats: vitreous, "
    torch.save({**state, "class_token": torch.zeros(1, 1, 20).to_sparse()}, path)
    yield lambda: opened(path), "save dense tensors instead"
    torch.save(state, path)
    assert opened(path)
    with patch.object(Path, "is_dir", side_effect=PermissionError(13, "Permission denied")):
        yield lambda: opened(path), "give a file of weights"


@case
def archives_of_torch(folder: Path) -> Refusals:
    path, whole = write_as("pt", folder, plain_state()), torch.zeros(100_000)
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}

    def write(compression: int = zipfile.ZIP_STORED, **changes: bytes) -> None:
        with zipfile.ZipFile(path, "w", compression) as file:
            for name, content in {**members, **{f"model/{key}": value for key, value in changes.items()}}.items():
                file.writestr(name, content)

    write(zipfile.ZIP_DEFLATED)
    yield lambda: opened(path), "save it again"
    write(byteorder=b"big" if sys.byteorder == "little" else b"little")
    yield lambda: opened(path), "save it again as .safetensors"
    with patch.object(torch_file, "_MAX_PICKLE_BYTES", 9):
        write()
        yield lambda: opened(path), "save it again"
    first = next(name for name in members if "/data/" in name)
    write(**{first.removeprefix("model/"): b""})
    yield lambda: opened(path), "download it again"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("weights.pth", b"")
    yield lambda: opened(path), "extract the file of weights"
    torch.save({f"encoder.layers.encoder_layer_{number}.x": whole for number in range(200)}, path)
    yield lambda: opened(path), "download it again"
    torch.save({"a": {"b.weight": whole}, "a.b": {"weight": whole}}, path)
    yield lambda: opened(path), "save it again"
    torch.save(plain_state(), path)
    assert opened(path)


@case
def files_of_early_torch(folder: Path) -> Refusals:
    path = write_as("legacy pt", folder, plain_state())
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    yield lambda: opened(path), "download it again"
    stream = io.BytesIO()
    for value in (torch_file._MAGIC_NUMBER, 1001, {"little_endian": sys.byteorder != "little"}):
        pickle.dump(value, stream, 2)
    path.write_bytes(stream.getvalue())
    yield lambda: opened(path), "save it again as .safetensors"
    save_file(plain_state(), path.with_suffix(".safetensors"))
    path.write_bytes(content)
    assert opened(path)
    assert opened(path.with_suffix(".safetensors"))


@case
def archives_of_numpy(folder: Path) -> Refusals:
    path = folder / "x.npz"
    np.savez(path, x=np.array([{}]))
    yield lambda: opened(path), "download it again"
    np.savez_compressed(path, **{f"x{number}": np.zeros(100_000) for number in range(9)})
    yield lambda: opened(path), "download it again"
    assert opened(write_as("npz", folder, plain_state()))


@case
def shards(folder: Path) -> Refusals:
    index = write_as("index.json", folder, plain_state())
    text = index.read_text()
    names = json.loads(text)["weight_map"]
    for content in (
        "{", "[]", "{}",
        json.dumps({"weight_map": {**names, "x": "gone.safetensors"}}),
        json.dumps({"weight_map": {**names, "x": "a.safetensors"}}),
    ):  # fmt: skip
        index.write_text(content)
        yield lambda: opened(index), "download it again"
    index.write_text(text)
    with patch.object(kinds, "_MAX_JSON_BYTES", 9):
        yield lambda: opened(index), "download it again"
    assert opened(index)


@case
def names_on_the_hub(folder: Path) -> Refusals:
    with patch.dict(sys.modules, {"huggingface_hub": None}):
        yield lambda: opened("hf://ann/cats"), "run pip install 'vitreous[hub]'"
    with patch.object(huggingface_hub, "snapshot_download", side_effect=OSError("no route")):
        yield lambda: opened("hf://ann/cats"), "check the name and the network, or log in"
    write_as("safetensors", folder, plain_state())
    with patch.object(huggingface_hub, "snapshot_download", return_value=folder):
        assert opened("hf://ann/cats")


@case
def parts_of_a_file(folder: Path) -> Refusals:
    path, state = folder / "x.pt", plain_state()
    torch.save({"left": state, "right": plain_state()}, path)
    yield lambda: opened(path), "choose one, e.g. weights=left"
    yield lambda: opened(path, weights="ema"), "use auto, or one of these names"
    yield lambda: opened(path, weights="lift"), "did you mean left?"
    assert opened(path, weights="left")
    assert opened(path, weights="right")
    torch.save({**state, **{name.replace("mlp.0.", "mlp.linear_1."): tensor for name, tensor in state.items()}}, path)
    yield lambda: opened(path), "remove one of them"
    torch.save(state, path)
    assert opened(path)


@case
def tensors_that_do_not_match(folder: Path) -> Refusals:
    state, path = plain_state(), folder / "x.pt"
    key = next(name for name in state if name.endswith("layer_0.mlp.0.weight"))
    for wrong, advice in (
        ({**state, key.replace("mlp.0", "mlp.9"): torch.zeros(2)}, "pass its name, or architecture={…}"),
        ({**state, key: torch.zeros(31, 20)}, "pass its name, or architecture={…}"),
        ({name: state[name] for name in state if name != "encoder.ln.weight"}, "copy the file again"),
        ({name: state[name] for name in state if name != "conv_proj.weight"}, "use a file in one of these formats"),
        ({name: state[name] for name in state if name != key}, "download all of it"),
        ({**state, "conv_proj.weight": torch.zeros(20)}, "download it again"),
    ):
        torch.save(wrong, path)
        yield lambda: opened(path), advice
    torch.save(state, path)
    assert opened(path)


@case
def open_questions(folder: Path) -> Refusals:
    path = write_as("pt", folder, plain_state())
    yield from question(path, "or architecture={'num_heads': 1}, or --architecture.num_heads 1", {"num_heads": 1})
    yield lambda: opened(path, architecture={}, name="vit_tiny_patch16_224"), "pass another name, or architecture="
    assert opened(path, architecture={"num_heads": 1}, name="vit_tiny_patch16_224")
    yield lambda: opened(path, architecture={"head": 1}), "did you mean head_dim?"
    for key, value in (("qk_norm", True), ("qkv_bias", False)):
        architecture = {**HEADS, key: value}
        yield (
            lambda architecture=architecture: opened(path, architecture=architecture),
            "use another format or architecture",
        )
    assert opened(path, architecture=HEADS)
    oblong = write_as("pt", folder, plain_state(noisy(dataclasses.replace(PLAIN, img_size=(12, 20)))))
    rotary = export_weights(timm.small("vit_small_patch16_rope_224"), folder / "rotary.safetensors", to="timm")
    given = {**HEADS, "img_size": (12, 20)}
    yield lambda: opened(rotary, architecture=given), "or --architecture.rotary axial"
    assert opened(rotary, architecture={**given, "rotary": "axial"})
    yield lambda: opened(oblong), "architecture={'img_size': (12, 20)}, or --architecture.img_size 12x20"
    assert opened(oblong, architecture={**HEADS, "img_size": (12, 20)})


@case
def open_questions_of_google(folder: Path) -> Refusals:
    path = folder / "x.npz"
    for patch_size, size in ((4, 224), (15, 210)):
        changes = {**google.FIXED, "patch_size": patch_size, "img_size": (4 * patch_size, 4 * patch_size)}
        export_weights(noisy(dataclasses.replace(google.CONFIG, **changes)), path, to="npz")
        yield from question(path, f"--architecture.img_size {size}x{size}", {"img_size": (size, size)})
    export_weights(noisy(google.CONFIG), path, to="npz")
    google.rewritten(path, str, {"pre_logits/kernel": np.zeros((20, 20)), "pre_logits/bias": np.zeros(20)})
    yield lambda: opened(path), "pass num_classes for a fresh head, or 0 for none"
    assert opened(path, num_classes=0)
    assert opened(path, num_classes=3)


@case
def open_questions_of_vit_pytorch(folder: Path) -> Refusals:
    def saved(version: str = "1.17", **changes: Any) -> Path:
        return vit_pytorch.saved(
            folder, vit_pytorch.state_of(version, noisy(dataclasses.replace(vit_pytorch.NEW, **changes)))
        )

    yield from question(saved(num_heads=3, head_dim=64), "or --architecture.num_heads 3", {"num_heads": 3})
    yield from question(saved(in_chans=5), "--architecture.patch_size 1", {**HEADS, "patch_size": 1})
    path = saved("1.6")
    yield lambda: opened(path, architecture={**HEADS, "pool": "mean"}), "use pool=token"
    assert opened(path, architecture={**HEADS, "pool": "token"})


@case
def descriptions_of_transformers(folder: Path) -> Refusals:
    def written(kind: str, **changes: object) -> Path:
        model = build_model(huggingface.config(**huggingface.MODELS[kind]))
        path = export_weights(model, folder / kind, to="hf").parent / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return path.parent

    for wrong, advice, right in (
        ({"hidden_act": "gleu"}, "did you mean gelu?", {"hidden_act": "gelu"}),
        ({"image_size": [12]}, "use e.g. 224", {"image_size": 12}),
    ):
        yield lambda wrong=wrong: opened(written("vit", **wrong), architecture={}), advice
        assert opened(written("vit", **right), architecture={})
    yield lambda: opened(written("dinov3", value_bias=False), architecture={}), "add biases of zero"
    assert opened(written("dinov3", value_bias=True), architecture={})


@case
def formats_that_cannot_hold_a_model(folder: Path) -> Refusals:
    model = build_model(huggingface.config(**huggingface.CLIP, norm_eps=1e-5, img_size=(12, 12)))
    torch.nn.init.ones_(model.head.bias)
    yield lambda: export_weights(model, folder / "clip", to="hf"), "use to=vitreous or to=timm, or set the bias to zero"
    assert export_weights(model, folder / "clip.safetensors", to="timm")
    torch.nn.init.zeros_(model.head.bias)
    assert export_weights(model, folder / "clip", to="hf")
    model = build_model(ModelConfig(**{**TINY, "num_registers": 2}))
    yield lambda: export_weights(model, folder / "x.pt", to="torchvision"), "use to=vitreous or another format"
    assert export_weights(model, folder / "x.safetensors", to="vitreous")
    assert export_weights(model, folder / "y.safetensors", to="timm")
    other = build_model(ModelConfig(**{**TINY, "norm_eps": 1e-12}))
    yield lambda: export_weights(other, folder / "x.safetensors", to="hf"), "choose another folder"
    assert export_weights(other, folder / "hf", to="hf")


@case
def pools_of_other_libraries(folder: Path) -> Refusals:
    timms = {"architecture": "vit_tiny_patch16_224", "global_pool": "avgmax", "model_args": {"depth": 2}}
    model = build_model(ModelConfig(**TINY))
    export_weights(model, folder / "timm.safetensors", to="timm")
    (folder / "config.json").write_text(json.dumps(timms))
    given = {"num_heads": 2, "pool": "mean"}
    yield lambda: opened(folder / "timm.safetensors", architecture={"num_heads": 2}), "or --architecture.pool mean"
    assert opened(folder / "timm.safetensors", architecture=given).config.pool == "mean"
    turned = {"architecture": "vit_small_patch16_rope_224", "model_args": {"rope_grid_indexing": "ij"}}
    (folder / "config.json").write_text(json.dumps(turned))
    yield lambda: opened(folder / "timm.safetensors", architecture={}), "open this file with timm"
    (folder / "config.json").unlink()
    eva = {"position": "none", "rotary": "axial", "pool": "map"}
    export_weights(build_model(ModelConfig(**TINY | eva)), folder / "timm.safetensors", to="timm")
    tensors = load_file(folder / "timm.safetensors")
    save_file({**tensors, "cls_token": torch.zeros(1, 1, tensors["norm.weight"].numel())}, folder / "timm.safetensors")
    given = {**HEADS, "rotary": "axial", "img_size": (8, 8)}
    yield lambda: opened(folder / "timm.safetensors", architecture=given), "open this file with timm"
    (folder / "config.json").write_text("{}")
    clip = {"patch_bias": False, "norm_eps": 1e-5, "num_classes": 0}
    export_weights(build_model(ModelConfig(**TINY | clip)), folder / "clip.safetensors", to="open-clip")
    (folder / "config.json").rename(folder / "open_clip_config.json")
    described = {"model_cfg": {"vision_cfg": {"pool_type": "none", "head_width": 8}}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    yield lambda: opened(folder / "clip.safetensors", architecture={}), "or --architecture.pool mean"
    assert opened(folder / "clip.safetensors", architecture={"pool": "mean"}).config.pool == "mean"
