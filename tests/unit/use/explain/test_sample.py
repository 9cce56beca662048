"""A sample: which images are drawn, under which labels, in which batches, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.pictures import write_pictures
from tests.unit.use.explain.anatomy.models import make_model, sample_of

from vitreous.errors import DataError
from vitreous.use.evaluate.labeled_images import labeled_images
from vitreous.use.explain import sample as sample_module
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.sample import Sample, batches, stratified
from vitreous.use.explain.target import Target
from vitreous.use.run import Run


def test_sample_has_each_class_with_its_share() -> None:
    classes = np.repeat([0, 1, 2, 3], [500, 300, 199, 1])
    chosen = stratified(classes, 100, seed=3)
    assert len(set(chosen.tolist())) == 100
    counts = np.bincount(classes[chosen], minlength=4)
    assert np.abs(counts - [50, 30, 19.9, 0.1]).max() <= 1
    assert stratified(classes, 5000, seed=3).tolist() == list(range(1000))
    assert stratified(classes, 100, seed=4).tolist() != chosen.tolist()


def test_the_same_seed_draws_the_same_images_and_another_one_others(run: Run, photos: Path) -> None:
    images = labeled_images(run.path, run.predictor, str(photos))
    first, again, other = (Sample.draw(images, run.predictor, 20, seed=seed) for seed in (1, 1, 2))
    assert first.paths == again.paths != other.paths
    assert (len(first), first.total, first.name) == (20, 72, "all of my photos")


def test_labels_and_pixels_belong_to_the_names(run: Run, photos: Path, tmp_path: Path) -> None:
    """Also if the data has some of the classes only, so that its class numbers are others."""
    for name in ("two words", "Äpfel"):
        shutil.copytree(photos / name, tmp_path / "some" / name)
    sample = Sample.draw(labeled_images(run.path, run.predictor, str(tmp_path / "some")), run.predictor, 12)
    for position, path in enumerate(sample.paths):
        assert run.classes[sample.labels[position]] == Path(path).parent.name
        expected = run.predictor.preprocess.pixels(Path(path))
        assert torch.equal(sample.pixels(np.array([position]))[0], expected)
    every = sample.positions
    torch.testing.assert_close(sample.images(every), run.predictor.preprocess.normalize(sample.pixels(every)))


def test_too_few_images_are_refused_whether_missing_or_damaged(run: Run, tmp_path: Path) -> None:
    names = {"Äpfel": ((200, 60, 50), 4), "two words": ((9, 9, 9), 3)}
    data = write_pictures(tmp_path / "few", names, seed=5, name="{}.png", noise=20)
    images = labeled_images(run.path, run.predictor, str(data))
    with pytest.raises(DataError, match=r"^all of few: has 7 images, and this needs 8 or more; give a folder or table"):
        Sample.draw(images, run.predictor, 20, fewest=8)
    for path in data.rglob("*.png"):
        path.write_bytes(b"no image")
    message = "all of few: none of its 5 images can be decoded; check them with `vitreous inspect`"
    with pytest.raises(DataError, match=f"^{message}$"):
        Sample.draw(images, run.predictor, 5)


def test_batches_hold_a_bounded_number_of_tokens_and_at_least_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()  # 6 patches and a class token
    for most, expected in ((1, [1, 1, 1]), (14, [2, 1]), (99, [3])):
        monkeypatch.setattr(sample_module, "TOKENS_AT_ONCE", most)
        assert [len(some) for some in batches(model, np.array([7, 3, 5]))] == expected
    assert np.concatenate(list(batches(model, np.array([7, 3, 5])))).tolist() == [7, 3, 5]


def test_images_are_explained_in_batches_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, classes, positions = make_model(), np.array([1, 4, 0]), np.array([2, 0, 2])
    sample, seen = sample_of(model, np.array([0, 1, 2])), list[tuple[int, int]]()
    monkeypatch.setattr(sample_module, "TOKENS_AT_ONCE", 14)

    def show(done: int, total: int) -> None:
        seen.append((done, total))

    found = sample.explained(METHODS[DEFAULT], classes, positions, show)
    for row, position, number in zip(found, positions, classes, strict=True):
        alone = METHODS[DEFAULT](model, sample.images(np.array([position])), Target(int(number))).values[0]
        np.testing.assert_allclose(row, alone.numpy(), atol=1e-5)
    assert seen == [(2, 3), (3, 3)]
    none = np.zeros(0, np.int64)
    assert sample.explained(METHODS[DEFAULT], none, none, show).shape == (0, 2, 3)
