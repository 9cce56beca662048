from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from vitreous.data.pixels.store import LazyStore, MappedStore, MemoryStore
from vitreous.errors import ConfigError, DataError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.files import write_config
from vitreous.recipe.pace import Pace
from vitreous.recipe.plan import ASKED, Choice
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Recorder, ignore, read_records
from vitreous.training.load import load_data
from vitreous.training.measure.instruments import Instruments
from vitreous.training.prepare import plan_run, survey_again
from vitreous.training.request import TrainRequest

Tiny = Callable[..., TrainRequest]


def recipe_file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def planned(request: TrainRequest) -> dict[str, Any]:
    return keys.take_apart(plan_run(request, ignore)[1].config)


def test_recipe_file_overrides_the_planner_and_the_command_line_overrides_both(
    images_folder: Path, tmp_path: Path
) -> None:
    data = str(images_folder)
    file = recipe_file(tmp_path, "optim: {lr: 0.0123, beta1: 0.7}\ndata: {batch_size: 11}\n")
    without = planned(TrainRequest(data=data))
    with_file = planned(TrainRequest(data=data, recipe=file))
    with_both = planned(TrainRequest(data=data, recipe=file, values={"optim.lr": "0.5", "train.seed": 3}))
    assert (with_file["optim.lr"], with_file["optim.beta1"], with_file["data.batch_size"]) == (0.0123, 0.7, 11)
    assert (with_both["optim.lr"], with_both["optim.beta1"], with_both["data.batch_size"]) == (0.5, 0.7, 11)
    same = ("model.embed_dim", "model.patch_size", "train.epochs", "data.img_size")
    assert {key: with_both[key] for key in same} == {key: without[key] for key in same}


@pytest.mark.parametrize(("seconds", "faster"), [((0.2, 0.1), "sdpa"), ((0.1, 0.2), "explicit")])
def test_measured_attention_becomes_the_faster_kernel(tiny: Tiny, seconds: tuple[float, float], faster: str) -> None:
    paces = dict(zip(("explicit", "sdpa"), (Pace(((0.0, 1.0, step_s),)) for step_s in seconds), strict=True))
    instruments = Instruments(training_pace=lambda config, teacher: paces[config.train.kernel])
    _, plan = plan_run(tiny(train__attention_kernel="measured"), ignore, instruments)
    assert plan.config.train.attention_kernel == faster
    (choice,) = [choice for choice in plan.choices if choice.key == "train.attention_kernel"]
    slower = "explicit" if faster == "sdpa" else "sdpa"
    assert choice == Choice("train.attention_kernel", faster, f"measured: 0.1 s per step, 0.2 s with {slower}")
    assert plan.pace == paces[faster]
    assert planned(tiny())["train.attention_kernel"] == "auto"


def test_explicit_attention_that_exceeds_the_memory_is_not_measured(tiny: Tiny) -> None:
    instruments = Instruments(
        memory_share=lambda config: 0.9 if config.train.kernel == "explicit" else 0.1,
        training_pace=lambda config, teacher: pytest.fail("measured"),
    )
    _, plan = plan_run(tiny(train__attention_kernel="measured"), ignore, instruments)
    (choice,) = [choice for choice in plan.choices if choice.key == "train.attention_kernel"]
    assert choice == Choice("train.attention_kernel", "sdpa", "the explicit kernel would take 90% of the memory")
    assert plan.config.train.attention_kernel == "sdpa"


def test_budget_passes_the_measured_pace_on_with_the_plan(tiny: Tiny) -> None:
    measured: list[RunConfig] = []

    def pace(config: RunConfig, teacher: object) -> Pace:
        measured.append(config)
        return Pace(((0.0, 1.0, 0.25),))

    _, plan = plan_run(tiny(train__budget_s=60), ignore, Instruments(training_pace=pace))
    assert len(measured) == 1
    assert plan.pace == Pace(((0.0, 1.0, 0.25),))


def test_file_may_name_a_shipped_recipe(images_folder: Path, tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "recipe: small-photos\noptim: {beta1: 0.7}\n")
    _, plan = plan_run(TrainRequest(data=str(images_folder), recipe=file), ignore)
    assert plan.config.recipe == "small-photos"
    assert plan.config.optim.beta1 == 0.7


