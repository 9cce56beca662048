"""Explanation and Explainer: the right class, the right place in the photo, and pictures of any photo."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

import vitreous as vt
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import AssumptionWarning, ConfigError, DataError, DecodeError
from vitreous.model.weights import export_weights, save_model
from vitreous.tensors import Images
from vitreous.use.explain.explainer import Explainer
from vitreous.use.explain.methods import DEFAULT, METHODS, Method
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.target import Target
from vitreous.use.run import Run

PIXELS = np.random.default_rng(3).integers(0, 256, (11, 17, 3), dtype=np.uint8)


def signed(model: nn.Module, images: Images, target: Target) -> Relevance:
    """Return values from -1 to 1, with errors and gaps."""
    values = torch.linspace(-1, 1, 6).view(1, 2, 3).expand(len(images), -1, -1)
    return Relevance(values, errors=values.abs() / 10, gaps=torch.full((len(images),), 0.25))


def plain(model: nn.Module, images: Images, target: Target) -> Relevance:
    return Relevance(torch.ones(len(images), 2, 3))


@pytest.fixture
def three_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register only the default method, a signed one, and one that ignores the class."""
    for name in [name for name in METHODS if name != "gradient-attention"]:
        monkeypatch.delitem(METHODS, name)  # type: ignore[arg-type]
    for method in (
        Method(signed, "signed", "for tests", is_signed=True),
        Method(plain, "plain", "for tests", is_class_specific=False),
    ):
        monkeypatch.setitem(METHODS, method.label, method)  # type: ignore[arg-type]


def explainer(in_chans: int = 3, fit: str = "crop", img_size: tuple[int, int] = (8, 12)) -> Explainer:
    model = vt.create_model("vit_pico", num_classes=3, img_size=img_size, patch_size=4, in_chans=in_chans, seed=1)
    preprocess = Preprocess(img_size, in_chans, fit, mean=(0.5,) * in_chans, std=(0.2,) * in_chans)
    return Explainer.from_model(model.eval(), preprocess, ["ape", "bee", "cat"])


# Which class is explained.


def test_predicted_class_is_explained_as_predict_gives_it(run: Run, photos: Path) -> None:
    found, expected = run.explain(photos), run.predict(photos)
    assert [(e.image, e.prediction, e.target) for e in found] == [(p.image, p.label, p.label) for p in expected]
    np.testing.assert_allclose([e.probability for e in found], [p.probability for p in expected], rtol=1e-5)
    assert [e.target_probability for e in found] == [e.probability for e in found]
    assert {(e.method, e.versus, e.gap, e.errors, e.unreadable) for e in found} == {(DEFAULT, "", None, None, "")}


