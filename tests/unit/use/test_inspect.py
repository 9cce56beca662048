"""inspect: a run, a data set or a model's name."""

from pathlib import Path

import pytest
from torch import nn

from vitreous.errors import ConfigError, DamagedFileError, DataError, NotARunError, UnknownNameError
from vitreous.use.inspect import DataOptions, inspect
from vitreous.use.run import Run


def test_run_tells_its_data_classes_accuracy_and_model(run: Run) -> None:
    found = inspect(str(run.path))
    facts = dict(found.facts)
    assert (found.kind, found.title) == ("run", str(run.path))
    assert facts["data"] == "my photos"
    assert facts["classes"] == f"3: {', '.join(run.classes)}"
    accuracy = run.metrics["test"]["accuracy"]
    assert facts["test accuracy"].startswith(f"{100 * accuracy:.1f} % (95 % interval ")
    assert facts["parameters"] == f"{sum(p.numel() for p in run.predictor.model.parameters()):,}"
    assert facts["image"] == "3 x 8 x 12 px, 3 classes"
    assert found.details == run.metadata


def test_model_file_alone_tells_the_same_as_its_run(lone_model: Path, run: Run) -> None:
    assert inspect(str(lone_model)).facts == inspect(str(run.path)).facts


def test_folder_with_a_model_and_nothing_else_is_a_run(lone_model: Path) -> None:
    lone_model.rename(lone_model.parent / "model.safetensors")
    assert inspect(str(lone_model.parent)).kind == "run"


def test_table_of_a_model_adds_up_to_its_parameters(run: Run) -> None:
    heading, *rows = inspect(str(run.path)).table
    total = sum(int(row[heading.index("parameters")].replace(",", "")) for row in rows)
    assert f"{total:,}" == dict(inspect(str(run.path)).facts)["parameters"]


def test_data_tells_its_images_classes_and_sizes(photos: Path) -> None:
    found = inspect(str(photos))
    facts = dict(found.facts)
    assert (found.kind, found.title) == ("data", "my photos")
    assert facts["classes"].startswith("3, of ")
    assert facts["size"] == "median 9x14 px, all alike"
    assert facts["channels"] == "3"
    assert facts["unreadable files"] == "0"
    assert [row[0] for row in found.table] == ["class", '<b>&"', "two words", "Äpfel"]
    assert found.details["num_train"] == sum(int(row[1]) for row in found.table[1:])


def test_named_set_is_data() -> None:
    found = inspect("digits")
    assert (found.kind, found.title) == ("data", "digits")
    assert dict(found.facts)["channels"] == "1 (all images are gray)"


def test_unreadable_files_of_data_are_noted(tmp_path: Path, photos: Path) -> None:
    for name in ("Äpfel", "two words"):
        (tmp_path / "some" / name).mkdir(parents=True)
        for number in range(4):
            source = photos / name / f"bild {number} ü.png"
            (tmp_path / "some" / name / source.name).write_bytes(source.read_bytes())
    broken = tmp_path / "some" / "Äpfel" / "z.png"
    broken.write_bytes(b"no image")
    found = inspect(str(tmp_path / "some"))
    assert dict(found.facts)["unreadable files"] == "1"
    (unreadable,) = [finding for finding in found.findings if finding.kind == "unreadable"]
    assert [(sample.where, sample.remark) for (sample,) in unreadable.samples] == [
        (str(broken), "not an image that Pillow can read")
    ]


def test_everything_that_was_found_is_in_the_details(photos: Path) -> None:
    found = inspect(str(photos))
    assert found.findings
    assert [told["kind"] for told in found.details["findings"]] == [finding.kind for finding in found.findings]
    assert sum(found.histograms["shorter side"].values()) == 72


def test_run_judges_the_labels(photos: Path, run: Run) -> None:
    found = inspect(str(photos), options=DataOptions(run=run.path))
    assert found.details["labels"]["basis"] == f"the features of {run.path}"
    assert found.details["labels"]["num_judged"] == 72
    assert inspect(str(photos)).details["labels"]["basis"] == "thumbnails"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (DataOptions(html=Path("x.html")), "html=x.html: is for data, vit_tiny_patch16_224 is none; leave it out"),
        (DataOptions(run=Path("runs/a")), "run=runs/a: is for data, vit_tiny_patch16_224 is none; leave it out"),
        (DataOptions(root="b"), "root=b: is for the paths of a table, vit_tiny_patch16_224 is none; leave it out"),
    ],
)
def test_options_of_data_are_refused_for_a_model(options: DataOptions, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inspect("vit_tiny_patch16_224", options=options)
    assert str(caught.value) == line


def test_huge_model_is_described_without_allocating_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        assert parameter is None or parameter.is_meta, f"{name} is allocated"
        original(self, name, parameter)

    original = nn.Module.register_parameter
    monkeypatch.setattr(nn.Module, "register_parameter", refuse)
    found = inspect("vit_huge_patch14_224")
    facts = dict(found.facts)
    assert facts["parameters"] == "632,045,800"
    assert facts["tokens"] == "257, of which 1 prefix"
    assert (found.kind, found.details["parameters"]) == ("model", 632_045_800)


def test_work_of_a_tiny_model_is_not_rounded_away(run: Run) -> None:
    flops = dict(inspect(str(run.path)).facts)["MFLOP an image"]
    assert float(flops.split()[0]) > 0


# Nonsense gets the nearest match.


@pytest.mark.parametrize(
    ("got", "meant"),
    [("digts", "digits"), ("fashion_mnist", "fashion-mnist"), ("vt_tiny_patch16_224", "vit_tiny_patch16_224")],
)
def test_misspelt_name_gets_the_nearest(got: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        inspect(got)
    assert str(caught.value) == f"inspect={got}: is no path, no data set and no model; did you mean {meant}?"


def test_misspelt_path_gets_its_neighbour(run: Run) -> None:
    with pytest.raises(UnknownNameError) as caught:
        inspect(f"{run.path}s")
    assert str(caught.value).endswith(f"did you mean {run.path}?")


def test_nonsense_gets_what_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        inspect("qqqq")
    assert "inspect=qqqq: is no path, no data set and no model; give an existing path, " in str(caught.value)
    assert "digits" in str(caught.value)


def test_unknown_size_of_a_model_gets_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"^model=vit_hug_patch14_224: no such model; did you mean vit_huge_p"):
        inspect("vit_hug_patch14_224")


def test_image_is_not_inspected_alone(photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    with pytest.raises(ConfigError) as caught:
        inspect(str(image))
    wanted = f"inspect={image}: is one image; give a folder of class folders, a run or a model"
    assert str(caught.value) == wanted


def test_unfinished_run_is_named(unfinished: Path) -> None:
    with pytest.raises(NotARunError, match=r"half done: has no model yet; finish it with `vitreous train --resume '"):
        inspect(str(unfinished))


def test_other_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"notes\.txt: cannot be read as safetensors"):
        inspect(str(tmp_path / "notes.txt"))


def test_empty_folder_is_no_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image file; use a folder with one folder of images per class"):
        inspect(str(tmp_path))