def test_file_without_a_recipe_uses_the_one_that_suits(images_folder: Path, tmp_path: Path) -> None:
    _, plan = plan_run(TrainRequest(data=str(images_folder), recipe=recipe_file(tmp_path, "optim: {lr: 1}")), ignore)
    _, suits = plan_run(TrainRequest(data=str(images_folder)), ignore)
    assert plan.config.recipe == suits.config.recipe


def test_file_with_an_unknown_recipe_is_refused(images_folder: Path, tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "recipe: small-foto\n")
    with pytest.raises(UnknownNameError, match=r"^recipe=small-foto: no such recipe; did you mean small-photos\?"):
        plan_run(TrainRequest(data=str(images_folder), recipe=file), ignore)


def test_config_of_a_run_is_a_recipe_that_repeats_it(tiny: Tiny, tmp_path: Path) -> None:
    _, plan = plan_run(tiny(), ignore)
    write_config(tmp_path / "config.yaml", plan.config)
    _, again = plan_run(TrainRequest(recipe=str(tmp_path / "config.yaml")), ignore)
    assert again.config == plan.config


def test_config_for_other_classes_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    _, plan = plan_run(tiny(), ignore)
    write_config(tmp_path / "config.yaml", plan.config)
    with pytest.raises(ConfigError) as caught:
        plan_run(TrainRequest(data="digits", recipe=str(tmp_path / "config.yaml")), ignore)
    assert (
        str(caught.value) == "data.num_classes=3: digits has 10 classes; leave the key out, since the data decides it"
    )


def test_model_name_overrides_the_file_and_single_keys_override_both(images_folder: Path, tmp_path: Path) -> None:
    file = recipe_file(tmp_path, "model: {depth: 2, embed_dim: 20, num_heads: 5, act: relu}\n")
    values = {"model.depth": "3", "data.img_size": "16x24"}
    request = TrainRequest(data=str(images_folder), recipe=file, model="vit_pico_patch8", values=values)
    found = planned(request)
    assert [found[f"model.{key}"] for key in ("embed_dim", "depth", "num_heads", "patch_size", "act")] == [
        64, 3, 4, 8, "relu",
    ]  # fmt: skip
    assert found["data.img_size"] == (16, 24)


def test_full_model_name_sets_the_image_size(images_folder: Path) -> None:
    found = planned(TrainRequest(data=str(images_folder), model="vit_pico_patch4_32"))
    assert (found["data.img_size"], found["model.patch_size"]) == ((32, 32), 4)


def test_published_model_keeps_its_architecture(images_folder: Path) -> None:
    found = planned(TrainRequest(data=str(images_folder), model="vit_wee_patch16_reg1_gap_256"))
    expected = {"embed_dim": 256, "depth": 14, "mlp_ratio": 5.0, "num_registers": 1, "pool": "mean", "fc_norm": True,
                "final_norm": False, "layer_scale": 1e-5, "prefix_position": "none"}  # fmt: skip
    assert {key: found[f"model.{key}"] for key in expected} == expected
    assert found["data.img_size"] == (256, 256)


def test_published_model_takes_its_classes_from_the_data(images_folder: Path) -> None:
    values = {"data.img_size": "28x28"}
    found = planned(TrainRequest(data=str(images_folder), model="vit_small_patch14_reg4_dinov2", values=values))
    assert (found["model.pool"], found["model.num_registers"], found["model.patch_size"]) == ("token", 4, 14)


def test_unknown_model_suggests_the_nearest(images_folder: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"^model=vit_picco: no such model; did you mean vit_pico\?$"):
        plan_run(TrainRequest(data=str(images_folder), model="vit_picco"), ignore)


def test_request_without_data_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        plan_run(TrainRequest(), ignore)
    assert str(caught.value) == (
        "data=none: nothing to train on; give a folder of class folders, or one of digits, mnist, fashion-mnist, "
        "cifar10, cifar100"
    )
    with pytest.raises(ConfigError) as caught:
        plan_run(TrainRequest(recipe="digits"), ignore)
    assert str(caught.value) == "data=none: recipe digits names no data either; give a folder or the name of a data set"


@pytest.mark.parametrize(("key", "got"), [("device", "warp"), ("train.precision", "fp8")])
def test_unknown_device_or_precision_is_refused_before_the_data_is_read(key: str, got: str) -> None:
    with pytest.raises(ConfigError, match=f"^{key}={got}: no such "):
        plan_run(TrainRequest(data="/nowhere", values={f"train.{key.removeprefix('train.')}": got}), ignore)