def test_values_are_those_of_the_method_for_the_same_pixels_whatever_the_batch(run: Run, photos: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[:3]
    predictor = run.predictor
    images = predictor.preprocess.normalize(torch.stack([predictor.preprocess.pixels(path) for path in paths]))
    for number, name in enumerate(run.classes):
        expected = METHODS[DEFAULT](run.model, images, Target(number)).values.numpy()
        found = run.explain(photos, target=name)
        by_name = {e.image: e.values for e in found}
        np.testing.assert_allclose([by_name[str(path)] for path in paths], expected, rtol=1e-4, atol=1e-7)
        assert {e.target for e in found} == {name}


def test_class_may_be_a_number(run: Run, photos: Path) -> None:
    image = next(photos.rglob("*.png"))
    by_number, by_name = run.explain(image, target=1, versus=2)[0], run.explain(image, target=run.classes[1],
                                                                              versus=run.classes[2])[0]  # fmt: skip
    assert (by_number.target, by_number.versus) == run.classes[1:]
    np.testing.assert_array_equal(by_number.values, by_name.values)


def test_versus_compares_the_prediction_or_the_next_best_class(run: Run, photos: Path) -> None:
    for found, predicted in zip(run.explain(photos, versus=run.classes[0]), run.predict(photos), strict=True):
        ranked = sorted(range(3), key=lambda number: -predicted.probabilities[number])
        assert found.target == run.classes[next(number for number in ranked if number != 0)]
        assert found.versus == run.classes[0]
        target = run.classes.index(found.target)
        assert found.target_probability == pytest.approx(predicted.probabilities[target])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "two word"}, "target=two word: no such class; did you mean two words?"),
        ({"versus": "apfel"}, "versus=apfel: no such class; did you mean Äpfel?"),
        ({"target": 3}, "target=3: no such class; the model has classes 0 to 2"),
        ({"target": -1}, "target=-1: no such class; the model has classes 0 to 2"),
        ({"target": "two words", "versus": "two words"},
         "versus=two words: is the target itself; choose another class"),
        ({"method": "gradient-atention"}, "method=gradient-atention: no such method; did you mean gradient-attention?"),
        ({"method": []}, "method=: no such method; "),
        ({"method": "all, or none"}, "method=all, or none: no such method; "),
    ],
)  # fmt: skip
def test_wrong_choice_is_refused_before_any_image_is_read(run: Run, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run.explain("missing.png", **arguments)
    assert str(caught.value).startswith(message)


def test_target_of_a_method_that_ignores_the_class_is_refused(three_methods: None, run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^target=two words: plain does not depend on the class; use another method"):
        run.explain(PIXELS, "plain", target="two words")
    with pytest.raises(ConfigError, match=r"^versus=0: plain does not depend"):
        run.explain(PIXELS, "plain", versus=0)


def test_all_methods_are_those_of_the_registry_and_each_image_gets_all(three_methods: None, run: Run) -> None:
    found = run.explain([PIXELS, PIXELS[:, ::-1]], "all", target="two words")
    names = ["gradient-attention", "signed", "plain"]
    assert [(e.image, e.method) for e in found] == [(f"image {number}", name) for number in range(2) for name in names]
    assert [e.target for e in found[:3]] == ["two words", "two words", ""]
    assert found[1].gap == 0.25
    np.testing.assert_allclose(found[1].errors, np.abs(found[1].values) / 10)
    assert [e.method for e in run.explain(PIXELS, ["signed", "plain", "signed"])] == ["signed", "plain"]


# What can be explained.


def test_all_that_predict_takes_is_explained(run: Run, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    Image.fromarray(PIXELS).save(file, "PNG")
    tensor = torch.from_numpy(PIXELS).permute(2, 0, 1)
    many = [tmp_path / "a.png", tmp_path, file.getvalue(), Image.fromarray(PIXELS), PIXELS, tensor]
    found = run.explain(many)
    assert len(found) == 6
    for explanation in found[1:]:
        np.testing.assert_allclose(explanation.values, found[0].values, atol=1e-7)
        np.testing.assert_allclose(np.asarray(explanation.overlay()), np.asarray(found[0].overlay()), atol=1)
    with pytest.raises(DataError, match=r"^image=7: is not an image; "):
        run.explain([PIXELS, 7])


def test_most_probable_label_is_explained_if_images_may_have_several() -> None:
    single = explainer().predictor
    several = Explainer(replace(single, thresholds=(0.0, 1.0, 0.0)))
    found, predicted = next(several.explain(PIXELS)), replace(single, thresholds=(0.0, 1.0, 0.0)).predict(PIXELS)[0]
    assert found.prediction == predicted.label == "ape;cat"
    best = int(np.argmax(predicted.probabilities))
    assert (found.target, found.target_probability) == (single.classes[best], pytest.approx(predicted.probability))
    chosen = next(several.explain(PIXELS, target="bee"))
    assert (chosen.target, chosen.target_probability) == ("bee", pytest.approx(predicted.probabilities[1]))


def test_values_that_are_not_finite_are_reported_and_can_be_drawn(three_methods: None) -> None:
    for value in (np.nan, np.inf):
        values = np.full((2, 3), value, np.float32)
        found = replace(next(explainer().explain(PIXELS, "plain")), values=values)
        assert found.finding == "the values are not finite"
        assert found._repr_png_()


def test_unreadable_image_is_reported_in_its_place(run: Run, broken_png: Path) -> None:
    before, found, after = run.explain([PIXELS, broken_png, PIXELS], ["gradient-attention"])
    assert found.unreadable == run.predict(broken_png)[0].error
    assert (found.image, found.prediction, found.finding) == (str(broken_png), "", found.unreadable)
    assert (before.image, after.image) == ("image 0", "image 2")
    assert found._repr_png_() is None
    for make in (found.overlay, found.plot, lambda: found.heatmap, lambda: found.save(broken_png.with_name("x.png"))):
        with pytest.raises(DecodeError, match="not an image that Pillow can read"):
            make()


def test_batches_are_bounded_and_lazy(run: Run) -> None:
    drawn = []

    def images() -> Iterator[np.ndarray]:
        for number in range(200):
            drawn.append(number)
            yield PIXELS

    stream = Explainer(run.predictor).explain(images())
    next(stream)
    assert len(drawn) <= 64


def test_weights_of_another_library_have_numbers_for_classes(tmp_path: Path) -> None:
    model = vt.create_model("vit_tiny_patch16_224", num_classes=4, img_size=32, depth=1)
    path = export_weights(model, tmp_path / "foreign.safetensors", to="timm")
    with pytest.warns(AssumptionWarning, match="assumes mean and std of ImageNet"):
        found = vt.explain(path, PIXELS, target="3", architecture={"num_heads": 3}, device="cpu")[0]
    assert found.target == "3"
    assert found.prediction in "0123"
    assert found.values.shape == (2, 2)


def test_folder_with_only_a_model_file_keeps_its_class_names(run: Run, tmp_path: Path) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "model.safetensors").write_bytes((run.path / "model.safetensors").read_bytes())
    found = vt.explain(tmp_path / "only", PIXELS, device="cpu")[0]
    assert (found.prediction, found.probability) == (run.predict(PIXELS)[0].label, run.explain(PIXELS)[0].probability)


def test_model_without_a_head_is_refused(tmp_path: Path) -> None:
    model = vt.create_model("vit_pico", num_classes=0, img_size=8, patch_size=4)
    save_model(tmp_path / "m.safetensors", model, {})
    with pytest.raises(ConfigError, match=r"^model.num_classes=0: has no head"):
        vt.explain(tmp_path / "m.safetensors", PIXELS, device="cpu")


def test_number_of_names_must_be_that_of_the_classes() -> None:
    made = explainer()
    with pytest.raises(ConfigError, match=r"^classes=2: the model has 3 classes; "):
        Explainer.from_model(made.predictor.model, made.predictor.preprocess, ["a", "b"])


# Where it is in the photo.


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_heatmap_and_overlay_have_the_size_of_the_upright_photo(fit: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned; upright, it is 17 px high and 11 px wide
    Image.fromarray(PIXELS).save(tmp_path / "turned.jpg", exif=exif)
    found = next(explainer(fit=fit).explain(tmp_path / "turned.jpg"))
    assert found.heatmap.shape == (17, 11)
    assert found.heatmap.dtype == np.float32
    assert found.overlay().size == (11, 17)
    assert np.isnan(found.heatmap).any() == (fit == "crop")


def test_value_of_a_patch_lies_where_its_pixels_are(three_methods: None) -> None:
    found = next(explainer(img_size=(8, 12)).explain(np.zeros((80, 200, 3), np.uint8), "signed"))
    heatmap = found.heatmap  # the model sees columns 40 to 160
    assert np.isnan(heatmap[:, :40]).all()
    assert np.isnan(heatmap[:, 160:]).all()
    np.testing.assert_allclose(heatmap[20, 60], found.values[0, 0], atol=0.05)
    np.testing.assert_allclose(heatmap[60, 140], found.values[1, 2], atol=0.05)
    assert found.box == pytest.approx((0.2, 0, 0.8, 1))


# Pictures.


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (300, 2, 3), (8, 8, 3), (90, 40, 3)])
@pytest.mark.parametrize("method", ["gradient-attention", "signed", "plain"])
def test_figure_can_be_drawn_for_a_photo_of_any_shape(
    shape: tuple[int, int, int], method: str, three_methods: None
) -> None:
    photo = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = next(explainer().explain(photo, method))
    figure = found.plot()
    assert isinstance(figure, Figure)
    assert max(figure.get_size_inches()) < 15
    assert Image.open(io.BytesIO(found._repr_png_() or b"")).format == "PNG"


def test_gray_and_many_channels_are_shown_and_the_figure_says_how() -> None:
    gray = next(explainer(1).explain(PIXELS))
    assert gray.photo().mode == "L"
    assert "photo, in gray as the model sees it" in texts(gray.plot())
    many = np.random.default_rng(0).integers(0, 256, (9, 14, 13), dtype=np.uint8)
    found = next(explainer(13).explain(many))
    np.testing.assert_array_equal(np.asarray(found.photo()), many[:, :, :3])
    assert "channels 1 to 3 of 13 as red, green and blue" in texts(found.plot())
    two = next(explainer(2).explain(many[:, :, :2]))
    np.testing.assert_array_equal(np.asarray(two.photo()), many[:, :, 0])
    assert "first of 2 channels" in texts(two.plot())


def texts(figure: Figure) -> str:
    return " ".join(" ".join(text.get_text() for text in figure.texts).split())


def test_figure_says_prediction_class_and_method(three_methods: None) -> None:
    found = next(explainer().explain(PIXELS, "signed", target="bee", versus="cat"))
    said = texts(found.plot())
    assert f"image 0: predicted {found.prediction} ({found.probability:.1%})" in said
    assert "what raises the score of bee" in said
    assert "above that of cat" in said
    assert "Signed: for tests." in said
    assert "Most relevant: " in said
    plain_found = next(explainer().explain(PIXELS, "plain"))
    assert "the same for every class" in texts(plain_found.plot())


def test_names_cannot_break_the_figure(tmp_path: Path) -> None:
    made = explainer()
    names = ["$\\frac{", "line\nbreak\x1b[31m", "漢字" * 30]
    hostile = Explainer.from_model(made.predictor.model, made.predictor.preprocess, names)
    path = tmp_path / "$x_{\n<b>.png"
    Image.fromarray(PIXELS).save(path)
    for number in range(3):
        found = next(hostile.explain(path, target=number))
        found.save(tmp_path / f"{number}.png")
        assert "\x1b" not in texts(found.plot())


def test_color_scale_of_positive_values_is_in_percent_of_their_sum(three_methods: None) -> None:
    axes = next(explainer().explain(PIXELS, "plain")).plot().axes[-1]
    assert axes.get_ylabel() == "relevance, % per patch"
    assert axes.get_ylim() == pytest.approx((0, 100 / 6))
    axes = next(explainer().explain(PIXELS, "signed")).plot().axes[-1]
    assert axes.get_ylabel() == "effect of a patch on the score"
    assert axes.get_ylim() == pytest.approx((-1, 1))


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".SVG", ".jpg"])
def test_suffix_chooses_the_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"why{suffix}"
    next(explainer().explain(PIXELS)).save(path)
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF", ".SVG": b"<?xml", ".jpg": b"\xff\xd8"}
    assert path.read_bytes().startswith(starts[suffix])


@pytest.mark.parametrize(
    ("path", "message"),
    [("why", "path=why: ends in nothing; use one of ."), ("why.bmpx", "path=why.bmpx: ends in .bmpx; use one of ."),
     ("no/why.png", "path=no/why.png: the folder no does not exist; create it first")],
)  # fmt: skip
def test_path_that_cannot_be_saved_to_is_refused(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        next(explainer().explain(PIXELS)).save(path)
    assert str(caught.value).startswith(message)


def test_representation_is_short_and_without_pixels() -> None:
    assert len(repr(next(explainer().explain(PIXELS)))) < 300
