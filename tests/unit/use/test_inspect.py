"""inspect: a run, weights, a data set or the name of a model."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vitreous.errors import ConfigError, DamagedFileError, DataError, NotARunError, UnknownNameError
from vitreous.model import ModelConfig, build_model, export_weights
from vitreous.model.config.presets import config_for
from vitreous.model.config.published import PUBLISHED
from vitreous.model.cost.count import count_parameters
from vitreous.model.weights.table import Hints
from vitreous.use.embed.embedder import Embedder
from vitreous.use.inspect import DataOptions, inspect
from vitreous.use.run import Run
from vitreous.wording import listed


def test_run_is_described_by_its_data_classes_accuracy_and_model(run: Run) -> None:
    found = inspect(str(run.path))
    facts = dict(found.facts)
    assert (found.kind, found.title) == ("run", str(run.path))
    assert facts["data"] == "my photos"
    assert facts["classes"] == f"3: {listed(run.classes)}"
    accuracy = run.metrics["test"]["accuracy"]
    assert facts["test accuracy"].startswith(f"{100 * accuracy:.1f}% (")
    assert (
        f"balanced accuracy (mean recall of the classes) {run.metrics['test']['balanced_accuracy']:.1%}"
        in (facts["test baseline"])
    )
    assert facts["parameters"] == f"{sum(p.numel() for p in run.predictor.model.parameters()):,}"
    assert facts["image"] == "3 x 8 x 12 px, 3 classes"
    assert found.details == run.metadata


def test_model_file_is_described_like_its_run(lone_model: Path, run: Run) -> None:
    facts, of_run = dict(inspect(str(lone_model)).facts), dict(inspect(str(run.path)).facts)
    assert facts.pop("unfamiliar images").startswith("not flagged without ")
    assert of_run.pop("unfamiliar images") == "flagged"
    assert facts == of_run


def test_folder_with_only_a_model_file_is_a_run(lone_model: Path) -> None:
    lone_model.rename(lone_model.parent / "model.safetensors")
    assert inspect(str(lone_model.parent)).kind == "run"


def test_parameters_of_all_parts_add_up(run: Run) -> None:
    heading, *rows = inspect(str(run.path)).table
    total = sum(int(row[heading.index("parameters")].replace(",", "")) for row in rows)
    assert f"{total:,}" == dict(inspect(str(run.path)).facts)["parameters"]


def test_data_is_described_by_its_images_classes_and_sizes(photos: Path) -> None:
    found = inspect(str(photos))
    facts = dict(found.facts)
    assert (found.kind, found.title) == ("data", "my photos")
    assert facts["classes"].startswith("3, with ")
    assert facts["size"] == "median 9x14 px (height x width), all equal"
    assert facts["channels"] == "3"
    assert facts["unreadable files"] == "0"
    assert [row[0] for row in found.table] == ["class", '<b>&"', "two words", "Äpfel"]
    assert found.details["num_train"] == sum(int(row[1]) for row in found.table[1:])


def test_named_set_is_data() -> None:
    found = inspect("digits")
    assert (found.kind, found.title) == ("data", "digits")
    assert dict(found.facts)["channels"] == "1 (all images are gray)"


def test_unreadable_files_of_data_are_reported(tmp_path: Path, photos: Path) -> None:
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


def test_details_contain_all_findings(photos: Path) -> None:
    found = inspect(str(photos))
    assert found.findings
    assert [finding["kind"] for finding in found.details["findings"]] == [finding.kind for finding in found.findings]
    assert sum(found.histograms["shorter side"].values()) == 72


def test_labels_are_judged_by_the_features_of_a_model_if_they_are_the_more_accurate_basis(
    photos: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DataOptions(pretrained=str(run.path))
    named = np.array([name.parent.name for name in sorted(photos.rglob("*.png"))])
    width = Embedder.load(str(run.path)).model.num_features
    telling = np.zeros((len(named), width), np.float32)
    telling[:, :3] = np.stack([named == name for name in np.unique(named)], axis=1)
    noise = np.random.default_rng(0).normal(size=telling.shape).astype(np.float32)
    for features, basis in ((telling, f"the features of {run.path}"), (noise, "thumbnails")):
        rows = iter(features)
        monkeypatch.setattr(
            Embedder, "features", lambda _, pixels, rows=rows: torch.from_numpy(np.stack([next(rows) for _ in pixels]))
        )
        labels = inspect(str(photos), options=options).details["labels"]
        assert labels["basis"] == basis
        assert labels["num_judged"] == 72
    assert inspect(str(photos)).details["labels"]["basis"] == "thumbnails"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            DataOptions(html=Path("x.html")),
            "html=x.html: applies only to data, and vit_tiny_patch16_224 is not a data set; leave it out",
        ),
        (
            DataOptions(pretrained="runs/a"),
            "pretrained=runs/a: applies only to data, and vit_tiny_patch16_224 is not a data set; leave it out",
        ),
        (
            DataOptions(root="b"),
            "root=b: applies only to data, and vit_tiny_patch16_224 is not a data set; leave it out",
        ),
    ],
)
def test_options_for_data_are_rejected_for_a_model(options: DataOptions, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        inspect("vit_tiny_patch16_224", options=options)
    assert str(caught.value) == line


def test_huge_model_is_described_without_allocating_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        assert parameter is None or parameter.is_meta, f"{name} is allocated"
        original(self, name, parameter)

    original = nn.Module.register_parameter
    monkeypatch.setattr(nn.Module, "register_parameter", refuse)
    found = inspect("vit_huge_patch14_224")
    facts = dict(found.facts)
    assert facts["parameters"] == "632,045,800"
    assert facts["tokens"] == "257, including 1 prefix token"
    assert (found.kind, found.details["parameters"]) == ("model", 632_045_800)


def test_flops_of_a_tiny_model_are_not_rounded_to_zero(run: Run) -> None:
    flops = dict(inspect(str(run.path)).facts)["MFLOPs per image"]
    assert float(flops.split()[0]) > 0


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_model_can_be_inspected(name: str) -> None:
    found = inspect(name)
    assert (found.kind, found.title) == ("model", name)
    assert found.details["parameters"] == count_parameters(config_for(name))


def test_name_without_sizes_is_an_error_that_shows_a_complete_name() -> None:
    with pytest.raises(ConfigError, match=r"^model=vit_tiny: .*vit_tiny_patch16_224"):
        inspect("vit_tiny")


# Misspelled names.


@pytest.mark.parametrize(
    ("got", "meant"),
    [("digts", "digits"), ("fashion_mnist", "fashion-mnist"), ("vt_tiny_patch16_224", "vit_tiny_patch16_224")],
)
def test_misspelled_name_is_an_error_with_the_nearest_name(got: str, meant: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        inspect(got)
    assert str(caught.value) == f"inspect={got}: not a path, data set or model; did you mean {meant}?"


def test_misspelled_path_is_an_error_with_the_nearest_path(run: Run) -> None:
    with pytest.raises(UnknownNameError) as caught:
        inspect(f"{run.path}s")
    assert str(caught.value).endswith(f"did you mean {run.path}?")


def test_unknown_name_is_an_error_that_lists_what_can_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError) as caught:
        inspect("qqqq")
    assert "inspect=qqqq: not a path, data set or model; give an existing path, " in str(caught.value)
    assert "digits" in str(caught.value)


def test_misspelled_model_is_an_error_with_the_nearest_model() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^inspect=vit_hug_patch14_224: not a path, data set or model; did you mean vit_huge_p"
    ):
        inspect("vit_hug_patch14_224")


def test_single_image_is_rejected(photos: Path) -> None:
    image = photos / "Äpfel" / "bild 3 ü.png"
    with pytest.raises(ConfigError) as caught:
        inspect(str(image))
    wanted = f"inspect={image}: is a single image; give a folder of class folders, a run or a model"
    assert str(caught.value) == wanted


def test_unfinished_run_is_an_error(unfinished: Path) -> None:
    with pytest.raises(NotARunError, match=r"half done: is not finished; continue it with `vitreous train --resume '"):
        inspect(str(unfinished))


def test_other_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"notes\.txt: cannot be read as \.txt"):
        inspect(str(tmp_path / "notes.txt"))


def test_empty_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no image file; use a folder with one folder of images per class"):
        inspect(str(tmp_path))


# Weights of other libraries.


def test_weights_are_described_although_something_is_open(tmp_path: Path) -> None:
    tiny = config_for("vit_tiny_patch16_224").as_dict()
    config = ModelConfig.from_dict(tiny | {"depth": 2, "num_heads": 6})
    path = export_weights(build_model(config), tmp_path / "weights.pth", to="timm")
    found = inspect(str(path))
    assert dict(found.facts) == {"format": "timm", "tensors": "32"}
    assert found.table[:4] == (
        ("tensors", "shape", "count"),
        ("patch_embed.proj.weight", "192x3x16x16", "1"),
        ("patch_embed.proj.bias", "192", "1"),
        ("cls_token", "1x1x192", "1"),
    )
    assert ("blocks.*.attn.qkv.weight", "576x192", "2") in found.table
    assert found.notes[0].startswith("open: num_heads=None: not known from the shapes, ")
    assert found.notes[1].startswith("assumes act=gelu, ")
    answered = inspect(str(path), weights=Hints(architecture={"num_heads": 6}))
    assert dict(answered.facts)["parameters"] == f"{count_parameters(config):,}"
    assert answered.details["open"] == []


def test_weights_of_no_known_model_are_described(tmp_path: Path) -> None:
    torch.save({"layer1.0.conv1.weight": torch.zeros(4, 3, 3, 3), "args": Namespace(lr=1)}, tmp_path / "resnet.pth")
    found = inspect(str(tmp_path / "resnet.pth"))
    assert dict(found.facts) == {"format": "unknown", "tensors": "1"}
    assert found.table[1:] == (("layer1.0.conv1.weight", "4x3x3x3", "1"),)
    assert found.notes[0].startswith("cannot be opened: has 1 tensor (layer1.0.conv1.weight) with names of no known ")
    assert found.notes[1] == "objects that were not built: args (argparse.Namespace)"


def test_answers_about_weights_are_rejected_for_anything_else(run: Run) -> None:
    with pytest.raises(ConfigError, match="is not a file of weights of another library; leave out --architecture"):
        inspect(str(run.path), weights=Hints(weights="raw"))