def test_source_is_stored_as_an_absolute_path(images_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images_folder.parent)
    assert planned(TrainRequest(data="fruit"))["data.source"] == str(images_folder)
    assert planned(TrainRequest(data="digits"))["data.source"] == "digits"


def test_test_ratio_is_stored_with_its_reason(images_folder: Path, tmp_path: Path) -> None:
    images = enumerate(images_folder.glob("*/*.png"))
    rows = [f"{image},{image.parent.name},{number // 2}\n" for number, image in images]
    (tmp_path / "x.csv").write_text("path,label,patient\n" + "".join(rows), encoding="utf-8")
    _, grouped = plan_run(TrainRequest(data=str(tmp_path / "x.csv")), ignore)
    _, plan = plan_run(TrainRequest(data=str(images_folder)), ignore)
    _, digits = plan_run(TrainRequest(data="digits"), ignore)
    _, asked = plan_run(TrainRequest(data=str(images_folder), values={"data.test_ratio": "0.5"}), ignore)
    found = [next(c for c in p.choices if c.key == "data.test_ratio") for p in (plan, digits, asked, grouped)]
    assert [choice.value for choice in found] == [0.2, 0.25, 0.5, 0.2]
    assert [choice.reason for choice in found] == [
        "the data has no test split, so images are held out", "the usual split for this data set", ASKED,
        "the data has no test split, so images are held out, all of a group together",
    ]  # fmt: skip


@pytest.mark.parametrize("values", [{}, {"data.test_ratio": 0.4, "data.val_ratio": 0.3, "data.split_seed": 5}])
def test_survey_of_a_run_can_be_repeated(images_folder: Path, values: dict[str, Any]) -> None:
    surveyed, plan = plan_run(TrainRequest(data=str(images_folder), values=values), ignore)
    again = survey_again(plan.config.data, ignore)
    assert again.facts == surveyed.facts
    for split, indices in surveyed.indices.items():
        assert again.indices[split].tolist() == indices.tolist()


def test_progress_of_reading_is_reported(images_folder: Path) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    plan_run(TrainRequest(data=str(images_folder)), lambda kind, fields: heard.append((kind, dict(fields))))
    assert heard[-1] == ("reading", {"what": "reading", "done": 61, "total": 61})


# Decoding.


def test_mean_and_std_are_those_of_the_training_images(tiny: Tiny, tmp_path: Path) -> None:
    surveyed, plan = plan_run(tiny(), ignore)
    prepared = load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    assert isinstance(prepared.train, MemoryStore)
    pixels = prepared.train.pixels.double() / 255
    torch.testing.assert_close(torch.tensor(prepared.config.data.mean, dtype=torch.float64), pixels.mean((0, 2, 3)))
    std = pixels.std((0, 2, 3), correction=0)
    torch.testing.assert_close(torch.tensor(prepared.config.data.std, dtype=torch.float64), std)
    assert (prepared.preprocess.mean, prepared.preprocess.std) == (prepared.config.data.mean, prepared.config.data.std)


def test_mean_and_std_of_the_user_are_kept(tiny: Tiny, tmp_path: Path) -> None:
    surveyed, plan = plan_run(tiny(data__mean="0.5,0.4,0.3", data__std="0.2,0.2,0.1"), ignore)
    prepared = load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    assert prepared.config == plan.config
    assert prepared.preprocess.mean == (0.5, 0.4, 0.3)


def test_every_image_is_in_exactly_one_store(tiny: Tiny, tmp_path: Path) -> None:
    surveyed, plan = plan_run(tiny(), ignore)
    prepared = load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    assert prepared.val is not None
    assert prepared.test is not None
    stores = (prepared.train, prepared.val, prepared.test)
    assert sorted(int(i) for store in stores for i in store.source_indices) == list(range(61))


def test_splits_without_images_have_no_store(tiny: Tiny, tmp_path: Path) -> None:
    surveyed, plan = plan_run(tiny(data__test_ratio=0, data__val_ratio=0), ignore)
    prepared = load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    assert (len(prepared.train), prepared.val, prepared.test) == (61, None, None)


