"""Models that are trained on planted shortcuts use them, explanations show it, and the check says so."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest
from tests.learning.planted import (
    MISSING,
    PLAIN,
    Photos,
    colored,
    corner_of,
    marked,
    mnist,
    normalized,
    outside,
    sign_digits,
    trained,
)  # fmt: skip

import vitreous as vt
from vitreous.data.sources import open_object
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.shortcut_check import ShortcutCheck, check_shortcuts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not in ../shared/data: {', '.join(MISSING)}"),
]
SIGN, CORNER, DIGIT = 4, "upper right", 3
Trained = tuple[vt.Run, Photos]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("shortcuts")
    return lambda name: root / name


@pytest.fixture(scope="module")
def with_mark(folder: Callable[[str], Path]) -> Trained:
    """Trained on hand signs; 60% of the photos of one sign have a glyph in the upper right corner."""
    return trained(marked(sign_digits(), SIGN, CORNER), folder("mark"), seed=0, epochs=12, **PLAIN)


@pytest.fixture(scope="module")
def with_background(folder: Callable[[str], Path]) -> Trained:
    """Trained on digits on colored ground; the ground of one digit is red, that of the others never is."""
    return trained(colored(mnist(), DIGIT), folder("background"), seed=0, epochs=6, **PLAIN)


def explained(run: vt.Run, photos: Photos) -> NDArray[np.float32]:
    """Return the positive relevance of each patch, as shares of each image."""
    batches = normalized(run, photos).split(64)
    values = torch.cat([METHODS[DEFAULT](run.model, batch).values for batch in batches]).clamp(min=0)
    return (values / values.sum(dim=(1, 2), keepdim=True)).numpy()


def predicted(run: vt.Run, photos: Photos) -> NDArray[np.str_]:
    with torch.inference_mode():
        return np.array(run.classes)[run.model(normalized(run, photos)).argmax(dim=1).numpy()]


def check(run: vt.Run, photos: Photos) -> ShortcutCheck:
    return check_shortcuts(run.path, open_object(photos))


def test_a_mark_gets_five_times_its_share_of_the_area(with_mark: Trained) -> None:
    run, held_out = with_mark
    photos = held_out.part(np.flatnonzero(held_out.has_cue)[:50])
    assert len(photos) >= 30
    shares = explained(run, photos)
    rows, columns = corner_of(shares.shape[1:], CORNER, 2)  # 8 of 32 px are 2 of 8 patches
    assert np.median(shares[:, rows, columns].sum(axis=(1, 2))) >= 5 * 4 / 64


def test_a_mark_is_reported_with_its_class_and_place(with_mark: Trained) -> None:
    run, held_out = with_mark
    found = check(run, held_out)
    (shortcut,) = found.shortcuts.found
    assert (shortcut.class_name, shortcut.place) == ("sign 4", "upper right corner")
    assert held_out.has_cue[list(shortcut.images)].mean() > 0.9
    assert "it may use a mark there" in found.sentences[0]


def test_a_model_with_convolutions_is_reported_for_the_mark_only(folder: Callable[[str], Path]) -> None:
    """The relevance of such models does not concentrate on the mark."""
    run, held_out = trained(marked(sign_digits(), SIGN, CORNER), folder("convolutions"), seed=0, epochs=12)
    assert run.model.config.stem == "conv"
    (shortcut,) = check(run, held_out).shortcuts.found
    assert (shortcut.class_name, shortcut.place) == ("sign 4", "upper right corner")
    assert shortcut.followed > 0.4


@pytest.mark.parametrize("seed", range(3))
def test_models_of_the_same_photos_without_marks_are_not_suspected(folder: Callable[[str], Path], seed: int) -> None:
    run, held_out = trained(sign_digits(), folder(f"clean {seed}"), seed=seed, epochs=12)
    assert np.mean(predicted(run, held_out) == np.array(held_out.classes)[held_out.labels]) > 0.7
    assert check(run, held_out).shortcuts.found == ()


def test_relevance_lies_on_a_background_that_gives_the_class_away(with_background: Trained) -> None:
    run, held_out = with_background
    photos = held_out.part(np.flatnonzero(held_out.has_cue)[:50])
    shares = explained(run, photos)
    assert np.median(shares[:, outside(shares.shape[1:])].sum(axis=1)) >= 0.8


def test_a_background_that_gives_the_class_away_is_reported(with_background: Trained) -> None:
    (shortcut,) = check(*with_background).shortcuts.found
    assert (shortcut.class_name, shortcut.place) == ("3", "border")


def test_exchanging_the_background_moves_the_prediction(with_background: Trained) -> None:
    """Paired: the same digits, first on their own ground, then red and other grounds exchanged."""
    run, held_out = with_background
    swapped = colored(held_out, DIGIT, swapped=True)
    before, after = (predicted(run, photos) == "3" for photos in (held_out, swapped))
    is_digit = held_out.labels == DIGIT
    for images, lost in ((is_digit, True), (~is_digit, False)):
        changed = (before != after) & images
        expected = int((changed & (before == lost)).sum())
        assert expected > 0.3 * images.sum()
        assert binomtest(expected, int(changed.sum()), alternative="greater").pvalue < 1e-6
