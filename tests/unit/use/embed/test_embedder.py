"""Embedder: features are the input of the head, for runs and for weights of other libraries."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vitreous as vt
from vitreous.errors import AssumptionWarning, ConfigError, DataError, NotARunError
from vitreous.model.weights import export_weights
from vitreous.model.weights.table import Hints
from vitreous.use.embed.embedder import IMAGENET_MEAN, Embedder
from vitreous.use.run import Run

PIXELS = np.random.default_rng(3).integers(0, 256, (11, 17, 3), dtype=np.uint8)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Weights as timm writes them, without a config."""
    model = vt.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    return export_weights(model, tmp_path / "foreign.safetensors", to="timm")


def test_head_of_the_model_turns_features_into_the_logits_of_predict(run: Run, photos: Path) -> None:
    found = run.embed(photos)
    with torch.inference_mode():
        logits = run.model.head(torch.from_numpy(found.vectors))
    expected = run.predict(photos)
    assert list(found.names) == [prediction.image for prediction in expected]
    probabilities = torch.tensor([prediction.probabilities for prediction in expected])
    torch.testing.assert_close(run.predictor.probabilities(logits), probabilities, rtol=1e-4, atol=1e-5)


def test_run_path_and_model_file_give_the_same_features(run: Run, photos: Path) -> None:
    expected = run.embed(photos).vectors
    assert expected.dtype == np.float32
    for model in (run.path, str(run.path / "model.safetensors")):
        np.testing.assert_array_equal(vt.embed(model, photos, device="cpu").vectors, expected)


def test_unreadable_file_is_named_in_a_warning_and_has_no_row(run: Run, photos: Path, tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.png", next(photos.rglob("*.png"))
    broken.write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"^1 of 3 images could not be read .*broken.png.*; the other 2 are embedded$"):
        found = run.embed([good, broken, PIXELS])
    assert found.names == (str(good), "image 2")
    assert found.positions.tolist() == [0, 2]
    assert len(found.vectors) == 2
    assert found.errors == (f"{broken}: not an image that Pillow can read",)


def test_no_readable_image_gives_an_array_without_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="none is embedded$"):
        assert run.embed(tmp_path / "broken.png").vectors.shape == (0, 16)


def test_what_is_not_an_image_is_refused(run: Run) -> None:
    with pytest.raises(DataError, match=r"^image=7: is not an image; "):
        run.embed([PIXELS, 7])


def test_foreign_weights_give_the_features_of_load_model_with_mean_and_std_of_imagenet(foreign: Path) -> None:
    hints = Hints(architecture={"num_heads": 3})
    embedder = Embedder.load(foreign, hints=hints)
    model = vt.load_model(foreign, architecture={"num_heads": 3}) if not embedder.notes else embedder.model
    assert embedder.preprocess.mean == IMAGENET_MEAN
    assert any("assumes mean and std of ImageNet" in note for note in embedder.notes)
    image = Image.fromarray(PIXELS).resize((32, 32), Image.Resampling.BICUBIC, box=(3, 0, 14, 11))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = ((torch.from_numpy(np.array(image)) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = model.pooled(images)
    torch.testing.assert_close(torch.from_numpy(embedder.embed(PIXELS).vectors), expected, rtol=1e-4, atol=1e-4)


def test_preprocessor_config_next_to_foreign_weights_decides_mean_and_std(foreign: Path) -> None:
    text = '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    (foreign.parent / "preprocessor_config.json").write_text(text)
    embedder = Embedder.load(foreign, hints=Hints(architecture={"num_heads": 3}))
    assert (embedder.preprocess.mean, embedder.preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert not any("ImageNet" in note for note in embedder.notes)


def test_python_function_warns_of_what_is_taken_for_granted(foreign: Path) -> None:
    with pytest.warns(AssumptionWarning, match="assumes mean and std of ImageNet"):
        found = vt.embed(foreign, PIXELS, img_size=(48, 32), architecture={"num_heads": 3}, device="cpu")
    assert found.vectors.shape == (1, 192)


@pytest.mark.parametrize("given", ["32by48", 48.5, True, (48, 32, 16), -16])
def test_image_size_that_is_none_is_refused_in_python(given: Any, foreign: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.img_size="):
        vt.embed(foreign, PIXELS, img_size=given, architecture={"num_heads": 3}, device="cpu")


def test_image_size_that_patches_do_not_tile_is_refused_with_the_nearest_that_works(foreign: Path) -> None:
    hints = Hints(architecture={"num_heads": 3})
    with pytest.raises(ConfigError) as caught:
        Embedder.load(foreign, img_size=(50, 7), hints=hints)
    assert str(caught.value) == "img_size=50x7: not divisible by the model's patches of 16 px; use 48x16"
    assert Embedder.load(foreign, img_size=(48, 16), hints=hints).model.config.img_size == (48, 16)


def test_unfinished_run_and_missing_path_are_explained(run: Run, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(run.path, tmp_path / "half"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotARunError, match="is not finished; continue it with"):
        Embedder.load(folder)
    with pytest.raises(NotARunError, match="nope: does not exist; "):
        Embedder.load(tmp_path / "nope")
