"""convert: weights written in the format of another library give the same outputs."""

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.model import ModelConfig, VisionTransformer, build_model, export_weights, load_model, save_model
from vitreous.use.convert import convert


@pytest.fixture
def model() -> VisionTransformer:
    torch.manual_seed(0)
    config = ModelConfig(
        img_size=(12, 12), patch_size=4, in_chans=3, num_classes=7, embed_dim=20, depth=2, num_heads=5, mlp_ratio=2.0
    )
    return build_model(config)


@pytest.fixture
def file(model: VisionTransformer, tmp_path: Path) -> Path:
    save_model(tmp_path / "ours.safetensors", model, {})
    return tmp_path / "ours.safetensors"


@pytest.mark.parametrize(("to", "ending"), [("timm", ".safetensors"), ("torchvision", ".safetensors"), ("npz", ".npz")])
def test_converted_weights_give_the_same_outputs(
    to: str, ending: str, tmp_path: Path, model: VisionTransformer
) -> None:
    act = "gelu_tanh" if to == "npz" else "gelu"
    source = tmp_path / "ours.safetensors"
    config = ModelConfig.from_dict(model.config.as_dict() | {"act": act})
    save_model(source, build_model(config), {})
    found = convert(str(source), to=to, out=tmp_path / f"out{ending}", check=True)
    assert (found.path, found.to, found.checked_by) == (tmp_path / f"out{ending}", to, "vitreous")
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.difference == 0
    assert found.unsaid == ({} if to == "npz" else {"num_heads": 5})
    assert found.scale is not None
    assert found.scale > 0


def test_weights_for_transformers_are_checked_by_transformers(file: Path, tmp_path: Path) -> None:
    found = convert(str(file), to="hf", out=tmp_path / "folder", check=True)
    assert found.path == tmp_path / "folder" / "model.safetensors"
    assert str(found.checked_by).startswith("transformers ")
    assert found.difference is not None
    assert found.difference < 1e-5
    ViTForImageClassification.from_pretrained(tmp_path / "folder")


def test_description_of_another_model_in_the_folder_is_not_read(file: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"of": "something else"}')
    found = convert(str(file), to="timm", out=tmp_path / "out.safetensors", check=True)
    assert (found.difference, found.checked_by) == (0, "vitreous")


def test_weights_of_transformers_can_be_converted(tmp_path: Path) -> None:
    settings = ViTConfig(
        hidden_size=20, num_hidden_layers=2, num_attention_heads=5, intermediate_size=30, image_size=32
    )
    theirs = ViTForImageClassification(settings).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    found = convert(str(tmp_path / "theirs"), to="vitreous", out=tmp_path / "ours.safetensors", check=True)
    assert (found.difference, found.checked_by) == (0, "vitreous")
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(load_model(found.path)(images), theirs(images).logits, rtol=0, atol=1e-5)


def test_default_name_contains_source_and_format(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert(str(file), to="timm").path == Path("ours-timm.safetensors")
    assert convert(str(file), to="hf").path == Path("ours-hf", "model.safetensors")


def test_existing_file_is_not_overwritten(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.safetensors"
    out.write_text("precious")
    with pytest.raises(ConfigError) as caught:
        convert(str(file), to="timm", out=out)
    assert str(caught.value) == f"out={out}: already exists; choose another name with --out"
    assert out.read_text() == "precious"


def test_unknown_format_is_an_error_with_the_nearest_name(file: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        convert(str(file), to="torchvison")
    assert str(caught.value) == "to=torchvison: no such format; did you mean torchvision?"


def test_model_that_the_format_cannot_represent_is_an_error(tmp_path: Path, model: VisionTransformer) -> None:
    config = ModelConfig.from_dict(model.config.as_dict() | {"num_registers": 3, "qk_norm": True})
    save_model(tmp_path / "rich.safetensors", build_model(config), {})
    with pytest.raises(ConfigError) as caught:
        convert(str(tmp_path / "rich.safetensors"), to="torchvision", out=tmp_path / "out.safetensors")
    assert str(caught.value) == (
        "to=torchvision: torchvision cannot hold model.num_registers=3, model.qk_norm=True; "
        "use to=vitreous or another format"
    )
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "unsaid", "differs"),
    [
        ({"num_heads": 3}, {}, False),
        ({"num_heads": 3, "img_size": (4, 36)}, {"img_size": (4, 36)}, None),
        ({"num_heads": 6, "act": "gelu_tanh"}, {"num_heads": 6, "act": "gelu_tanh"}, True),
        ({"num_heads": 3, "img_size": (8, 12), "act": "silu"}, {"img_size": (8, 12), "act": "silu"}, True),
    ],
)
def test_check_opens_the_new_file_without_knowing_the_model(
    tmp_path: Path, changes: dict[str, object], unsaid: dict[str, object], differs: bool | None
) -> None:
    config = ModelConfig.from_dict(
        {"img_size": (12, 12), "patch_size": 4, "in_chans": 3, "num_classes": 7, "embed_dim": 192, "depth": 12}
        | changes
    )
    torch.manual_seed(0)
    model = build_model(config)
    torch.nn.init.normal_(model.get_parameter("head.weight"))
    save_model(tmp_path / "ours.safetensors", model, {})
    found = convert(str(tmp_path / "ours.safetensors"), to="timm", out=tmp_path / "out.pth", check=True)
    assert found.unsaid == unsaid
    assert (None if found.difference is None else found.difference > 1e-4) == differs


def test_averaged_or_raw_weights_of_a_checkpoint_are_converted(tmp_path: Path, model: VisionTransformer) -> None:
    raw = export_weights(model, tmp_path / "raw.pth", to="timm")
    states = torch.load(raw), {name: tensor + 1 for name, tensor in torch.load(raw).items()}
    torch.save({"model": states[0], "model_ema": states[1]}, tmp_path / "checkpoint.pth")
    for weights, state in zip(("raw", "ema"), states, strict=True):
        options = {"to": "timm", "out": tmp_path / f"{weights}-timm.pth", "weights": weights}
        written = convert(str(tmp_path / "checkpoint.pth"), architecture={"num_heads": 5}, **options).path  # type: ignore[arg-type]
        assert torch.equal(torch.load(written)["norm.bias"], state["norm.bias"])
