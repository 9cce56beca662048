"""A folder for transformers or timm: the library opens it, prepares photos, and gives the probabilities of Python."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.unit.use.explain.models import SHAPE
from tests.unit.use.export.predictors import predictor_for

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import ConfigError, DamagedFileError, MissingDependencyError
from vitreous.model import ModelConfig, build_model
from vitreous.use.export.exporter import export
from vitreous.use.export.hub.card import write_readme
from vitreous.use.export.hub.library import open_library, write_library
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run

CONFIG: dict[str, Any] = SHAPE | {"num_heads": 3}
PHOTOS = [
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8))
    for number, size in enumerate([(31, 31), (19, 27), (40, 22)])
]


def made(*, fit: str = "squash", thresholds: tuple[float, ...] | None = None, **keys: Any) -> Predictor:
    """Return a predictor with random weights that are far from the initial ones."""
    generator = torch.Generator().manual_seed(3)
    model = build_model(ModelConfig(**{**CONFIG, **keys}), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    found = predictor_for(model, thresholds)
    values = found.preprocess.as_dict() | {"fit": fit}
    return dataclasses.replace(found, preprocess=Preprocess.from_dict(values))


def expected(predictor: Predictor, photos: list[Image.Image]) -> NDArray[np.float64]:
    return np.array([found.probabilities for found in predictor.predict([np.array(photo) for photo in photos])])


def by_transformers(folder: Path, photos: list[Image.Image], *, several: bool) -> NDArray[np.float32]:
    """Return the probabilities that transformers computes, with nothing but the folder."""
    transformers = pytest.importorskip("transformers", reason="opens the folder")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    # Where torchvision is installed, transformers resizes with that by default, whose rounding differs from Pillow's.
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.no_grad():
        logits = model(**processor(photos, return_tensors="pt")).logits
    return (logits.sigmoid() if several else logits.softmax(dim=1)).numpy()


def by_timm(folder: Path, photos: list[Image.Image], *, several: bool) -> NDArray[np.float32]:
    """Return the probabilities that timm computes, with nothing but the folder."""
    timm = pytest.importorskip("timm", reason="opens the folder")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with torch.no_grad():
        logits = model(torch.stack([transform(photo) for photo in photos]))
    return (logits.sigmoid() if several else logits.softmax(dim=1)).numpy()


READERS: dict[str, Callable[..., NDArray[np.float32]]] = {"hf": by_transformers, "timm": by_timm}


@pytest.mark.parametrize("to", ["hf", "timm"])
@pytest.mark.parametrize(
    ("keys", "num_photos"),
    [
        ({}, 3),
        ({"fit": "crop", "img_size": (12, 12)}, 1),  # of a square photo, a crop is the same for everyone
        ({"in_chans": 1}, 3),
        ({"thresholds": (0.1, 0.3, 0.5, 0.7, 0.9)}, 3),
        ({"distill_token": True, "img_size": (12, 12)}, 3),
    ],
    ids=["color", "crop", "gray", "several labels", "two heads"],
)
def test_library_gives_the_answers_of_python(to: str, keys: dict[str, Any], num_photos: int, tmp_path: Path) -> None:
    predictor = made(**keys)
    photos = [photo.convert("L") if predictor.preprocess.in_chans == 1 else photo for photo in PHOTOS[:num_photos]]
    write_library(predictor, tmp_path / "x", to)
    found = READERS[to](tmp_path / "x", photos, several=predictor.thresholds is not None)
    np.testing.assert_allclose(found, expected(predictor, photos), rtol=0, atol=2e-5)


@pytest.mark.parametrize("to", ["hf", "timm"])
def test_vitreous_opens_the_folder_with_the_same_probabilities(to: str, tmp_path: Path) -> None:
    predictor = made(thresholds=(0.1, 0.3, 0.5, 0.7, 0.9))
    write_library(predictor, tmp_path / "x", to)
    again = Predictor.load(tmp_path / "x")
    assert (again.classes, again.thresholds) == (predictor.classes, predictor.thresholds)
    assert (again.preprocess, again.model.config) == (predictor.preprocess, predictor.model.config)
    np.testing.assert_allclose(expected(again, PHOTOS), expected(predictor, PHOTOS), rtol=0, atol=1e-6)


def test_descriptions_have_classes_and_preprocessing(tmp_path: Path) -> None:
    predictor = made(fit="crop", img_size=(12, 12))
    for to in ("hf", "timm"):
        write_library(predictor, tmp_path / to, to)
    hf, prepared, timm = (
        json.loads((tmp_path / name).read_text("utf-8"))
        for name in ("hf/config.json", "hf/preprocessor_config.json", "timm/config.json")
    )
    assert list(hf["id2label"].values()) == list(hf["label2id"]) == timm["label_names"] == list(predictor.classes)
    assert hf["problem_type"] == "single_label_classification"
    assert prepared["image_mean"] == timm["pretrained_cfg"]["mean"] == [0.45, 0.5, 0.55]
    assert (prepared["size"], prepared["crop_size"]) == ({"shortest_edge": 12}, {"height": 12, "width": 12})
    assert timm["pretrained_cfg"]["input_size"] == [3, 12, 12]
    assert timm["model_args"]["embed_dim"] == 24


@pytest.mark.parametrize("to", ["hf", "timm"])
def test_folder_with_other_weights_is_refused(to: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers" if to == "hf" else "timm", reason="opens the folder")
    predictor = made()
    write_library(predictor, tmp_path / "x", to)
    assert open_library(predictor, tmp_path / "x", to)(np.array(PHOTOS[1])[None])[0].shape == (1, 5)
    tensors = load_file(tmp_path / "x" / "model.safetensors")
    tensors["classifier.bias" if to == "hf" else "head.bias"] += torch.arange(5.0)
    save_file(tensors, tmp_path / "x" / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ConfigError, match=rf"^to={to}: .* computes other probabilities from the same pixels \(by up to"
    ):
        open_library(predictor, tmp_path / "x", to)


@pytest.mark.parametrize(
    ("to", "keys", "message"),
    [
        ("hf", {"pool": "mean"}, "to=hf: transformers vit cannot hold model.pool=mean; use --to onnx"),
        ("hf", {"fit": "crop"}, "data.fit=crop: transformers has no preprocessing of this kind for images of 8x12 px; "
         "use --to timm"),
        ("hf", {"fit": "pad", "img_size": (12, 12)}, "data.fit=pad: transformers has no preprocessing of this kind for "
         "images of 12x12 px; use --to timm"),
        ("hf", {"pool": "map"}, "to=hf: transformers vit cannot hold model.pool=map; use --to onnx"),
        ("timm", {"stem": "conv"}, "to=timm: timm cannot hold model.stem=conv; use --to onnx"),
        ("timm", {"relative_bias": True}, "to=timm: timm cannot hold model.relative_bias=True; use --to onnx"),
        ("timm", {"patch_bias": False}, "to=timm: no function of timm builds a model with model.patch_bias=False; "
         "use --to onnx"),
        ("timm", {"in_chans": 5}, "data.in_chans=5: timm reads images of 1 or 3 channels; use --to onnx"),
    ],
)  # fmt: skip
def test_model_that_a_library_does_not_have_is_refused(
    to: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        write_library(_five_channels() if keys == {"in_chans": 5} else made(**keys), tmp_path / "x", to)
    assert str(caught.value) == message


def _five_channels() -> Predictor:
    model = build_model(ModelConfig(**{**CONFIG, "in_chans": 5}))
    preprocess = Preprocess((8, 12), 5, "squash", (0.5,) * 5, (0.2,) * 5, value_range=())
    return Predictor(model.eval(), preprocess, tuple("abcde"), 1.0, {})


def test_card_keeps_what_the_owner_has_changed(own_run: Run, tmp_path: Path) -> None:
    card = own_run.path / "MODEL_CARD.md"
    text = card.read_text("utf-8").replace("license: unknown", "license: mit\ntags: [birds]")
    card.write_text(f"{text}\nMy own words.\n", "utf-8")
    write_readme(own_run.predictor, tmp_path, "timm", "Open it.")
    found = (tmp_path / "README.md").read_text("utf-8")
    header = yaml.safe_load(found.split("---")[1])
    assert (header["license"], header["tags"]) == ("mit", ["birds", "vision-transformer", "vitreous"])
    assert "My own words." in found
    assert "report.html" not in found
    assert found.endswith("## How to use it\n\nOpen it.\n")
    write_readme(own_run.predictor, tmp_path, "timm", "Open it.", has_report=True)
    assert "`report.html` shows" in (tmp_path / "README.md").read_text("utf-8")
    card.write_text("---\nlicense: [mit\n---\n", "utf-8")
    with pytest.raises(DamagedFileError, match=r"MODEL_CARD\.md: cannot be read .*; correct the lines between the"):
        write_readme(own_run.predictor, tmp_path, "timm", "Open it.")


def test_package_that_is_missing_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vitreous.use.export.targets.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"^to=timm: needs timm; pip install 'timm'$"):
        export(run.path, "timm", tmp_path / "x")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["hf", "timm"])
def test_run_is_exported_and_compared_through_the_library(
    to: str, run_on: Callable[..., Run], photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("transformers" if to == "hf" else "timm", reason="opens the folder")
    keys = {"model.stem": "linear", "model.pool": "token", "data.fit": "squash"}
    made_run = run_on(photos, name=f"for {to}", **keys)
    found = export(made_run.path, to, tmp_path / "out")
    assert sorted(file.name for file in found.path.iterdir() if file.suffix != ".json") == [
        "README.md", "model.safetensors",
    ]  # fmt: skip
    assert found.proof.num_same == found.proof.num_images
    assert found.proof.largest_difference < 1e-4
    assert found.proof.size_bytes == sum(file.stat().st_size for file in found.path.iterdir())
    assert Run(found.path).classes == made_run.classes
    with pytest.raises(ConfigError, match="already exists; choose another name with --out"):
        export(made_run.path, to, tmp_path / "out")
