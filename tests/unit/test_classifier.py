"""VitreousClassifier works where scikit-learn's own classifiers do, with every kind of images."""

import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import vitreous as vt
from vitreous.errors import ConfigError, DataError, VitreousError

TINY = {"model.patch_size": 2, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2, "data.cache": None}
ROUNDING = "sums of float32 depend in their last bits on which images are in a batch"


def tiny(**arguments: Any) -> vt.VitreousClassifier:
    return vt.VitreousClassifier(**{"epochs": 3, "config": TINY, **arguments})


def photos(num: int = 40, in_chans: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """Return images, 6 px high and 10 px wide, dark ones and light ones, and their labels."""
    draw = np.random.default_rng(5)
    is_light = np.arange(num) % 3 == 0
    low = np.where(is_light, 140, 10)[:, None, None, None]
    X = low + draw.integers(0, 100, (num, 6, 10, in_chans))
    return X.astype(np.uint8), np.where(is_light, "light", "dark")


@pytest.fixture(scope="module")
def fitted() -> vt.VitreousClassifier:
    """A classifier of color photos; not to be changed."""
    return tiny(epochs=15).fit(*photos())


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_scikit_learns_checks_pass() -> None:
    one_pixel = TINY | {"model.patch_size": 1}
    failing = {"check_methods_subset_invariance": ROUNDING, "check_methods_sample_order_invariance": ROUNDING}
    found = check_estimator(tiny(epochs=10, config=one_pixel), expected_failed_checks=failing, on_skip=None)
    assert sum(check["status"] == "passed" for check in found) >= 50


def test_labels_keep_their_type_and_are_learned(fitted: vt.VitreousClassifier) -> None:
    X, y = photos(60)
    assert fitted.classes_.tolist() == ["dark", "light"]
    assert fitted.score(X, y) >= 0.9
    assert set(fitted.predict(X)) == {"dark", "light"}
    np.testing.assert_allclose(fitted.predict_proba(X).sum(axis=1), 1, atol=1e-6)
    assert not hasattr(fitted, "n_features_in_")
    numbers = tiny(epochs=15).fit(X, np.where(y == "dark", 10, 9))  # the other way round as text
    assert numbers.classes_.tolist() == [9, 10]
    assert numbers.predict(X[:5]).dtype == np.int64
    assert numbers.score(X, np.where(y == "dark", 10, 9)) >= 0.9


def test_arrays_paths_and_pil_images_get_the_same_probabilities(fitted: vt.VitreousClassifier, tmp_path: Path) -> None:
    X, _ = photos(5)
    images = [Image.fromarray(image) for image in X]
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    expected = fitted.predict_proba(X)
    for given in (images, paths, list(map(str, paths)), np.array(list(map(str, paths))), list(X), iter(images)):
        np.testing.assert_array_equal(fitted.predict_proba(given), expected)


@pytest.mark.parametrize("kind", ["paths", "images", "iterator", "gray", "flat"])
def test_it_trains_on_each_kind_of_images(kind: str, tmp_path: Path) -> None:
    X, y = photos(30, in_chans=1 if kind == "gray" else 3)
    given: Any = {"gray": X[..., 0], "flat": X.reshape(30, -1)}.get(kind)
    if kind in ("paths", "images", "iterator"):
        given = [Image.fromarray(image) for image in X]
    if kind == "paths":
        for number, image in enumerate(given):
            image.save(tmp_path / f"{number}.png")
        given = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    model = tiny(image_shape=(6, 10, 3) if kind == "flat" else None)
    model.fit(map(Image.fromarray, X) if kind == "iterator" else given, y)
    assert model.predict_proba(given).shape == (30, 2)
    assert getattr(model, "n_features_in_", None) == (180 if kind == "flat" else None)


def test_values_are_scaled_by_one_range_for_all_images() -> None:
    X, y = photos(40, in_chans=1)
    counts = X[..., 0].astype(np.int64) // 16
    model = tiny(epochs=10).fit(counts.astype(float), y)
    np.testing.assert_array_equal(model.predict_proba(counts.astype(float)), model.predict_proba(counts))
    black = np.zeros((1, 6, 10))
    black[0, 0, 0] = 1.0  # the only image with values of 0 and 1, as if they were divided by 255
    np.testing.assert_array_equal(model.predict_proba(black), model.predict_proba(black.astype(np.int64)))


def test_cross_validation_pipeline_and_grid_search() -> None:
    X, y = photos(40, in_chans=1)
    flat = X.reshape(40, -1)
    shaped = tiny(image_shape=(6, 10))
    assert cross_val_score(shaped, flat, y, cv=2).shape == (2,)
    inverted = make_pipeline(FunctionTransformer(lambda values: 255 - values), StandardScaler(), shaped)
    assert inverted.fit(flat, y).predict_proba(flat).shape == (40, 2)
    search = GridSearchCV(tiny(), {"lr": [1e-4, 1e-2], "config": [TINY]}, cv=2).fit(X[..., 0], y)
    assert search.best_params_["lr"] in (1e-4, 1e-2)
    paths_like = [Image.fromarray(image) for image in X[..., 0]]
    assert cross_val_score(tiny(), paths_like, y, cv=2).shape == (2,)


def test_clone_has_the_parameters_and_not_the_model(fitted: vt.VitreousClassifier) -> None:
    copy = clone(fitted.set_params(seed=None))
    assert copy.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        copy.predict(photos(2)[0])


def test_seed_decides_the_model() -> None:
    X, y = photos(30)
    first, again, other = (tiny(seed=seed).fit(X, y).predict_proba(X) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_pickle_gives_the_same_probabilities_and_has_no_code_of_a_model(fitted: vt.VitreousClassifier) -> None:
    X, _ = photos(7)
    content = pickle.dumps(fitted)
    np.testing.assert_array_equal(pickle.loads(content).predict_proba(X), fitted.predict_proba(X))
    words = {text for _, text, _ in pickletools.genops(content) if isinstance(text, str)}
    assert {word for word in words if word.split(".")[0] in ("torch", "vitreous")} == {"vitreous.classifier"}


def test_model_is_the_content_of_a_model_file(fitted: vt.VitreousClassifier, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(fitted.model_)
    X, _ = photos(3)
    run = vt.load_run(file)
    assert run.classes == ("dark", "light")
    np.testing.assert_array_equal([found.probabilities for found in run.predict(X)], fitted.predict_proba(X))


def test_fit_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "cache"))
    config = {key: value for key, value in TINY.items() if key != "data.cache"}
    tiny(config=config).fit(*photos(20))
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor")]  # torch makes that
    assert left == []


@pytest.mark.parametrize(
    ("num_features", "image_shape", "message"),
    [
        (180, (6, 9, 3), "image_shape=(6, 9, 3): must multiply to the 180 features of X; give (height, width) or "),
        (180, (-18, -10), "image_shape=(-18, -10): must multiply to the 180 features of X; give (height, width) or "),
        (180, 180, "image_shape=180: must multiply to the 180 features of X; give (height, width) or "),
        (192, None, "image_shape=None: 192 features can be color images of 8x8 px; give (8, 8, 3), or "),
    ],
)
def test_flat_rows_that_do_not_fit_are_an_error(num_features: int, image_shape: Any, message: str) -> None:
    X, y = np.ones((4, num_features)), [0, 1, 0, 1]
    with pytest.raises(ConfigError) as caught:
        tiny(image_shape=image_shape).fit(X, y)
    assert str(caught.value).startswith(message)


def test_flat_rows_are_square_if_they_can_be() -> None:
    X, y = photos(24, in_chans=1)
    square = X[:, :, :6, 0]
    flat = square.reshape(24, 36)
    np.testing.assert_array_equal(tiny().fit(flat, y).predict_proba(flat), tiny().fit(square, y).predict_proba(square))


def test_unreadable_files_are_errors(fitted: vt.VitreousClassifier, tmp_path: Path) -> None:
    broken, (X, y) = tmp_path / "broken.png", photos(20)
    broken.write_bytes(b"not an image")
    images: list[Any] = [Image.fromarray(image) for image in X]
    with pytest.raises(DataError, match="broken"):
        fitted.predict([*images[:2], broken])
    with pytest.raises(VitreousError):
        tiny().fit([*images[:19], broken], y)


def test_fit_that_fails_leaves_no_model() -> None:
    X, y = photos(20)
    model = tiny(config={"optim.lr": -1})
    with pytest.raises(ConfigError):
        model.fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)


@pytest.mark.parametrize("y", [["a"] * 20, np.linspace(0, 1, 20), None, ["a", "b"]])
def test_labels_that_are_no_classes_are_errors(y: Any) -> None:
    with pytest.raises(ValueError):
        tiny().fit(photos(20)[0], y)


def test_unknown_keys_and_budgets_are_errors_of_train() -> None:
    X, y = photos(20)
    with pytest.raises(ConfigError, match=r"optim\.lrr"):
        vt.VitreousClassifier(config={"optim.lrr": 1}).fit(X, y)
    with pytest.raises(ConfigError, match="budget=soon"):
        vt.VitreousClassifier(budget="soon").fit(X, y)
