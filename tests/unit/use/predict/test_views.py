"""Test-time augmentation: probabilities averaged over views of an image."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vitreous.errors import ConfigError
from vitreous.use.evaluate.evaluator import evaluate
from vitreous.use.evaluate.paired import paired_difference
from vitreous.use.predict.predictor import Predictor
from vitreous.use.run import Run


@pytest.fixture(scope="module")
def predictor(run: Run) -> Predictor:
    return Predictor.load(run.path)


def pixels_of(predictor: Predictor, photos: Path) -> torch.Tensor:
    return torch.stack([predictor.preprocess.pixels(path) for path in sorted(photos.glob("*/*.png"))[::7]])


def mirrored(predictor: Predictor, flip: bool = True) -> Predictor:
    return replace(predictor, metadata=dict(predictor.metadata) | {"flip": flip})


def test_a_model_file_says_whether_it_was_trained_with_mirrored_images(
    run_on: Callable[..., Run], photos: Path
) -> None:
    for flip in (True, False):
        run = run_on(photos, name="flip", **{"data.flip": flip, "train.epochs": 0.2})
        assert run.metadata["flip"] is flip


def test_one_view_is_the_image_itself(predictor: Predictor, photos: Path) -> None:
    pixels = pixels_of(predictor, photos)
    expected = predictor.probabilities(predictor.logits(pixels))
    assert torch.equal(predictor.classify(pixels), expected)
    assert torch.equal(predictor.with_views(1).classify(pixels), expected)


def test_two_views_with_mirroring_are_the_image_and_its_mirror_image(predictor: Predictor, photos: Path) -> None:
    pixels = pixels_of(predictor, photos)
    both = [predictor.probabilities(predictor.logits(view)) for view in (pixels, pixels.flip(-1))]
    found = mirrored(predictor).with_views(2).classify(pixels)
    torch.testing.assert_close(found, (both[0] + both[1]) / 2, atol=1e-4, rtol=1e-4)


def test_second_view_without_mirroring_is_the_enlarged_center(predictor: Predictor, photos: Path) -> None:
    pixels = pixels_of(predictor, photos)
    height, width = pixels.shape[-2:]
    box = (0.05 * width, 0.05 * height, 0.95 * width, 0.95 * height)
    enlarged = [
        torch.from_numpy(np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize(
            (width, height), Image.Resampling.BILINEAR, box))).permute(2, 0, 1)
        for image in pixels
    ]  # fmt: skip
    both = [predictor.probabilities(predictor.logits(view)) for view in (pixels, torch.stack(enlarged))]
    found = mirrored(predictor, flip=False).with_views(2).classify(pixels)
    torch.testing.assert_close(found, (both[0] + both[1]) / 2, atol=5e-3, rtol=5e-3)


@pytest.mark.parametrize(("flip", "most"), [(True, 12), (False, 6)])
def test_all_views_differ_and_more_are_refused(predictor: Predictor, photos: Path, flip: bool, most: int) -> None:
    model = mirrored(predictor, flip)
    pixels = pixels_of(model, photos)
    previous = [model.with_views(count).classify(pixels) for count in range(1, most + 1)]
    assert all(not torch.equal(one, next_one) for one, next_one in pairwise(previous))
    assert torch.allclose(previous[-1].sum(dim=1), torch.ones(len(pixels)), atol=1e-5)
    for count in (0, -1, most + 1):
        with pytest.raises(
            ConfigError, match=rf"^tta={count}: this model has {most} views of an image; use 1 to {most}$"
        ):
            model.with_views(count)


def test_models_without_that_record_are_not_mirrored(predictor: Predictor) -> None:
    older = replace(predictor, metadata={key: value for key, value in predictor.metadata.items() if key != "flip"})
    with pytest.raises(ConfigError, match="use 1 to 6"):
        older.with_views(7)


def test_predictions_average_over_views_whatever_the_batch(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, averaged = run.predict(photos), run.predict(photos, tta=3)
    assert [prediction.image for prediction in plain] == [prediction.image for prediction in averaged]
    assert plain != averaged
    assert run.predict(photos) == plain  # the run itself keeps one view
    monkeypatch.setattr("vitreous.use.predict.predictor.BATCH_SIZE", 5)
    for one, other in zip(averaged, run.predict(photos, tta=3), strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_each_view_takes_one_forward_pass(predictor: Predictor, photos: Path) -> None:
    passes: list[int] = []
    handle = predictor.model.tokenizer.register_forward_hook(lambda *given: passes.append(len(given[2])))
    predictor.with_views(3).predict(sorted(photos.glob("*/*.png"))[:4])
    handle.remove()
    assert passes == [4, 4, 4]


def test_gain_is_the_paired_difference_of_the_accuracies(run: Run) -> None:
    found, plain = evaluate(run.path, num_views=4), evaluate(run.path)
    assert plain.views is None
    assert found.views is not None
    assert found.score == plain.score  # the scores are those of one view
    assert found.views["num_views"] == 4
    assert found.views["gain"][0] == pytest.approx(found.views["accuracy"] - plain.accuracy)
    assert found.as_dict()["tta"] == found.views
    number = round(found.views["gain"][0] * plain.score.num_images)
    assert number != 0 or found.views["gain"][1:] == paired_difference(np.zeros(plain.score.num_images))[1:]


def test_more_views_than_there_are_refused_before_anything_is_read(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"^tta=50: "):
        evaluate(run.path, "no/where", num_views=50)
