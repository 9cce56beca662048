"""examine and brief: each fault that is planted in real photos is named, and clean ones are left in peace."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor import examine as check
from vitreous.data.doctor.examine import Examination, Features, brief, examine
from vitreous.data.doctor.findings import Finding
from vitreous.data.pixels.store import LazyStore, Store, load_store
from vitreous.data.sources import ArraySource, open_source
from vitreous.data.survey.facts import Survey, survey
from vitreous.errors import DataError

MakeFolder = Callable[[Mapping[str, int]], Path]
MakeArrays = Callable[..., ArraySource]


def _finding(examination: Examination, kind: str) -> Finding:
    (found,) = [finding for finding in examination.findings if finding.kind == kind]
    return found


def _names(finding: Finding, root: Path) -> list[list[str]]:
    groups = [[Path(s.where).relative_to(root).as_posix() for s in group] for group in finding.samples]
    return sorted(sorted(group) for group in groups)


@pytest.fixture(scope="module")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test and validation photos of clothing-96px as train and test, to plant faults in."""
    original = Path(__file__).parents[5] / "shared" / "data" / "clothing-96px"
    if not original.exists():
        pytest.skip(f"needs {original}, which is no part of the project")
    root = tmp_path_factory.mktemp("clothes")
    shutil.copytree(original / "test", root / "train")
    shutil.copytree(original / "validation", root / "test")
    return root


