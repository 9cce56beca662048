"""Cases of `model/`: architectures, names, changes to a model, and files of weights."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import torch
from tests.advice.walk import Refusals, case

import vitreous as vt
from vitreous import notebook
from vitreous.model import ModelConfig, build_model, load_model, save_model, timm_registry
from vitreous.model.change.lora import add_lora
from vitreous.model.change.merge import merge_tokens
from vitreous.model.change.reshape import change_channels, make_flexible, resize_model
from vitreous.model.parts.attention import Attention
from vitreous.model.parts.embedding import LearnedPosition
from vitreous.model.parts.fixed_position import SinCosPosition
from vitreous.model.parts.tokenizer import Tokenizer, patchify
from vitreous.model.taps import taps
from vitreous.model.weights import export_weights, read_metadata

TINY: dict[str, Any] = {
    "img_size": (12, 12), "patch_size": 4, "in_chans": 3, "num_classes": 3, "embed_dim": 16, "depth": 2, "num_heads": 2,
}  # fmt: skip

CONTRADICTIONS: tuple[tuple[dict[str, Any], str, dict[str, Any]], ...] = (
    ({"patch_size": 5}, "use 4, 6 or data.img_size=10", {"patch_size": 4}),
    ({"patch_size": 3, "stem": "conv"}, "use 2 or 4", {"patch_size": 2}),
    ({"patch_size": 3, "stem": "conv"}, "use 2 or 4", {"patch_size": 4}),
    ({"patch_size": 1, "img_size": (1001, 1000)}, "use larger patches", {"patch_size": 7, "img_size": (1001, 1001)}),
    ({"patch_size": 5}, "use 4, 6 or data.img_size=10", {"patch_size": 6}),
    ({"num_heads": 3}, "use 1, 2 or 4", {"num_heads": 4}),
    ({"num_heads": 3}, "or set model.head_dim", {"head_dim": 5}),
    ({"embed_dim": 18, "position": "sincos2d"}, "use 20", {"embed_dim": 20}),
    ({"mlp_ratio": 0.01}, "use 0.063 or more", {"mlp_ratio": 0.063}),
    ({"distill_token": True, "pool": "mean"}, "use model.pool=token", {"pool": "token"}),
    ({"distill_token": True, "class_token": False}, "leave it out", {"class_token": None}),
    ({"pool": "map", "num_heads": 3, "head_dim": 5}, "change one of the three", {"pool": "mean"}),
    ({"pool": "map", "num_heads": 3, "head_dim": 5}, "change one of the three", {"num_heads": 4}),
    ({"pool": "map", "num_heads": 3, "head_dim": 5}, "change one of the three", {"embed_dim": 18}),
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
    yield (
        lambda: vt.create_model("vit_tiny_patch16_32", pretrained=True),
        "open a file, folder or hub name with vitreous.load_model",
    )
    yield lambda: vt.create_model("vit_tiny_patch16_32", drop_rate=0.1), "use drop_path_rate or proj_drop_rate"
    for change in ({"drop_path_rate": 0.1}, {"proj_drop_rate": 0.1}):
        assert vt.create_model("vit_tiny_patch16_32", depth=1, **change)  # type: ignore[arg-type]
    yield lambda: vt.create_model("vit_tiny_patch16_32", global_pool="avg"), "use pool='token', 'mean' (timm: avg)"
    assert vt.create_model("vit_tiny_patch16_32", depth=1, pool="mean")
    with patch.dict(sys.modules, {"timm": None, "timm.models": None}):
        yield timm_registry.register, "pip install timm"
    make = timm_registry._entrypoint("vit_pico_patch4_28", Mock())
    yield lambda: make(pretrained=True), "open a file of them with vitreous.load_model, timm's included"
    with patch.dict(sys.modules, {"timm": ModuleType("timm"), "timm.models": Mock()}):
        timm_registry.register()
    assert make()


@case
def parts_of_a_model(folder: Path) -> Refusals:
    images, tokens = torch.zeros(1, 3, 10, 12), torch.zeros(1, 6, 16)
    yield lambda: Attention.plain(embed_dim=16, num_heads=3), "choose a divisor"
    attention = Attention.plain(embed_dim=16, num_heads=4)
    yield lambda: attention.set_kernel("spda"), "did you mean sdpa?"  # type: ignore[arg-type]
    attention.set_kernel("sdpa")
    tokenizer = Tokenizer(patch_size=4, in_chans=3, embed_dim=16)
    yield lambda: tokenizer(images), "resize or pad them"
    yield lambda: patchify(images, 4), "resize or pad them"
    padded = torch.nn.functional.pad(images, (0, 0, 0, 2))
    assert tokenizer(padded).shape == (1, 9, 16)
    assert patchify(padded, 4).shape == (1, 9, 48)
    for position in (LearnedPosition(grid_size=(3, 3), embed_dim=16), SinCosPosition(grid_size=(3, 3), embed_dim=16)):
        yield lambda position=position: position(tokens), "resize the images or the grid"
        assert position(tokens, (2, 3)).shape == position(torch.zeros(1, 9, 16))[:, :6].shape
    model = build_model(ModelConfig(**TINY, relative_bias=True))
    yield lambda: model.relation((4, 3)), "resize the images, or the model with resize_model"  # type: ignore[operator]
    assert resize_model(model, (16, 12)).relation((4, 3))  # type: ignore[operator]


@case
def the_notebook(folder: Path) -> Refusals:
    yield lambda: notebook.Tokenizer(12, 20, 5, 5, 3, 16), "choose a divisor"
    yield lambda: notebook.Tokenizer(12, 20, 3, 3, 3, 16), "choose a divisor"
    yield lambda: notebook.Tokenizer(12, 20, 3, 4, 3, 16), "choose another grid"
    tokenizer = notebook.Tokenizer(12, 20, 3, 5, 3, 16)
    yield lambda: tokenizer.patchify(np.zeros((5, 4)), np.zeros((2, 2))), "pad or crop the image"
    yield lambda: tokenizer.patchify(np.zeros((4, 4, 3)), np.zeros((2, 2))), "give one channel"
    assert (
        tokenizer.patchify(np.zeros((6, 4)), np.zeros((2, 2))).size
        == tokenizer.patchify(np.zeros((4, 6)), np.zeros((2, 2))).size
    )


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
    model.reset_classifier(3, "mean")
    yield lambda: model.reset_classifier(3, "map"), "create the model with it"
    normed = build_model(ModelConfig(**TINY, fc_norm=True))
    yield lambda: normed.reset_classifier(3, "token_mean"), "create the model with it"
    for pool in ("map", "token_mean"):
        assert build_model(ModelConfig(**{**TINY, "fc_norm": True, "pool": pool}))
    model.reset_classifier(3, "token")
    stem = build_model(ModelConfig(**TINY, stem="conv"))
    yield lambda: change_channels(stem, 1), "use data.in_chans=3"
    assert change_channels(stem, 3) is stem
    yield lambda: make_flexible(stem, (4, 6)), "use model.stem=linear"
    yield lambda: resize_model(stem, (12, 12), patch_size=2), "keep 4, or train another model"
    assert resize_model(stem, (16, 12), patch_size=4)
    yield lambda: taps(model, "encoder.block.0").__enter__(), "did you mean encoder.blocks.0?"
    with taps(model, "encoder.blocks.0") as seen:
        model(torch.zeros(1, 3, 12, 12))
    assert seen
    dropping = build_model(ModelConfig(**TINY, patch_drop_rate=0.5)).train()
    yield lambda: dropping.forward_intermediates(torch.zeros(1, 3, 12, 12)), "use NLC, or model.eval()"
    assert dropping.forward_intermediates(torch.zeros(1, 3, 12, 12), output_fmt="NLC")
    assert dropping.eval().forward_intermediates(torch.zeros(1, 3, 12, 12))
    yield lambda: model(torch.zeros(3, 12, 12)), "give one image as images[None]"
    assert model(torch.zeros(3, 12, 12)[None]).shape == (1, 3)
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
