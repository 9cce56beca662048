import json
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.unit.use.explain.anatomy.models import VARIANTS, make_model, sample_of
from tests.unit.use.report.test_page import Page

from vitreous.cli.look.explain import show_model
from vitreous.errors import ConfigError, DataError, RunError, SaveError
from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.explain.anatomy.anatomy import ModelAnatomy, explain_model, place_of
from vitreous.use.explain.anatomy.captions import CAPTIONS
from vitreous.use.explain.anatomy.figures import draw_path
from vitreous.use.explain.anatomy.image_parts import of_classes, of_map, of_nearest
from vitreous.use.explain.anatomy.parts import observe_all, of_removal, of_tokens, of_weights
from vitreous.use.report.page import write_report
from vitreous.use.run import Run


@pytest.fixture(scope="module")
def found(run: Run) -> ModelAnatomy:
    return run.explain_model()


@pytest.fixture(scope="module")
def saved(found: ModelAnatomy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return found.save(tmp_path_factory.mktemp("anatomy") / "new" / "folder")


def test_every_part_has_a_caption_in_the_order_of_the_page(found: ModelAnatomy) -> None:
    assert [part.name for part in found.parts] == list(CAPTIONS)
    assert all(part.finding and part.numbers is not None for part in found.parts)


def test_the_accuracy_is_that_of_the_evaluation(run: Run, found: ModelAnatomy) -> None:
    numbers = found["removal"].numbers
    score = run.evaluate().score
    assert numbers["num_images"] == score.num_images
    assert numbers["accuracy"] == pytest.approx(score.accuracy)


def test_pictures_page_and_numbers_are_in_the_folder(found: ModelAnatomy, saved: Path) -> None:
    pictures = [part.name for part in found.parts if part.figure is not None]
    assert {file.name for file in saved.parent.iterdir()} == {
        "anatomy.html", "model.json", *(f"{name}.png" for name in pictures)
    }  # fmt: skip
    for name in pictures:
        with Image.open(saved.parent / f"{name}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_page_is_self_contained_and_escapes_names(found: ModelAnatomy, saved: Path) -> None:
    html = saved.read_text(encoding="utf-8")
    page = Page(html)
    assert not {"link", "iframe", "b&"} & {tag for tag, _ in page.tags}
    scripts = [attrs for tag, attrs in page.tags if tag == "script"]
    assert scripts == [{}]  # the page's own, which its policy allows by its hash
    sources = [value for _, attrs in page.tags for name, value in attrs.items()
               if name.endswith(("href", "src")) and not (value or "").startswith("#")]  # fmt: skip
    assert len(sources) == sum(part.figure is not None for part in found.parts)
    assert all(value and value.startswith("data:image/png;base64,") for value in sources)
    with_figure = {part.name for part in found.parts if part.figure is not None}
    for name, caption in CAPTIONS.items():
        assert (escape(caption.shown) in html) == (name in with_figure)
        assert escape(caption.source) in html


def test_json_has_all_findings_and_no_nan(found: ModelAnatomy, saved: Path, run: Run) -> None:
    def refuse(name: str) -> None:
        raise ValueError(name)

    stored = json.loads((saved.parent / "model.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert stored == json.loads(json.dumps(found.as_dict()))
    assert [part["finding"] for part in stored["parts"].values()] == [part.finding for part in found.parts]
    assert set(stored["parts"]["classes"]) - {"finding"} <= {"Äpfel", '<b>&"', "two words"}
    assert len(stored["parts"]["map"]["images"]) == run.metrics["test"]["num_images"]


def test_the_same_run_gives_the_same_numbers(run: Run, found: ModelAnatomy) -> None:
    assert run.explain_model().as_dict() == found.as_dict()


def test_the_report_of_a_run_has_a_link_once_the_page_is_in_its_folder(own_run: Run, found: ModelAnatomy) -> None:
    def links() -> list[str | None]:
        write_report(RunFolder(own_run.path))
        page = Page((own_run.path / "report.html").read_text(encoding="utf-8"))
        return [attrs["href"] for tag, attrs in page.tags if tag == "a" and not str(attrs["href"]).startswith("#")]

    assert links() == []
    own = ModelAnatomy(str(own_run.path), found.data, found.parts)
    assert own.save() == own_run.path / "anatomy" / "anatomy.html"
    assert links() == ["anatomy/anatomy.html"]
    assert (own_run.path / str(links()[0])).is_file()
    with pytest.raises(RunError, match=r"^out=.*anatomy: exists and is not empty; choose another folder$"):
        own.save()


def test_training_images_are_the_neighbors_and_held_out_images_the_queries(found: ModelAnatomy) -> None:
    held_out = set(found["map"].numbers["images"])
    for query in found["nearest"].numbers["queries"]:
        assert query["image"] in held_out
        assert not held_out & set(query["nearest"])
        assert (np.diff(query["cosine"]) <= 1e-9).all()


def test_a_run_without_held_out_images_shows_its_weights_and_says_why_the_rest_is_missing(blind_run: Run) -> None:
    found = blind_run.explain_model()
    assert [part.name for part in found.parts if part.numbers is not None] == ["filters", "positions"]
    reason = (
        "needs images: my photos: the run has no test or validation images; give labeled images: `vitreous explain "
    )
    assert found["removal"].finding.startswith(reason)


def test_a_model_file_takes_the_labeled_images_that_are_given(lone_model: Path, photos: Path, tmp_path: Path) -> None:
    found = Run(lone_model).explain_model(photos)
    assert found.data == "all of my photos: 72 images"
    assert found["nearest"].numbers is None
    assert "is a model file" in found["nearest"].finding
    assert found["classes"].numbers is not None
    with pytest.raises(ConfigError, match=r"^out=None: .* is a model file and not a run folder; give a folder"):
        found.save()
    assert found.save(tmp_path / "out").is_file()


def test_classes_of_other_data_are_those_of_the_model_by_name(run: Run, photos: Path, tmp_path: Path) -> None:
    for name in ("two words", "Äpfel"):  # the model has a third class, which comes first
        shutil.copytree(photos / name, tmp_path / "some" / name)
    found = run.explain_model(tmp_path / "some")
    classes = found["classes"].numbers or {}
    assert set(classes) == {"two words", "Äpfel"}
    assert all(Path(patch["image"]).parent.name == name for name, patches in classes.items() for patch in patches)
    assert found["removal"].numbers is not None
    assert found["removal"].numbers["accuracy"] == pytest.approx(run.evaluate(tmp_path / "some").score.accuracy)


def test_other_classes_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(photos / "two words", tmp_path / "others" / "three words")
    shutil.copytree(photos / "two words", tmp_path / "others" / "two words")
    with pytest.raises(DataError, match="class three words is unknown to the model; did you mean two words"):
        explain_model(run.path, str(tmp_path / "others"))


@pytest.mark.slow
def test_the_command_prints_every_finding_and_the_page(
    run: Run, found: ModelAnatomy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_model(run.path, out=tmp_path / "out", device="cpu")
    printed = capsys.readouterr().out
    for part in found.parts:
        assert part.finding in printed
    assert printed.rstrip().endswith(str(tmp_path / "out" / "anatomy.html"))
    with pytest.raises(RunError, match="exists and is not empty"):
        show_model(run.path, out=tmp_path / "out", device="cpu")
    show_model(run.path, out=tmp_path / "json", device="cpu", as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.as_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_has_each_part_or_says_why_not(variant: str, tmp_path: Path) -> None:
    model = make_model(**VARIANTS[variant])
    labels = np.array([0, 1, 1, 4, 3, 3, 0])
    classes = ("a", "b", "c", "$d", "e_$")
    sample, train = sample_of(model, labels, classes), sample_of(model, labels[::-1].copy(), classes)
    seen = observe_all(sample, ignore)
    parts = [
        *of_weights(model),
        *of_tokens(seen, sample),
        of_removal(sample, ignore),
        of_map(seen, sample),
        of_nearest(seen, sample, train, ignore),
        of_classes(sample, ignore),
    ]
    assert [part.name for part in parts] == list(CAPTIONS)
    without = [part.name for part in parts if part.numbers is None]
    expected = {"one patch": ["positions", "attention", "similarity", "outliers"]}
    no_table = model.config.position != "learned"
    assert without == expected.get(variant, ["positions"] if no_table else [])
    for part in parts:
        if variant in ("13 channels", "2 channels", "one block", "one patch"):
            part.save(tmp_path / part.name)
            assert (tmp_path / part.name).exists() is (part.figure is not None)


@pytest.mark.parametrize("names", [("_noise_", "cat"), ("_noise_", "_silence_")])
def test_legend_has_classes_whose_names_begin_with_an_underscore(names: tuple[str, str]) -> None:
    points = np.random.default_rng(0).random((4, 3, 2))
    legend = draw_path(points, np.array([0.5, 0.4]), np.array([0, 0, 1, 1]), names).axes[0].get_legend()
    assert legend is not None
    assert [text.get_text().strip() for text in legend.get_texts()] == list(names)


def test_a_model_on_the_hub_is_named_as_the_user_wrote_it() -> None:
    with pytest.raises(ConfigError, match=r"^out=None: hf://someone/model is a model file"):
        place_of(Path("hf://someone/model"), None)


def test_folder_that_cannot_be_created_is_one_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"/file/page: cannot be created \(.*\); choose another folder$"):
        ModelAnatomy(str(run.path), "photos", ()).save(tmp_path / "file" / "page" / "new")


def test_images_with_several_labels_have_each_part() -> None:
    model = make_model()
    labels = np.random.default_rng(0).random((9, 5)) < 0.4
    labels[3] = False
    sample = sample_of(model, labels)
    seen = observe_all(sample, ignore)
    parts = [
        of_nearest(seen, sample, sample, ignore),
        of_removal(sample, ignore),
        of_map(seen, sample),
        of_classes(sample, ignore),
        *of_tokens(seen, sample),
    ]
    assert all(part.figure is not None or part.name == "outliers" for part in parts)
    names = {query["true"] for query in parts[0].numbers["queries"]}
    assert any(" and " in name or "," in name for name in names)