@pytest.mark.parametrize(("cache", "kind"), [("auto", MappedStore), ("none", LazyStore)])
def test_images_beyond_the_memory_limit_are_cached_or_decoded_on_demand(
    tiny: Tiny, tmp_path: Path, cache: str, kind: type
) -> None:
    surveyed, plan = plan_run(tiny(data__memory_limit_bytes=0, data__cache=cache), ignore)
    prepared = load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    assert isinstance(prepared.train, kind)


def test_second_run_reads_the_cache_of_the_first_and_both_record_it(tiny: Tiny, tmp_path: Path) -> None:
    kept = tmp_path / "kept images"
    surveyed, plan = plan_run(tiny(data__cache=str(kept)), ignore)
    for name in ("first", "second"):
        load_data(plan.config, surveyed, Recorder(tmp_path / f"{name}.jsonl"))
    first, second = (read_records(tmp_path / f"{name}.jsonl")[0]["cache"] for name in ("first", "second"))
    assert set(first) == {"train", "val", "test"}
    assert {use["folder"] for use in [*first.values(), *second.values()]} == {str(kept)}
    assert [use["is_new"] for use in first.values()] == [True] * 3
    assert [use["is_new"] for use in second.values()] == [False] * 3
    sizes = sorted(path.stat().st_size for path in kept.glob("*.pixels"))
    assert sizes == sorted(use["num_bytes"] for use in second.values())


def test_unreadable_file_is_an_error_with_on_error_error(tiny: Tiny, own_images: Path) -> None:
    (own_images / "plum" / "03.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        plan_run(tiny(data=own_images, data__on_error="error"), ignore)
    assert str(caught.value) == (
        f"data.on_error=error: 1 unreadable file, {own_images / 'plum' / '03.png'} (not an image that Pillow can "
        "read); fix or remove it, or set data.on_error=skip"
    )


def test_damage_found_while_decoding_is_an_error_too(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    for name in ("03.png", "07.png"):
        path = own_images / "plum" / name
        path.write_bytes(path.read_bytes()[:-40])
    shares = {"data__test_ratio": 0, "data__val_ratio": 0}
    surveyed, plan = plan_run(tiny(data=own_images, data__on_error="error", **shares), ignore)
    with pytest.raises(DataError) as caught:
        load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    rule = "data.on_error=error: 2 unreadable files, the first is "
    assert str(caught.value).startswith(f"{rule}{own_images / 'plum' / '03.png'} (")


def test_unreadable_files_are_listed_in_the_records(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    (own_images / "kiwi" / "00.png").write_bytes(b"no image")
    whole = (own_images / "plum" / "03.png").read_bytes()
    (own_images / "plum" / "03.png").write_bytes(whole[: len(whole) // 2])  # the header is intact
    surveyed, plan = plan_run(tiny(data=own_images), ignore)
    load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    (record,) = read_records(tmp_path / "records.jsonl")
    assert (record["kind"], record["num_skipped"]) == ("data", 2)
    assert {Path(name).relative_to(own_images).as_posix() for name, _ in record["skipped"]} == {
        "kiwi/00.png", "plum/03.png",
    }  # fmt: skip
    assert all(reason for _, reason in record["skipped"])


def test_copies_in_two_classes_are_found_before_training(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    with Image.open(own_images / "kiwi" / "00.png") as image:
        image.save(own_images / "plum" / "copy.bmp")  # other bytes, the same pixels
    surveyed, plan = plan_run(tiny(data=own_images), ignore)
    load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    (record,) = read_records(tmp_path / "records.jsonl")
    assert record["findings"]
    same = "2 images are copies of each other but have different labels"
    assert any(same in finding for finding in record["findings"])


def test_training_images_of_a_single_class_are_refused(tiny: Tiny, own_images: Path, tmp_path: Path) -> None:
    for name in ("apple", "plum"):
        for path in (own_images / name).iterdir():
            path.write_bytes(path.read_bytes()[:-40])
    surveyed, plan = plan_run(tiny(data=own_images, data__test_ratio=0, data__val_ratio=0), ignore)
    with pytest.raises(DataError) as caught:
        load_data(plan.config, surveyed, Recorder(tmp_path / "records.jsonl"))
    first = own_images / "apple" / "00.png"
    rule = "20 training images can be decoded, of fewer than two classes"
    assert str(caught.value).startswith(
        f"data.source={own_images}: {rule}; fix the others, of which the first is {first} ("
    )
