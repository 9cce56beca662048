"""Cases of `model/`: architectures, names, changes to a model, and files of weights."""

from pathlib import Path
from typing import Any

import torch
from tests.advice.walk import Refusals, case

import vitreous as vt
from vitreous.model import ModelConfig, build_model, load_model, save_model
from vitreous.model.change.lora import add_lora
from vitreous.model.change.merge import merge_tokens
from vitreous.model.change.reshape import change_channels, make_flexible, resize_model
from vitreous.model.weights import export_weights, read_metadata

TINY: dict[str, Any] = {
    "img_size": (12, 12), "patch_size": 4, "in_chans": 3, "num_classes": 3, "embed_dim": 16, "depth": 2, "num_heads": 2,
}  # fmt: skip

CONTRADICTIONS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    ({"patch_size": 5}, "use 4, 6 or data.img_size=10", {"patch_size": 4}),
    ({"patch_size": 5}, "use 4, 6 or data.img_size=10", {"patch_size": 6}),
    ({"num_heads": 3}, "use 1, 2 or 4", {"num_heads": 4}),
    ({"num_heads": 3}, "or set model.head_dim", {"head_dim": 5}),
    ({"embed_dim": 18, "position": "sincos2d"}, "use 20", {"embed_dim": 20}),
    ({"mlp_ratio": 0.01}, "use 0.063 or more", {"mlp_ratio": 0.063}),
    ({"distill_token": True, "pool": "mean"}, "use model.pool=token", {"pool": "token"}),
    ({"class_token": False, "pool": "token"}, "leave model.class_token out, or set it to true", {"class_token": None}),
    ({"class_token": False, "pool": "token"}, "leave model.class_token out, or set it to true", {"class_token": True}),
    ({"relative_bias": True, "rotary": "axial"}, "use one of the two", {"relative_bias": False}),
    ({"relative_bias": True, "dynamic_img_size": True}, "use model.rotary instead",
     {"relative_bias": False, "rotary": "axial"}),
)  # fmt: skip


@case
def architectures(folder: Path) -> Refusals:
    for wrong, advice, change in CONTRADICTIONS:
        yield lambda wrong=wrong: ModelConfig(**{**TINY, **wrong}), advice
        build_model(ModelConfig(**{**TINY, **wrong, **change}), device="meta")
    yield lambda: ModelConfig.from_dict({**TINY, "dept": 2}), "did you mean model.depth?"
    yield lambda: ModelConfig.from_dict({key: TINY[key] for key in TINY if key != "depth"}), "add what is missing"
    assert ModelConfig.from_dict(TINY).depth == 2


@case
def names_of_models(folder: Path) -> Refusals:
    yield lambda: vt.create_model("vit_tiny_patch16_2244x"), "did you mean"
    yield lambda: vt.create_model("vit_tini"), "did you mean vit_tiny"
    yield lambda: vt.create_model("vit_tiny"), "e.g. vit_tiny_patch16_224"
    yield lambda: vt.create_model("vit_tiny_patch16_32", dept=1), "did you mean depth?"
    assert vt.create_model("vit_tiny_patch16_32", depth=1, num_classes=2)
    assert vt.create_model("vit_tiny", img_size=32, patch_size=16, depth=1)


@case
def changes_to_a_model(folder: Path) -> Refusals:
    model = build_model(ModelConfig(**TINY))
    yield lambda: add_lora(model, rank=17, alpha=1.0), "8 is usual"
    yield lambda: merge_tokens(model, [1]), "give one per block"
    yield lambda: merge_tokens(model, [5, 0]), "use a number in that range"
    assert merge_tokens(model, [4, 0])
    yield lambda: make_flexible(model, ()), "use e.g. (8, 12, 16)"
    assert make_flexible(model, (4, 6))
    yield lambda: model.forward_intermediates(torch.zeros(1, 3, 12, 12), output_fmt="NHWC"), "use NCHW or NLC"  # type: ignore[arg-type]
    assert model.forward_intermediates(torch.zeros(1, 3, 12, 12), output_fmt="NLC")
    yield lambda: model.forward_intermediates(torch.zeros(1, 3, 12, 12), indices=[2]), "the model has blocks 0 to 1"
    assert model.forward_intermediates(torch.zeros(1, 3, 12, 12), indices=[1])
    yield lambda: model(torch.zeros(1, 1, 12, 12)), "convert the images"
    yield lambda: model(torch.zeros(1, 3, 16, 12)), "resize the images, or the model with resize_model"
    assert resize_model(model, (16, 12))(torch.zeros(1, 3, 16, 12)).shape == (1, 3)
    assert change_channels(model, 1)(torch.zeros(1, 1, 12, 12)).shape == (1, 3)
    add_lora(model, rank=8, alpha=1.0)


@case
def files_of_weights(folder: Path) -> Refusals:
    model, path = build_model(ModelConfig(**TINY)).eval(), folder / "model.safetensors"
    yield lambda: load_model(path), "give a file of weights"
    yield lambda: read_metadata(path), "give a model.safetensors written by vitreous"
    yield lambda: save_model(path, model, {"format": 1}), "use another key"
    yield lambda: save_model(path, model, {"x": {1}}), "use plain values"
    save_model(path, model, {"x": [1]})
    assert read_metadata(path)["x"] == [1]
    yield lambda: load_model(path, name="vit_tiny_patch16_224"), "leave out name, architecture and weights"
    assert load_model(path)
    (folder / "weights.txt").write_bytes(path.read_bytes())
    yield lambda: load_model(folder / "weights.txt"), "use one of .safetensors"
    (folder / "weights.safetensors").write_bytes(path.read_bytes()[:-9])
    yield lambda: load_model(folder / "weights.safetensors"), "if it is cut short or altered, download it again"
    (folder / "weights.safetensors").write_bytes(path.read_bytes())
    assert load_model(folder / "weights.safetensors")
    (folder / "empty").mkdir()
    yield lambda: load_model(folder / "empty"), "give the file of weights itself"
    for name in ("a.pt", "b.pt"):
        torch.save({}, folder / "empty" / name)
    yield lambda: load_model(folder / "empty"), "give one"
    yield lambda: export_weights(model, folder / "x.safetensors", to="tim"), "did you mean timm?"
    yield lambda: export_weights(model, folder / "x.txt", to="timm"), "use the suffix"
    assert export_weights(model, folder / "x.safetensors", to="timm")
