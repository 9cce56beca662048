"""Backbones: what the table says, which one is chosen, and what runs do with one that is in the cache."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from tests.hub_server import REVISION, Hub
from tests.unit.training.weights.tiny_dinov2 import tiny_dinov2

from vitreous.data.survey.facts import DataFacts
from vitreous.errors import ConfigError, DamagedFileError, UnknownNameError
from vitreous.model.weights.reading.hub import fetch
from vitreous.recipe import keys
from vitreous.recipe.files import read_config
from vitreous.recipe.plan import Plan
from vitreous.training.folder.records import ignore, read_records
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.prepare import plan_run
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.training.start import run_training
from vitreous.training.weights.backbones import BACKBONES, backbone_named
from vitreous.training.weights.choice import Start, choose_start, choose_teacher

SMALL = BACKBONES["dinov2-small"].repo
SOURCE = f"hf://{SMALL}@{REVISION}"
QUICK: dict[str, Any] = {"data.img_size": "28", "train.epochs": 1.0, "data.batch_size": 8, "train.device": "cpu",
                         "train.precision": "fp32"}  # fmt: skip


@pytest.fixture(autouse=True)
def _served(hub: Hub, tiny_hub_files: dict[str, bytes]) -> None:
    hub.repos[SMALL] = tiny_hub_files


@pytest.fixture(scope="session")
def tiny_hub_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A tiny DINOv2 model as transformers writes it, in place of the real one."""
    return tiny_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 color images of 70 x 64 px in two classes."""
    root, draw = tmp_path_factory.mktemp("photos") / "fruit", np.random.default_rng(5)
    for name, color in (("kiwi", 60), ("plum", 180)):
        (root / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(color + draw.normal(0, 40, (70, 64, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def planned(photos: Path, listener: Callable[[str, Mapping[str, Any]], None] = ignore, **values: Any) -> Plan:
    keys_ = QUICK | {key.replace("__", "."): value for key, value in values.items()}
    return plan_run(TrainRequest(data=str(photos), values=keys_), listener)[1]


def note_of(plan: Plan, text: str) -> str:
    (note,) = [note for note in plan.notes if text in note]
    return note


# The sizes on the pages of the repositories, in MB.
@pytest.mark.parametrize(
    ("name", "size_mb"),
    [("dinov2-small", 88.2), ("dinov2-base", 346), ("augreg-tiny", 22.9), ("augreg-base", 346), ("deit3-small", 88.3),
     ("deit3-base", 346), ("dinov3-small", 86.4)],
)  # fmt: skip
def test_size_computed_from_the_architecture_is_that_of_the_file(name: str, size_mb: float) -> None:
    assert BACKBONES[name].num_bytes / 1e6 == pytest.approx(size_mb, rel=0.005)


def test_unknown_backbone_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(
        UnknownNameError, match=r"^backbone=dinov2-smal: no such backbone; did you mean dinov2-small\?$"
    ):
        backbone_named("dinov2-smal")
    assert backbone_named(f"hf://{SMALL}") == backbone_named("dinov2-small")


def facts_of(photos: Path, **changes: Any) -> DataFacts:
    return replace(plan_run(TrainRequest(data=str(photos), values=QUICK), ignore)[0].facts, **changes)


def chosen(facts: DataFacts, events: list[str], **values: Any) -> Start:
    """Return what `auto` chooses; nothing is served, so the notes name what would have been downloaded."""
    asked = {"train.pretrained": "auto", "data.source": "x", "train.device": "cpu"}
    asked |= {key.replace("__", "."): value for key, value in values.items()}
    return choose_start(
        TrainRequest(),
        asked,
        facts,
        lambda config: config.model.embed_dim / 1000,
        lambda _, fields: events.append(fields["text"]),
    )


def test_auto_chooses_by_data_budget_and_memory(photos: Path, hub: Hub) -> None:
    hub.repos.clear()
    events: list[str] = []
    many = facts_of(photos, num_train=3_000)
    chosen(many, events)
    chosen(many, events, train__budget_s=50.0)
    chosen(many, events, data__img_size=(224, 224))
    chosen(many, events, data__img_size=(32, 32))
    assert [event.split()[1] for event in events] == ["dinov2-small", "augreg-tiny", "dinov2-small", "augreg-tiny"]
    with_little_memory = choose_start(
        TrainRequest(), {"train.pretrained": "auto", "data.source": "x"}, many, lambda config: 2.0, ignore
    )
    assert with_little_memory == Start(notes=("train.pretrained=auto: trains from scratch, because no backbone fits",))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"in_chans": 1}, "the images are not color images of 8 bits"),
        ({"value_range": (0.0, 4095.0)}, "the images are not color images of 8 bits"),
        ({"width_px": 48}, "the shorter side of most images has 48 px, fewer than 64"),
        ({"num_train": 200_000}, "the data has more than 100,000 images"),
    ],
)
def test_what_is_no_photo_trains_from_scratch(photos: Path, hub: Hub, changes: dict[str, Any], reason: str) -> None:
    start = chosen(facts_of(photos, **changes), [])
    assert start.source is None
    assert start.notes[0].startswith(f"train.pretrained=auto: trains from scratch, because {reason}; ")
    assert hub.requests == []


def test_empty_cache_changes_nothing_but_recommends_the_command(photos: Path, hub: Hub) -> None:
    left_open, from_scratch = planned(photos), planned(photos, train__pretrained="none")
    assert left_open.config == from_scratch.config
    note = note_of(left_open, "pretrained weights")
    assert f"`vitreous train {photos} --pretrained auto` starts from dinov2-small (88 MB, Apache-2.0)" in note
    assert [other for other in left_open.notes if other != note] == list(from_scratch.notes)
    assert hub.requests == []


def test_auto_announces_downloads_and_records_the_full_name(photos: Path, hub: Hub) -> None:
    events: list[tuple[str, Mapping[str, Any]]] = []
    plan = planned(photos, lambda kind, fields: events.append((kind, fields)), train__pretrained="auto")
    (text,) = [fields["text"] for kind, fields in events if kind == "backbone"]
    assert text.startswith("downloading dinov2-small (88 MB, Apache-2.0) to start from it: ")
    assert [kind for kind, _ in events if kind in ("backbone", "download")][:2] == ["backbone", "download"]
    assert (plan.config.train.pretrained, plan.config.recipe, plan.config.model.embed_dim) == (SOURCE, "fine-tune", 32)


def test_photos_start_from_the_cache_and_say_so_first(photos: Path, hub: Hub) -> None:
    fetch(SMALL)
    hub.requests.clear()
    events: list[tuple[str, Mapping[str, Any]]] = []
    plan = planned(photos, lambda kind, fields: events.append((kind, fields)))
    assert plan.config.train.pretrained == SOURCE
    (choice,) = [choice for choice in plan.choices if choice.key == "train.pretrained"]
    assert choice.reason == "dinov2-small is in the cache"
    assert [fields["text"] for kind, fields in events if kind == "backbone"] == [
        "starting from dinov2-small (88 MB, Apache-2.0), which is in the cache; --pretrained none trains from scratch"
    ]
    assert hub.requests == []


@pytest.mark.parametrize(
    "values",
    [{"train__pretrained": "none"}, {"model__depth": 1}, {"data__img_size": "32"}, {"data__in_chans": 1}],
)
def test_what_the_user_decides_keeps_its_meaning_with_a_backbone_in_the_cache(
    photos: Path, values: dict[str, Any]
) -> None:
    before = planned(photos, **values)
    fetch(SMALL)
    assert planned(photos, **values).config == before.config


def test_small_and_gray_images_are_trained_from_scratch_as_before(images_folder: Path) -> None:
    before = planned(images_folder, data__img_size="28")
    fetch(SMALL)
    assert planned(images_folder, data__img_size="28") == before


@pytest.mark.parametrize("name", ["dinov2-small", f"hf://{SMALL}", SOURCE])
def test_named_backbone_is_stored_with_its_revision(photos: Path, name: str) -> None:
    assert planned(photos, train__pretrained=name).config.train.pretrained == SOURCE


def test_file_of_the_same_name_wins_over_the_backbone(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fetch(SMALL)
    (tmp_path / "dinov2-small").mkdir()
    with pytest.raises(Exception, match=str(tmp_path / "dinov2-small")):
        planned(photos, train__pretrained="dinov2-small")


def test_auto_without_a_hub_trains_from_scratch_and_says_what_is_lost(photos: Path, hub: Hub) -> None:
    hub.stalls = True
    plan = planned(photos, train__pretrained="auto")
    assert plan.config == planned(photos, train__pretrained="none").config
    assert note_of(plan, "cannot be downloaded") == (
        f"hf://{SMALL}: cannot be downloaded (no answer within 2 s), so this run trains from scratch; on photos that "
        "usually costs much accuracy; run `vitreous models get dinov2-small` once there is a connection"
    )


def test_auto_without_a_hub_uses_another_backbone_of_the_cache(photos: Path, hub: Hub) -> None:
    other = BACKBONES["dinov2-base"].repo
    hub.repos[other] = hub.repos.pop(SMALL)
    fetch(other)
    plan = planned(photos, train__pretrained="auto")
    assert plan.config.train.pretrained == f"hf://{other}@{REVISION}"
    assert note_of(plan, "cannot be downloaded").endswith(
        "run `vitreous models get dinov2-small` once there is a connection"
    )


def test_auto_refuses_wrong_bytes(photos: Path, hub: Hub) -> None:
    hub.lies.add("model.safetensors")
    with pytest.raises(DamagedFileError, match=f"^{SMALL}/model.safetensors: has SHA-256 .*; download again$"):
        planned(photos, train__pretrained="auto")


def test_run_starts_from_the_cached_weights_and_says_so_in_its_folder(photos: Path, tmp_path: Path, hub: Hub) -> None:
    fetch(SMALL)
    hub.stalls = True  # nothing is asked any more
    folder = run_training(TrainRequest(data=str(photos), values=QUICK, out=tmp_path / "run"))
    assert read_config(folder.config).train.pretrained == SOURCE
    (record,) = [record for record in read_records(folder.records) if record["kind"] == "pretrained"]
    assert record["source"] == SOURCE
    assert SOURCE in folder.plan.read_text()


def test_resumed_run_does_not_choose_again(photos: Path, tmp_path: Path) -> None:
    folder = run_training(TrainRequest(data=str(photos), values=QUICK, out=tmp_path / "run"))
    before = load_file(folder.model)
    folder.model.unlink()
    fetch(SMALL)
    resumed = run_training(TrainRequest(resume=folder.path))
    assert read_config(resumed.config).train.pretrained is None
    assert all((before[name] == tensor).all() for name, tensor in load_file(resumed.model).items())


def test_runs_of_a_series_start_from_what_the_first_one_chose(photos: Path, tmp_path: Path, hub: Hub) -> None:
    values = QUICK | {"train.pretrained": "auto"}
    folders: list[RunFolder] = []

    def after(folder: RunFolder) -> None:
        folders.append(folder)
        hub.stalls = True

    series = run_series(TrainRequest(data=str(photos), values=values, seeds=2, out=tmp_path / "runs"), after)
    assert isinstance(series, SeriesFolder)
    assert [read_config(folder.config).train.pretrained for folder in folders] == [SOURCE, SOURCE]


def test_series_that_trained_from_scratch_ignores_a_backbone_that_arrives_later(photos: Path, tmp_path: Path) -> None:
    folders: list[RunFolder] = []

    def after(folder: RunFolder) -> None:
        folders.append(folder)
        fetch(SMALL)

    run_series(TrainRequest(data=str(photos), values=QUICK, seeds=2, out=tmp_path / "runs"), after)
    assert [read_config(folder.config).train.pretrained for folder in folders] == [None, None]


def test_recipe_without_weights_names_a_way_to_get_some(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"give --pretrained auto or FILE$"):
        plan_run(TrainRequest(data=str(photos), recipe="fine-tune", values=QUICK), ignore)


def test_every_key_of_the_plan_is_reproduced_by_its_configuration(photos: Path) -> None:
    fetch(SMALL)
    config = planned(photos).config
    assert keys.assemble(config.recipe, keys.take_apart(config)) == config


# Teachers.


def test_teacher_auto_is_announced_downloaded_and_recorded_like_a_backbone(photos: Path, hub: Hub) -> None:
    events: list[tuple[str, Mapping[str, Any]]] = []
    plan = planned(photos, lambda kind, fields: events.append((kind, fields)), objective__teacher="auto")
    (text,) = [fields["text"] for kind, fields in events if kind == "backbone"]
    assert text.startswith("downloading dinov2-small (88 MB, Apache-2.0) to learn from it: ")
    assert (plan.config.objective.teacher, plan.config.train.pretrained) == (SOURCE, None)
    (choice,) = [choice for choice in plan.choices if choice.key == "objective.teacher"]
    assert text.endswith(choice.reason)
    assert plan.config.model.embed_dim != 32
    hub.requests.clear()
    events.clear()
    planned(photos, lambda kind, fields: events.append((kind, fields)), objective__teacher="auto")
    assert [fields["text"] for kind, fields in events if kind == "backbone"] == [
        "learning from dinov2-small (88 MB, Apache-2.0), which is in the cache"
    ]
    assert hub.requests == []


@pytest.mark.parametrize("recipe", [None, "distill"])
def test_teacher_auto_without_a_hub_trains_on_the_labels_and_says_what_is_lost(
    photos: Path, hub: Hub, recipe: str | None
) -> None:
    hub.stalls = True
    request = TrainRequest(data=str(photos), recipe=recipe, values=QUICK | {"objective.teacher": "auto"})
    plan = plan_run(request, ignore)[1]
    assert plan.config.objective.teacher is None
    (choice,) = [choice for choice in plan.choices if choice.key == "objective.teacher"]
    assert choice.reason == "auto found no teacher"
    assert note_of(plan, "cannot be downloaded") == (
        f"hf://{SMALL}: cannot be downloaded (no answer within 2 s), so this run trains on the labels only; a small "
        "model is usually less accurate then; run `vitreous models get dinov2-small` once there is a connection"
    )


def test_teacher_of_what_is_no_photo_must_be_named(photos: Path, hub: Hub) -> None:
    facts = facts_of(photos, in_chans=1)
    start = choose_teacher({"objective.teacher": "auto", "data.source": "x"}, facts, lambda config: 0.1, ignore)
    assert start.notes == (
        "objective.teacher=auto: trains on the labels only, because the images are not color images of 8 bits; use "
        "--teacher RUN to learn anyway",
    )
    assert hub.requests == []


def test_size_of_the_student_does_not_rule_out_a_teacher(photos: Path, hub: Hub) -> None:
    asked = {"objective.teacher": "auto", "data.source": "x", "data.img_size": (32, 32), "train.device": "cpu"}
    assert choose_teacher(asked, facts_of(photos), lambda config: 0.1, ignore).source == f"hf://{SMALL}"


@pytest.mark.parametrize("name", ["dinov2-small", f"hf://{SMALL}"])
def test_named_teacher_is_stored_with_its_revision(photos: Path, name: str) -> None:
    assert planned(photos, objective__teacher=name).config.objective.teacher == SOURCE


def test_runs_of_a_series_learn_from_what_the_first_one_chose(photos: Path, tmp_path: Path, hub: Hub) -> None:
    folders: list[RunFolder] = []

    def after(folder: RunFolder) -> None:
        folders.append(folder)
        hub.stalls = True

    values = QUICK | {"objective.teacher": "auto", "objective.teacher_img_size": (28, 28)}
    request = TrainRequest(data=str(photos), recipe="distill", values=values, seeds=2, out=tmp_path / "runs")
    run_series(request, after)
    assert [read_config(folder.config).objective.teacher for folder in folders] == [SOURCE, SOURCE]


def test_series_without_a_teacher_ignores_one_that_arrives_later(photos: Path, tmp_path: Path, hub: Hub) -> None:
    folders: list[RunFolder] = []
    hub.stalls = True

    def after(folder: RunFolder) -> None:
        folders.append(folder)
        hub.stalls = False

    values = QUICK | {"objective.teacher": "auto"}
    request = TrainRequest(data=str(photos), recipe="distill", values=values, seeds=2, out=tmp_path / "runs")
    run_series(request, after)
    assert [read_config(folder.config).objective.teacher for folder in folders] == [None, None]