@pytest.fixture(scope="module")
def faulty(clothes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one fault of each kind."""
    root = Path(shutil.copytree(clothes, tmp_path_factory.mktemp("faulty") / "clothes"))
    hats, shirts = (sorted((root / "train" / name).iterdir()) for name in ("hat", "shirt"))
    with Image.open(hats[0]) as image:
        image.save(root / "test" / "hat" / "leaked.webp", quality=70)
    with Image.open(hats[1]) as image:
        image.resize((image.width * 2, image.height * 2)).save(root / "train" / "shirt" / "hat in shirts.png")
    with Image.open(shirts[0]) as image:
        ImageEnhance.Brightness(image).enhance(1.2).save(root / "train" / "shirt" / "again, brighter.jpg", quality=60)
    shutil.copy(shirts[1], root / "train" / "shirt" / "the same.jpg")
    Image.new("RGB", (96, 128), (12, 13, 14)).save(root / "train" / "pants" / "black.png")
    (root / "train" / "pants" / "cut.jpg").write_bytes(shirts[2].read_bytes()[:900])
    (root / "train" / "pants" / "text.jpg").write_text("no image")
    (root / "train" / "pants" / "zero.jpg").touch()
    with Image.open(shirts[3]) as image:
        image.resize((1500, 1500)).save(root / "train" / "shoes" / "huge.jpg")
    return root


@pytest.fixture(scope="module")
def examined(faulty: Path) -> Examination:
    return examine(survey(open_source(faulty), val_ratio=0.0))


def test_clean_photos_have_no_copies_and_nothing_unreadable(clothes: Path) -> None:
    kinds = {finding.kind for finding in examine(survey(open_source(clothes))).findings}
    assert kinds <= {"drift", "uneven-classes", "odd-aspect", "doubtful-labels", "few-images"}


def test_copy_that_leaked_into_the_test_is_named(examined: Examination, faulty: Path) -> None:
    leak = _finding(examined, "copies-across-splits")
    hat = sorted((faulty / "train" / "hat").iterdir())[0].name
    assert _names(leak, faulty) == [["test/hat/leaked.webp", f"train/hat/{hat}"]]
    assert leak.title == "1 test image has a copy among the training images"


def test_copy_in_another_class_is_named(examined: Examination, faulty: Path) -> None:
    conflict = _finding(examined, "copies-across-classes")
    assert ["train/shirt/hat in shirts.png"] in [group[1:] for group in _names(conflict, faulty)]


def test_copies_within_a_class_are_named(examined: Examination, faulty: Path) -> None:
    (near,) = _names(_finding(examined, "near-copies"), faulty)
    (exact,) = _names(_finding(examined, "exact-copies"), faulty)
    assert near[-1] == "train/shirt/again, brighter.jpg" or near[0] == "train/shirt/again, brighter.jpg"
    assert "train/shirt/the same.jpg" in exact


def test_files_that_do_not_decode_are_named(examined: Examination, faulty: Path) -> None:
    names = [name for (name,) in _names(_finding(examined, "unreadable"), faulty)]
    assert names == ["train/pants/cut.jpg", "train/pants/text.jpg", "train/pants/zero.jpg"]
    assert examined.numbers["num_unreadable"] == 3


def test_image_that_shows_nothing_is_named(examined: Examination, faulty: Path) -> None:
    assert _names(_finding(examined, "constant"), faulty) == [["train/pants/black.png"]]


def test_forgotten_large_photo_is_named(examined: Examination, faulty: Path) -> None:
    assert ["train/shoes/huge.jpg"] in _names(_finding(examined, "far-larger"), faulty)


def test_numbers_add_up_and_are_plain_json(examined: Examination) -> None:
    told = json.loads(json.dumps(examined.as_dict()))
    count = told["num_images"]
    assert count == len(examined.looks)
    assert sum(sum(splits.values()) for splits in told["class_images"].values()) == count
    for name in ("shorter_side_px", "width_by_height", "kinds", "colour", "brightness"):
        assert sum(told[name].values()) == count, name
    assert {finding["kind"] for finding in told["findings"]} >= {"constant", "unreadable"}


def test_faults_stand_above_notes_of_as_many_images(examined: Examination) -> None:
    kinds = [finding.kind for finding in examined.findings]
    assert kinds.index("copies-across-splits") < kinds.index("constant") < kinds.index("far-larger")


# Small sets.


def test_everything_is_shown_to_its_end(make_arrays: MakeArrays) -> None:
    seen: dict[str, tuple[int, int]] = {}
    examine(survey(make_arrays(9, 8)), show=lambda what, done, total: seen.update({what: (done, total)}))
    assert seen == {"decoding": (17, 17), "comparing": (17, 17), "judging labels": (17, 17)}


def test_histograms_have_no_empty_ends_and_edges_belong_above() -> None:
    assert check._histogram(np.array([16, 40, 200]), (8, 16, 32, 64, 128, 256, 512), "px") == {
        "16 to 32 px": 1, "32 to 64 px": 1, "64 to 128 px": 0, "128 to 256 px": 1,
    }  # fmt: skip
    assert check._histogram(np.array([0.2, 4.0]), (1 / 3, 4.0), "") == {
        "below 0.33": 1, "0.33 to 4": 0, "4 and more": 1,
    }  # fmt: skip
    assert check._histogram(np.array([]), (8, 16), "px") == {}


def test_features_of_a_model_judge_the_images_that_they_are_of(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 30, "b": 30})
    (root / "a" / "4.png").write_bytes(b"no image")
    surveyed = survey(open_source(root))
    labels = surveyed.source.labels
    values = np.stack([labels, 1 - labels], axis=1) + np.random.default_rng(0).normal(0, 0.05, (60, 2))
    values[17] = values[45]  # what the model sees of image 17 is a b
    features = Features(values.astype(np.float32), np.arange(60), "the features of a model")
    found = _finding(examine(surveyed, features=features), "doubtful-labels")
    assert [sample.index for (sample,) in found.samples] == [17]
    assert "the features of a model" in found.detail


def test_sets_too_small_to_judge_are_examined_all_the_same(make_arrays: MakeArrays) -> None:
    found = examine(survey(make_arrays(2, 1)))
    assert found.numbers["labels"]["verdict"] == "not judged: too few images of each class"
    assert found.numbers["labels"]["accuracy"] is None


def test_images_of_which_none_decodes_are_an_error(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    for path in sorted(root.rglob("*.png")):
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError) as caught:
        examine(survey(open_source(root)))
    assert str(caught.value).startswith(f"data.source=set: none of 4 images decodes (the first, {root}/a/0.png: ")
    assert str(caught.value).endswith("); check them")


# At the start of a run.


def _stores(surveyed: Survey) -> dict[str, Store]:
    preprocess = Preprocess((6, 8), surveyed.facts.in_chans)
    return {
        split: load_store(surveyed.source, members, preprocess)
        for split, members in surveyed.indices.items()
        if len(members)
    }


def test_copies_are_told_before_training(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12, channels=3)
    source.images[15] = (source.images[2] * 0.8).astype(np.uint8)
    surveyed = survey(source)
    told = brief(surveyed, _stores(surveyed))
    assert any("2 images are copies of each other in different classes" in sentence for sentence in told)
    assert told[-1] == "`vitreous inspect` names these images, and with --html FILE shows them"


def test_an_ordinary_set_starts_without_a_word(make_arrays: MakeArrays) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    assert brief(surveyed, _stores(surveyed)) == ()
    assert brief(surveyed, {}) == ()


@pytest.mark.parametrize("limit", ["MOST_AT_START", "MOST_BYTES_AT_START"])
def test_too_many_images_are_left_to_inspect(
    limit: str, make_arrays: MakeArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    monkeypatch.setattr(check, limit, 20)
    (told,) = brief(surveyed, _stores(surveyed))
    assert told == "24 images are too many to look for copies at the start of a run; `vitreous inspect` does"


def test_images_that_are_not_in_memory_are_not_decoded_again(make_arrays: MakeArrays) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    stores = {
        "train": LazyStore(surveyed.source, Preprocess((6, 8), 3), surveyed.indices["train"]),
    }
    (told,) = brief(surveyed, stores)
    assert told.endswith("`vitreous inspect` does")
