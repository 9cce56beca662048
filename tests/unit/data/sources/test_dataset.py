import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.unit.data.sources.builders import PIXELS, check_pixels, error_of, png
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import load_store
from vitreous.data.sources import DatasetSource, Source, open_object, open_source
from vitreous.data.survey.facts import survey
from vitreous.errors import DataNotFoundError, DecodeError

TENSORS = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)


class Pairs(Dataset[Any]):
    """A data set as users write it."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        return self.images[index], self.labels[index]


def refusal(dataset: Any) -> str:
    return error_of(lambda: open_object(dataset))


@pytest.mark.parametrize(
    "images",
    [
        list(PIXELS),
        TENSORS,
        TENSORS.float() / 255,
        [image.transpose(2, 0, 1) for image in PIXELS],
        [Image.fromarray(image) for image in PIXELS],
    ],
    ids=["HWC arrays", "CHW tensors", "float tensors", "CHW arrays", "PIL"],
)
def test_images_of_any_type_are_the_same_samples(images: Any) -> None:
    source = open_object(Pairs(images, [0, 1, 2] * 4))
    assert isinstance(source, DatasetSource)
    assert (source.name, source.classes, set(source.splits)) == ("Pairs", ("0", "1", "2"), {""})
    np.testing.assert_array_equal(source.labels, [0, 1, 2] * 4)
    check_pixels(source, PIXELS)
    header = source.header(5, source.content(5))
    assert (header.height, header.width, header.is_gray) == (9, 7, False)
    assert survey(source).facts.fingerprint == survey(open_object(Pairs(list(PIXELS), [0, 1, 2] * 4))).facts.fingerprint


def test_tensors_without_a_type_of_numpy_are_read_or_skipped() -> None:
    whole = TENSORS[:, :, :, :6].to(torch.bfloat16)  # holds all whole numbers up to 256
    source = open_object(Pairs([*whole[:11], whole[11].to_sparse()], [0, 1] * 6))
    np.testing.assert_array_equal(source.encoded(5), PIXELS[5, :, :6])
    surveyed = survey(source, test_ratio=0.0, val_ratio=0.0).facts
    assert (surveyed.num_train, [where for where, _ in surveyed.skipped]) == (11, ["Pairs[11]"])


@pytest.mark.parametrize("images", [PIXELS[..., 0], TENSORS[:, :1], TENSORS[:, 0].float() / 255])
def test_gray_images_stay_gray(images: Any) -> None:
    facts = survey(open_object(Pairs(images, [0, 1] * 6))).facts
    assert (facts.in_chans, facts.height_px, facts.width_px) == (1, 9, 7)


def test_paths_and_bytes_of_image_files_are_images(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i} ä.png" for i in range(3)]
    for path, image in zip(paths, PIXELS, strict=False):
        path.write_bytes(png(image))
    given = [str(paths[0]), paths[1], paths[2].read_bytes()]
    source = open_object(Pairs(given, ["x", "y", "x"]))
    check_pixels(source, PIXELS[:3])
    assert [source.content(index) for index in range(3)] == [path.read_bytes() for path in paths]
    paths[1].unlink()
    with pytest.raises(DecodeError, match=r"^Pairs\[1\]: .*1 ä\.png: No such file or directory$"):
        source.content(1)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["süß", "a b", "süß"], ("a b", "süß"), [1, 0, 1]),
        ([7, 3, 12], ("3", "7", "12"), [1, 0, 2]),
        (torch.tensor([1, 0, 1]), ("0", "1"), [1, 0, 1]),
        (np.array([[2], [0], [2]]), ("0", "2"), [1, 0, 1]),
        ([np.int32(1), np.uint8(0), True], ("0", "1"), [1, 0, 1]),
    ],
)
def test_labels_are_numbers_or_names(labels: Any, classes: tuple[str, ...], numbers: list[int]) -> None:
    source = open_object(Pairs(PIXELS, labels))
    assert source.classes == classes
    np.testing.assert_array_equal(source.labels, numbers)


def test_classes_have_the_names_that_the_set_gives() -> None:
    dataset = Pairs(PIXELS, [2, 0, 2])
    dataset.classes = ["cat", "dog", "owl"]  # type: ignore[attr-defined]
    source = open_object(dataset)
    assert (source.classes, source.labels.tolist()) == (("cat", "dog", "owl"), [2, 0, 2])
    dataset.labels = ["owl", "cat", "owl"]
    assert open_object(dataset).labels.tolist() == [2, 0, 2]


def test_class_indices_are_those_of_the_set_that_has_them() -> None:
    train, val = Pairs(PIXELS, [0, 1, 2]), Pairs(PIXELS, [0, 1])
    train.classes, val.classes = ["cat", "dog", "owl"], ("cat", "owl")  # type: ignore[attr-defined]
    source = open_object((train, val))
    assert (source.classes, source.labels.tolist()) == (("cat", "dog", "owl"), [0, 1, 2, 0, 2])
    val.classes = ["cat", "fox"]  # type: ignore[attr-defined]
    assert refusal((train, val)) == "data=Pairs: label='fox': not one of the 3 classes; use one of cat, dog, owl"


def test_images_are_not_read_for_labels_if_there_are_targets() -> None:
    requested = []

    class Counting(Pairs):
        targets = (0, 1) * 6

        def __getitem__(self, index: int) -> Any:
            requested.append(index)
            return super().__getitem__(index)

    many = Counting(np.concatenate([PIXELS] * 20), [0, 1] * 120)
    many.targets = (0, 1) * 120
    assert open_object(many).labels.tolist() == [0, 1] * 120
    assert len(set(requested)) < 24  # the first are read twice, to find random transforms, and some for their labels
    requested.clear()

    class Changed(Counting):
        target_transform = staticmethod(lambda target: 1 - target)

    assert open_object(Changed(PIXELS, [1, 0] * 6)).labels.tolist() == [1, 0] * 6
    assert set(requested) == set(range(12))


def test_labels_that_indexing_returns_count_if_the_targets_are_others() -> None:
    class Merged(Pairs):
        """A subclass with fewer classes than the set that it reads."""

        targets = (0,) * 8 + (1, 2, 3, 3)

        def __getitem__(self, index: int) -> Any:
            return self.images[index], self.targets[index] // 2

    assert open_object(Merged(PIXELS, [0] * 12)).labels.tolist() == [0] * 9 + [1] * 3


@pytest.mark.parametrize("kind", ["tuple", "dictionary"])
def test_tuples_and_dictionaries_become_splits(kind: str) -> None:
    train, val, test = (Pairs(PIXELS[start:], [0, 1, 2] * 4) for start in (0, 0, 0))
    train.labels, val.labels, test.labels = [0, 1, 2, 0, 1], [0, 1], [2, 1, 0]
    given: Any = (train, val, test) if kind == "tuple" else {"Validation": val, "train": train, "testing": test}
    source = open_object(given)
    assert list(source.splits) == ["train"] * 5 + ["val"] * 2 + ["test"] * 3
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 1, 0]
    assert (source.describe(0), source.describe(6), source.describe(9)) == (
        "Pairs train[0]", "Pairs val[1]", "Pairs test[2]",
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(source.image(6)), PIXELS[1])


def test_datasets_of_torch_and_plain_lists_are_accepted() -> None:
    tensors = TensorDataset(TENSORS, torch.tensor([0, 1, 2] * 4))
    assert open_object(tensors).classes == ("0", "1", "2")
    assert len(open_object(Subset(tensors, [1, 2, 5]))) == 3
    assert open_object(list(zip(PIXELS, "ab" * 6, strict=True))).classes == ("a", "b")  # type: ignore[arg-type]


def test_unreadable_samples_are_skipped_and_named() -> None:
    class Failing(Pairs):
        targets = (0, 1) * 6

        def __getitem__(self, index: int) -> Any:
            if index == 9:
                raise KeyError("lost")
            return super().__getitem__(index)

    images = [*PIXELS]
    images[10] = "gone.png"
    images[11] = np.full((9, 7, 3), np.nan, np.float32)
    surveyed = survey(open_object(Failing(images, [0, 1] * 6)), test_ratio=0.0, val_ratio=0.0)
    reasons = dict(surveyed.facts.skipped)
    assert reasons["Failing[9]"] == "KeyError: 'lost'"
    assert reasons["Failing[10]"] == "gone.png: No such file or directory"
    assert reasons["Failing[11]"] == "values that are not finite"
    assert surveyed.facts.num_train == 9


def test_only_one_thread_at_a_time_reads_from_a_set() -> None:
    class NotThreadSafe(Pairs):
        inside = 0

        def __getitem__(self, index: int) -> Any:
            self.inside += 1
            if self.inside > 1:
                raise RuntimeError("two at once")
            found = super().__getitem__(index)
            self.inside -= 1
            return found

    many = np.concatenate([PIXELS] * 20)
    many[:, 0, 0, 0] = np.arange(len(many)) % 256
    source = open_object(NotThreadSafe(many, [0, 1] * 120))
    store = load_store(source, np.arange(240), Preprocess((9, 7), 3))
    assert (len(store), store.skipped) == (240, ())
    np.testing.assert_array_equal(store.take(np.array([239]))[0].permute(1, 2, 0).numpy(), many[239])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield PIXELS[0], 0


class Augmented(Pairs):
    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return np.roll(image, random.randrange(1, 9), axis=0), label


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "data=Stream: has no len() or cannot be indexed; use a set of (image, label) pairs that has both, "),
        (7, "data=int: has no len() or cannot be indexed; use a set of (image, label) pairs that has both, not a st"),
        (Pairs([], []), "data=Pairs: is empty; use a set with (image, label) pairs"),
        (Pairs(PIXELS, [0.5, 1.5]), "data=Pairs: sample 0: label=0.5: neither a class index nor a class name; return "),
        (Pairs(PIXELS, [{"a": 1}] * 2), "data=Pairs: sample 0: label={'a': 1}: neither a class index nor a class name"),
        (Pairs(PIXELS, [0, "a"]), "data=Pairs: labels 0 and 'a' mix numbers and names; use either class indices or "),
        (Pairs(PIXELS, [4, 4]), "data=Pairs: only one class, '4'; a classifier needs two, so add images of another"),
        (Pairs(PIXELS[:1], [0, 1]), "data=Pairs: sample 1 cannot be read (IndexError: "),
        (list(PIXELS), "data=list: sample 0 is of type ndarray, not a pair; return (image, label)"),
        ([{"image": 1, "label": 2}], "data=list: sample 0 is of type dict, not a pair; return (image, label)"),
        ((), "data: a tuple of 0 sets; use (train, val) or (train, val, test)"),
        (({},) * 4, "data: a tuple of 4 sets; use (train, val) or (train, val, test)"),
        ({"val": [1]}, "data={val}: keys must be different splits and include train; use train, val and test"),
        ({"train": [1], "extra": [1]}, "data={train, extra}: keys must be different splits and include train; use "),
        (Augmented(PIXELS, [0, 1] * 6), "is a different image each time it is read; remove the random transforms, sin"),
    ],
)  # fmt: skip
def test_object_that_is_not_a_set_of_pairs_is_refused(dataset: Any, message: str) -> None:
    assert message in refusal(dataset)


def test_label_that_is_not_a_class_is_refused() -> None:
    dataset = Pairs(PIXELS, [0, 3])
    dataset.classes = ["cat", "dog", "owl"]  # type: ignore[attr-defined]
    assert refusal(dataset) == "data=Pairs: label=3: not one of the 3 classes; use 0 to 2"
    dataset.labels = ["cat", "dgo"]
    assert refusal(dataset) == "data=Pairs: label='dgo': not one of the 3 classes; did you mean dog?"


def test_name_of_an_object_from_python_cannot_be_opened() -> None:
    with pytest.raises(DataNotFoundError) as caught:
        open_source("python:Pairs")
    assert str(caught.value) == (
        "data.source=python:Pairs: was passed from Python and is not stored in a file; pass it again: "
        "vitreous.train(dataset, resume=run) or run.evaluate(dataset)"
    )


def test_opened_object_is_a_source() -> None:
    assert isinstance(open_object(Pairs(PIXELS, [0, 1] * 6)), Source)


@pytest.mark.parametrize(
    "labels",
    [
        [["cat", "dog"], ["dog"], [], ["owl"]] * 3,
        [{"dog", "cat"}, ("dog",), set(), frozenset({"owl"})] * 3,
    ],
    ids=["lists", "sets"],
)
def test_lists_of_names_are_several_labels_per_image(labels: Any) -> None:
    source = open_object(Pairs(PIXELS, labels))
    assert source.classes == ("cat", "dog", "owl")
    np.testing.assert_array_equal(source.labels, [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]] * 3)
    assert source.task_reason == "Pairs returns a list of labels per image"


@pytest.mark.parametrize("convert", [list, np.array, torch.tensor], ids=["lists", "arrays", "tensors"])
def test_arrays_of_zeros_and_ones_are_several_labels_per_image(convert: Any) -> None:
    rows = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]] * 3
    source = open_object(Pairs(PIXELS, [convert(row) for row in rows]))
    assert source.classes == ("0", "1", "2")
    np.testing.assert_array_equal(source.labels, rows)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[1, 0, 0], [0, 2, 1]], "data=Pairs: sample 1: label=[0, 2, 1]: is not 0 or 1 for each of 3 classes; return "),
        ([[1, 0, 0], [0, 1]], "data=Pairs: sample 1: label=[0, 1]: is not 0 or 1 for each of 3 classes; return these"),
        (
            [["cat;dog"], ["owl"]],
            "data=Pairs: label 'cat;dog': contains ; or |, or begins or ends in a blank; rename it",
        ),
        ([[], []], "data=Pairs: none of 2 images has a label; label some of them"),
        ([[0, 0], [0, 0]], "data=Pairs: none of 2 images has a label; label some of them"),
        ([["cat"], "dog"], "data=Pairs: some samples have one label, others a list of labels; use lists for all"),
    ],
)
def test_lists_that_are_no_sets_of_labels_are_refused(labels: Any, message: str) -> None:
    assert refusal(Pairs(PIXELS, labels)).startswith(message)
