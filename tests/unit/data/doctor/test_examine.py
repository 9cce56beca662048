"""examine and brief: every planted fault is found, and clean photos have no findings."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from tests.unit.data.doctor.conftest import photo

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.doctor import examine as examine_module
from vitreous.data.doctor.copies import join_copies
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


CLASSES = ("hat", "pants", "shirt")


def plant_faults(clean: Path, out: Path) -> Path:
    """Copy a folder of photos in train/ and test/ and add one fault of each kind."""
    root = Path(shutil.copytree(clean, out))
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
    photo(999).resize((1500, 1500)).save(root / "train" / "pants" / "huge.jpg")
    return root


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated photos of three classes, 14 each for training and 6 for testing, without any fault."""
    root = tmp_path_factory.mktemp("clean") / "photos"
    seed = 0
    for split, count in (("train", 14), ("test", 6)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                photo(seed).save(root / split / name / f"{number:02}.jpg", quality=95)
                seed += 1
    return root


@pytest.fixture(scope="module")
def faulty(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos with one fault of each kind."""
    return plant_faults(clean, tmp_path_factory.mktemp("faulty") / "photos")


@pytest.fixture(scope="module")
def examined(faulty: Path) -> Examination:
    return examine(survey(open_source(faulty), val_ratio=0.0))


def test_clean_photos_have_no_findings(clean: Path) -> None:
    assert examine(survey(open_source(clean), val_ratio=0.0)).findings == ()


def test_planted_faults_are_all_that_is_found(examined: Examination) -> None:
    kinds = {finding.kind for finding in examined.findings}
    assert kinds == {
        "copies-across-splits", "copies-across-classes", "near-copies", "exact-copies", "unreadable", "constant",
        "far-larger",
    }  # fmt: skip


def test_copy_of_a_training_image_in_the_test_split_is_found(examined: Examination, faulty: Path) -> None:
    leak = _finding(examined, "copies-across-splits")
    assert _names(leak, faulty) == [["test/hat/leaked.webp", "train/hat/00.jpg"]]
    assert leak.title == "1 test image is a copy of a training image"
    assert (
        leak.detail
        == "It is a near-duplicate (re-encoded, resized, brightened or cropped), so test accuracy is optimistic."
    )


def test_copy_in_another_class_is_found(examined: Examination, faulty: Path) -> None:
    conflict = _finding(examined, "copies-across-classes")
    assert _names(conflict, faulty) == [["train/hat/01.jpg", "train/shirt/hat in shirts.png"]]
    assert conflict.detail == "1 group of copies in the classes 'hat / shirt'; at most one label per group is right."


def test_copies_within_a_class_are_found(examined: Examination, faulty: Path) -> None:
    assert _names(_finding(examined, "near-copies"), faulty) == [
        ["train/shirt/00.jpg", "train/shirt/again, brighter.jpg"]
    ]
    assert _names(_finding(examined, "exact-copies"), faulty) == [["train/shirt/01.jpg", "train/shirt/the same.jpg"]]


def test_unreadable_files_are_found(examined: Examination, faulty: Path) -> None:
    names = [name for (name,) in _names(_finding(examined, "unreadable"), faulty)]
    assert names == ["train/pants/cut.jpg", "train/pants/text.jpg", "train/pants/zero.jpg"]
    assert examined.numbers["num_unreadable"] == 3


def test_blank_image_is_found(examined: Examination, faulty: Path) -> None:
    assert _names(_finding(examined, "constant"), faulty) == [["train/pants/black.png"]]


def test_photo_that_was_not_downscaled_is_found(examined: Examination, faulty: Path) -> None:
    assert _names(_finding(examined, "far-larger"), faulty) == [["train/pants/huge.jpg"]]


def test_numbers_add_up_and_can_be_written_as_json(examined: Examination) -> None:
    document = json.loads(json.dumps(examined.as_dict()))
    count = document["num_images"]
    assert count == len(examined.summaries) == 60 + 6
    assert sum(sum(splits.values()) for splits in document["class_images"].values()) == count
    for name in ("shorter_side_px", "width_by_height", "kinds", "color", "brightness"):
        assert sum(document[name].values()) == count, name
    assert {finding["kind"] for finding in document["findings"]} >= {"constant", "unreadable"}


def test_faults_rank_above_warnings_and_notes(examined: Examination) -> None:
    kinds = [finding.kind for finding in examined.findings]
    assert kinds.index("copies-across-splits") < kinds.index("constant") < kinds.index("far-larger")


# Real photos: the test and validation photos of clothing-96px as train and test.


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    original = Path(__file__).parents[5] / "shared" / "data" / "clothing-96px"
    if not original.exists():
        pytest.skip(f"needs {original}, which is not part of the project")
    shutil.copytree(original / "test", tmp_path / "clothes" / "train")
    shutil.copytree(original / "validation", tmp_path / "clothes" / "test")
    return tmp_path / "clothes"


def test_clean_real_photos_have_no_copies_and_no_unreadable_files(clothes: Path) -> None:
    kinds = {finding.kind for finding in examine(survey(open_source(clothes))).findings}
    assert kinds <= {"drift", "uneven-classes", "odd-aspect", "doubtful-labels", "few-images"}


def test_faults_planted_in_real_photos_are_found(clothes: Path, tmp_path: Path) -> None:
    root = plant_faults(clothes, tmp_path / "faulty")
    examined = examine(survey(open_source(root), val_ratio=0.0))
    hat = sorted((root / "train" / "hat").iterdir())[0].name
    assert _names(_finding(examined, "copies-across-splits"), root) == [["test/hat/leaked.webp", f"train/hat/{hat}"]]
    (conflict,) = _names(_finding(examined, "copies-across-classes"), root)
    (near,) = _names(_finding(examined, "near-copies"), root)
    (exact,) = _names(_finding(examined, "exact-copies"), root)
    assert "train/shirt/hat in shirts.png" in conflict
    assert "train/shirt/again, brighter.jpg" in near
    assert "train/shirt/the same.jpg" in exact
    assert len(_finding(examined, "unreadable").samples) == 3
    assert ["train/pants/black.png"] in _names(_finding(examined, "constant"), root)
    assert ["train/pants/huge.jpg"] in _names(_finding(examined, "far-larger"), root)


# Small sets.


def test_progress_of_every_stage_is_shown_to_its_end(make_arrays: MakeArrays) -> None:
    seen: dict[str, tuple[int, int]] = {}
    examine(survey(make_arrays(9, 8)), show=lambda what, done, total: seen.update({what: (done, total)}))
    assert seen == {"decoding": (17, 17), "comparing": (17, 17), "judging labels": (17, 17)}


def test_histograms_have_no_empty_ends_and_an_edge_counts_upward() -> None:
    assert examine_module._histogram(np.array([16, 40, 200]), (8, 16, 32, 64, 128, 256, 512), "px") == {
        "16 to 32 px": 1, "32 to 64 px": 1, "64 to 128 px": 0, "128 to 256 px": 1,
    }  # fmt: skip
    assert examine_module._histogram(np.array([0.2, 4.0]), (1 / 3, 4.0), "") == {
        "below 0.33": 1, "0.33 to 4": 0, "4 and more": 1,
    }  # fmt: skip
    assert examine_module._histogram(np.array([]), (8, 16), "px") == {}


def test_features_of_a_model_judge_the_labels(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 30, "b": 30})
    (root / "a" / "4.png").write_bytes(b"no image")
    surveyed = survey(open_source(root))
    labels = surveyed.source.labels
    values = np.stack([labels, 1 - labels], axis=1) + np.random.default_rng(0).normal(0, 0.05, (60, 2))
    values[17] = values[45]  # to the model, image 17 looks like class b
    features = Features(values.astype(np.float32), np.arange(60), "the features of a model")
    found = _finding(examine(surveyed, features=features), "doubtful-labels")
    assert [sample.index for (sample,) in found.samples] == [17]
    assert "the features of a model" in found.detail


def test_labels_of_tiny_sets_are_not_judged(make_arrays: MakeArrays) -> None:
    found = examine(survey(make_arrays(2, 1)))
    assert found.numbers["labels"]["verdict"] == "not judged: too few images in each class"
    assert found.numbers["labels"]["accuracy"] is None


def test_set_without_readable_images_is_an_error(make_folder: MakeFolder) -> None:
    root = make_folder({"a": 2, "b": 2})
    for path in sorted(root.rglob("*.png")):
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError) as caught:
        examine(survey(open_source(root)))
    assert str(caught.value).startswith(
        f"data.source=set: none of its 4 images can be decoded (first: {root}/a/0.png: "
    )
    assert str(caught.value).endswith("); replace them")


# The check before training.


def _stores(surveyed: Survey) -> dict[str, Store]:
    preprocess = Preprocess((6, 8), surveyed.facts.in_chans)
    return {
        split: load_store(surveyed.source, members, preprocess)
        for split, members in surveyed.indices.items()
        if len(members)
    }


def test_copies_are_reported_before_training(make_arrays: MakeArrays) -> None:
    source = make_arrays(12, 12, channels=3)
    source.images[15] = (source.images[2] * 0.8).astype(np.uint8)
    surveyed = survey(source)
    sentences = brief(surveyed, _stores(surveyed))
    assert any("2 images are copies of each other but have different labels" in sentence for sentence in sentences)
    assert sentences[-1] == "`vitreous inspect` lists these images, and with --html FILE shows them"


def test_ordinary_set_has_nothing_to_report_before_training(make_arrays: MakeArrays) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    assert brief(surveyed, _stores(surveyed)) == ()
    assert brief(surveyed, {}) == ()


@pytest.mark.parametrize("limit", ["MOST_AT_START", "MOST_BYTES_AT_START"])
def test_large_sets_are_not_checked_before_training(
    limit: str, make_arrays: MakeArrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    monkeypatch.setattr(examine_module, limit, 20)
    (sentence,) = brief(surveyed, _stores(surveyed))
    assert sentence == (
        "24 images were not checked for copies, which would delay training; use `vitreous inspect` for that"
    )


def test_images_outside_memory_are_not_decoded_again(make_arrays: MakeArrays) -> None:
    surveyed = survey(make_arrays(12, 12, channels=3))
    stores = {
        "train": LazyStore(surveyed.source, Preprocess((6, 8), 3), surveyed.indices["train"]),
    }
    (sentence,) = brief(surveyed, stores)
    assert sentence.endswith("use `vitreous inspect` for that")


@pytest.mark.parametrize("given", [True, False])
def test_labels_are_judged_by_images_of_other_patients(make_arrays: MakeArrays, given: bool) -> None:
    """Features identify patients, each of whom has a class by chance: nothing can be learned from other patients."""
    draw, patients, source = np.random.default_rng(0), np.repeat(np.arange(40), 4), make_arrays(80, 80)
    source.labels = draw.permutation(np.arange(40) % 2)[patients]
    source.groups = np.array([f"p{number}" for number in patients]) if given else None
    values = draw.normal(size=(40, 60))[patients] + 0.01 * draw.normal(size=(160, 60))
    features = Features(values.astype(np.float32), np.arange(160), "the features of a model")
    accuracy = examine(survey(source, val_ratio=0.0), features=features).numbers["labels"]["accuracy"]
    assert accuracy < 0.7 if given else accuracy > 0.9


def test_copies_are_joined_with_families() -> None:
    families = np.array([0, 1, 2, 2, 3, 4, 5])
    assert join_copies(families, (np.array([0, 2]), np.array([4, 5]))).tolist() == [0, 1, 0, 0, 2, 2, 3]
    assert join_copies(families, ()).tolist() == families.tolist()
