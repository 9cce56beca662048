"""Runs that start from weights: their architecture, the weights they keep, and what their plan says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from vitreous.errors import ConfigError, NotARunError, OpenQuestionError
from vitreous.model.build import build_model
from vitreous.model.change.reshape import resize_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.embedding import resize_grid
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import export_weights, load_model, read_metadata, save_model
from vitreous.model.weights.native import fingerprint
from vitreous.recipe.files import read_config
from vitreous.recipe.plan import Plan
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.request import TrainRequest, with_options
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights.pretrained import open_pretrained

SHAPE: dict[str, Any] = {
    "img_size": (12, 16), "patch_size": 4, "in_chans": 3, "num_classes": 4, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "act": "relu", "pool": "mean", "norm_eps": 1e-5,
}  # fmt: skip
CLASSES = ["plum", "pear", "kiwi", "fig"]
"""Two of these are also classes of the images, in another order."""


@pytest.fixture
def make_weights(tmp_path: Path) -> Callable[..., tuple[Path, VisionTransformer]]:
    """Return a function that writes a model file and returns its path and the model."""

    def make(classes: list[str] | None = CLASSES, **changes: Any) -> tuple[Path, VisionTransformer]:
        config = ModelConfig(**{**SHAPE, **changes})
        model = build_model(config, generator=torch.Generator().manual_seed(4))
        statistics = {"mean": [0.1] * config.in_chans, "std": [0.4] * config.in_chans}
        preprocess = {"img_size": list(config.img_size), "in_chans": config.in_chans, **statistics}
        save_model(tmp_path / "w.safetensors", model, {"classes": classes or [], "preprocess": preprocess})
        return tmp_path / "w.safetensors", model

    return make


@pytest.fixture
def ask(images_folder: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Return a function that makes a request to train from a file, without keys of the model."""

    def make(file: Path | str, **keys: Any) -> TrainRequest:
        values = {"train.pretrained": str(file), "data.batch_size": 8, "train.epochs": 2.0, "train.device": "cpu",
                  "train.precision": "fp32"}  # fmt: skip
        values |= {key.replace("__", "."): value for key, value in keys.items()}
        return TrainRequest(data=str(images_folder), values=values, out=tmp_path / "run")

    return make


def reason(plan: Plan, key: str) -> str | None:
    return next((choice.reason for choice in plan.choices if choice.key == key), None)


def first_weights(folder: RunFolder) -> dict[str, Tensor]:
    found = load_file(folder.checkpoints / "step-000000000.safetensors")
    return {name.removeprefix("model."): tensor for name, tensor in found.items() if name.startswith("model.")}


def test_model_and_preprocessing_come_from_the_file_and_the_plan_says_so(make_weights: Any, ask: Any) -> None:
    file, model = make_weights()
    _, plan = dry_run(ask(file))
    config = plan.config
    assert config.recipe == "fine-tune"
    assert {key: getattr(config.model, key) for key in SHAPE if key != "num_classes"} == {
        key: getattr(model.config, key) for key in SHAPE if key != "num_classes"
    }
    assert (config.model.num_classes, config.data.img_size, config.data.mean) == (3, (12, 16), (0.1, 0.1, 0.1))
    for key in ("model.depth", "model.act", "data.img_size", "data.mean", "data.std"):
        assert reason(plan, key) == f"as in {file}"
    assert reason(plan, "model.qkv_bias") is None
    assert f"training starts from {sum(p.numel() for p in model.parameters()):,} weights of {file}" in plan.notes
    assert "the head is new, except for 2 of 3 classes with a known name" in plan.notes


def test_run_starts_from_the_weights_and_the_head_rows_of_known_classes(make_weights: Any, ask: Any) -> None:
    file, model = make_weights()
    folder = run_training(ask(file))
    first, given = first_weights(folder), model.state_dict()
    for name in given:
        if not name.startswith("head."):
            torch.testing.assert_close(first[name], given[name], rtol=0, atol=0)
    # The classes are apple, kiwi, plum. In the file, kiwi is the third class and plum the first.
    torch.testing.assert_close(first["head.weight"][[1, 2]], given["head.weight"][[2, 0]], rtol=0, atol=0)
    record = next(record for record in read_records(folder.records) if record["kind"] == "pretrained")
    assert (record["source"], record["fingerprint"]) == (str(file), fingerprint(model))
    assert load_model(folder.model).config.act == "relu"


@pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")
def test_fingerprint_does_not_depend_on_the_file_format(make_weights: Any, tmp_path: Path) -> None:
    file, model = make_weights(pool="token", act="gelu", norm_eps=1e-6)
    (tmp_path / "timm").mkdir()
    export_weights(model, tmp_path / "timm" / "model.safetensors", to="timm")
    architecture = {"num_heads": 2, "img_size": (12, 16)}
    found = load_model(tmp_path / "timm" / "model.safetensors", architecture=architecture)
    assert fingerprint(found) == fingerprint(load_model(file)) == fingerprint(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert fingerprint(model) != fingerprint(found)


@pytest.mark.parametrize("pool", ["mean", "max", "token_mean"])
def test_weights_with_an_implied_class_token_may_get_another_pool(make_weights: Any, ask: Any, pool: str) -> None:
    file, model = make_weights(pool="token")
    first = first_weights(run_training(ask(file, model__pool=pool)))
    for name in ("prefix.class_token", "encoder.blocks.1.mlp.fc2.weight"):
        torch.testing.assert_close(first[name], model.state_dict()[name], rtol=0, atol=0)


def test_weights_are_resized_for_the_requested_image_and_patch_size(make_weights: Any, ask: Any) -> None:
    file, model = make_weights()
    request = ask(file, data__img_size=(24, 16), model__patch_size=8)
    _, plan = dry_run(request)
    assert "the first layer is resized from patches of 4 px to 8 px" in plan.notes
    assert "positions are resized for 3x2 patches instead of 3x4" in plan.notes
    first = first_weights(run_training(request))
    expected = resize_model(model, (24, 16), patch_size=8).state_dict()
    for name in ("position.grid", "tokenizer.proj.weight", "encoder.blocks.1.mlp.fc2.weight"):
        torch.testing.assert_close(first[name], expected[name], rtol=0, atol=0)


@pytest.mark.parametrize(("layout", "rule"), [("meta", "dinov2"), ("hf", "huggingface"), ("timm", "timm")])
def test_square_weights_train_on_wide_images_and_keep_the_resizing_rule_of_their_family(
    layout: str, rule: str, ask: Any, tmp_path: Path
) -> None:
    config = {"img_size": (16, 16), "pool": "token", "act": "gelu", "norm_eps": 1e-6, "layer_scale": 1.0}
    model = build_model(ModelConfig(**{**SHAPE, **config, "num_classes": 0}))
    out = tmp_path / ("folder" if layout == "hf" else "w.pth")
    export_weights(model, out, to=layout)
    keys = {"data__img_size": (12, 20), "train__freeze": "backbone", "train__pretrained_as": "num_heads=2"}
    folder = run_training(ask(out, **keys))
    saved = load_model(folder.model)
    assert (saved.config.img_size, saved.config.position_resize) == ((12, 20), rule)
    expected = resize_model(model, (12, 20), interpolation=rule).position.grid
    torch.testing.assert_close(saved.position.grid, expected, rtol=0, atol=1e-6)
    again = resize_model(saved, (8, 24)).position.grid
    torch.testing.assert_close(again, resize_grid(expected, (2, 6), rule), rtol=0, atol=1e-6)


def test_gray_weights_are_converted_for_color_images(make_weights: Any, ask: Any) -> None:
    file, _ = make_weights(in_chans=1)
    _, plan = dry_run(ask(file))
    assert plan.config.data.in_chans == 3
    assert plan.config.data.mean == (0.1, 0.1, 0.1)
    assert "the first layer is converted from 1 channel to 3 channels" in plan.notes


def test_interrupted_run_resumes_without_the_file(make_weights: Any, ask: Any, tmp_path: Path) -> None:
    file, _ = make_weights()
    straight = run_training(ask(file))
    straight.path.rename(tmp_path / "straight")

    def stop(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] >= 5:
            raise RuntimeError("the power is gone")

    request = ask(file, train__checkpoint_every_s=0)
    with pytest.raises(RuntimeError, match="the power is gone"):
        run_training(request, stop)
    file.unlink()
    resumed = run_training(TrainRequest(resume=request.out))
    expected = load_model(tmp_path / "straight" / "model.safetensors").state_dict()
    for name, tensor in load_model(resumed.model).state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_linear_probe_is_chosen_if_the_backbone_is_frozen(make_weights: Any, ask: Any) -> None:
    file, model = make_weights()
    folder = run_training(ask(file, train__freeze="backbone"))
    assert read_config(folder.config).recipe == "linear-probe"
    trained = load_model(folder.model).state_dict()
    for name, tensor in model.state_dict().items():
        if not name.startswith("head."):
            torch.testing.assert_close(trained[name], tensor, rtol=0, atol=0)


def test_lora_is_merged_in_the_model_file(make_weights: Any, ask: Any) -> None:
    file, model = make_weights()
    folder = run_training(ask(file, train__lora_rank=2))
    trained = load_model(folder.model).state_dict()
    assert list(trained) == list(model.state_dict())
    assert not torch.equal(trained["encoder.blocks.0.attn.qkv.weight"],
                           model.state_dict()["encoder.blocks.0.attn.qkv.weight"])  # fmt: skip
    assert torch.equal(trained["position.grid"], model.state_dict()["position.grid"])


def test_run_folder_can_be_given_instead_of_its_model_file(make_weights: Any, ask: Any, tmp_path: Path) -> None:
    file, _ = make_weights()
    (tmp_path / "earlier").mkdir()
    file.rename(tmp_path / "earlier" / "model.safetensors")
    _, plan = dry_run(ask(tmp_path / "earlier"))
    assert plan.config.train.pretrained == str(tmp_path / "earlier")
    assert plan.config.model.depth == 2


def test_other_architecture_than_in_the_file_is_refused(make_weights: Any, ask: Any) -> None:
    file, _ = make_weights()
    with pytest.raises(ConfigError) as caught:
        dry_run(ask(file, model__depth=7))
    assert str(caught.value) == f"model.depth=7: {file} has 2; remove this key"


def test_missing_file_is_reported_before_data_is_read(ask: Any, tmp_path: Path) -> None:
    seen: list[str] = []
    with pytest.raises(NotARunError, match=r"absent\.safetensors: no such file"):
        dry_run(ask(tmp_path / "absent.safetensors"), lambda kind, fields: seen.append(kind))
    assert seen == []


@pytest.mark.parametrize("recipe", ["fine-tune", "linear-probe"])
def test_fine_tuning_recipe_without_weights_is_refused(images_folder: Path, recipe: str) -> None:
    with pytest.raises(ConfigError) as caught:
        dry_run(TrainRequest(data=str(images_folder), recipe=recipe))
    assert str(caught.value) == (
        f"train.pretrained=none: recipe {recipe} starts from pretrained weights; give --pretrained auto or FILE"
    )


def test_mean_and_std_of_a_timm_folder_are_used(make_weights: Any, ask: Any, tmp_path: Path) -> None:
    _, model = make_weights(pool="token", act="gelu", norm_eps=1e-6, img_size=(16, 16))
    folder = tmp_path / "timm"
    folder.mkdir()
    export_weights(model, folder / "model.safetensors", to="timm")
    described = {"pretrained_cfg": {"mean": [0.2, 0.3, 0.4], "std": [0.5, 0.6, 0.7], "input_size": [3, 16, 16]}}
    (folder / "config.json").write_text(json.dumps({**described, "label_names": ["kiwi", "apple", "plum", "fig"]}))
    run = run_training(ask(folder, model__num_heads=2))
    assert read_metadata(run.model)["preprocess"]["mean"] == [0.2, 0.3, 0.4]
    torch.testing.assert_close(
        first_weights(run)["head.weight"], model.state_dict()["head.weight"][[1, 0, 2]], rtol=0, atol=0
    )


WIDE = {"img_size": [8, 32], "patch_size": 4, "num_heads": 3, "embed_dim": 12, "depth": 2}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A file of timm with a grid of 2x8 patches and 3 heads, which its tensors do not show."""
    config = ModelConfig.from_dict({"in_chans": 3, "num_classes": 7} | WIDE)
    return export_weights(build_model(config), tmp_path / "theirs.pth", to="timm")


def test_what_no_tensor_shows_is_given_with_the_run_and_kept_in_its_configuration(foreign: Path, ask: Any) -> None:
    request = with_options(
        ask(foreign, **{"architecture.num_heads": 3, "architecture.img_size": "8x32", "architecture.act": "relu"}), {}
    )
    _, plan = dry_run(request)
    assert plan.config.train.pretrained_as == "num_heads=3 img_size=8x32 act=relu"
    assert (plan.config.model.num_heads, plan.config.model.act, plan.config.data.img_size) == (3, "relu", (8, 32))
    notes = " ".join(plan.notes)
    assert "assumes norm_eps=1e-06" in notes
    assert "act=" not in notes
    assert "the file does not give mean and std of its images; they are measured" in notes


def test_missing_answer_is_asked_for(foreign: Path, ask: Any) -> None:
    with pytest.raises(OpenQuestionError, match=r"^num_heads=None: .* or --architecture\.num_heads 1$"):
        dry_run(ask(foreign))


def test_rectangular_file_is_not_read_as_a_square_one_if_the_images_show_it(foreign: Path) -> None:
    asked = {"train.pretrained_as": "num_heads=3"}
    wide = open_pretrained(str(foreign), asked | {"data.img_size": (8, 32)})
    assert wide.model.config.img_size == (8, 32)
    assert "assumes that the file is for images of 8x32 px, as data.img_size" in wide.notes[1]
    square = open_pretrained(str(foreign), asked | {"data.img_size": (16, 16)})
    assert "img_size=16x16 (a grid of 4x4 patches, not 8x2 or 2x8)" in square.notes[0]


def test_raw_or_averaged_weights_are_chosen_by_a_key(foreign: Path, ask: Any, tmp_path: Path) -> None:
    raw = torch.load(foreign)
    ema = {name: tensor + 1 for name, tensor in raw.items()}
    torch.save({"model": raw, "model_ema": ema, "args": Path("x")}, tmp_path / "both.pth")
    for weights, state in (("auto", ema), ("raw", raw), ("ema", ema)):
        asked = {"train.pretrained_weights": weights, "train.pretrained_as": "num_heads=3"}
        opened = open_pretrained(str(tmp_path / "both.pth"), asked)
        assert torch.equal(opened.model.encoder.norm.bias, state["norm.bias"])
        assert any("model_ema" in note for note in opened.notes) == (weights == "auto")
