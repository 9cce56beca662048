"""Files with raw and averaged weights: those with better features are taken, and the plan says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from tests.pictures import write_pictures
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vitreous.data.pixels import store
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import export_weights
from vitreous.recipe.files import read_config
from vitreous.recipe.plan import Plan
from vitreous.training.folder.records import ignore
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.request import TrainRequest
from vitreous.training.series import run_series
from vitreous.training.start import dry_run, run_training
from vitreous.training.weights import raw_or_averaged

COLORED = ModelConfig(img_size=(8, 8), patch_size=4, in_chans=3, num_classes=5, embed_dim=16, depth=1, num_heads=2)
DIGITS = ModelConfig(img_size=(8, 8), patch_size=2, in_chans=1, num_classes=10, embed_dim=16, depth=1, num_heads=2,
                     init="timm")  # fmt: skip
Save = Callable[..., Path]


def fresh(config: ModelConfig = COLORED, *, seed: int = 0, scale: float = 1.0) -> VisionTransformer:
    """A model with random weights. With `scale=0`, its features are the same for all images."""
    model = build_model(config, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        model.get_parameter("tokenizer.proj.weight").mul_(scale)
    return model


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Return a function that writes models as one checkpoint, in the format of timm."""

    def save(**models: VisionTransformer) -> Path:
        states = {}
        for name, model in models.items():
            export_weights(model, tmp_path / f"{name}.safetensors", to="timm")
            states[name] = load_file(tmp_path / f"{name}.safetensors")
        torch.save(states, tmp_path / "checkpoint.pt")
        return tmp_path / "checkpoint.pt"

    return save


@pytest.fixture
def ask(images_folder: Path, tmp_path: Path) -> Callable[..., TrainRequest]:
    """Return a function that makes a request to train from a file."""

    def make(file: Path, data: str | Path = images_folder, **keys: Any) -> TrainRequest:
        values = {"train.pretrained": str(file), "train.pretrained_as": "num_heads=2", "data.batch_size": 8,
                  "train.epochs": 1.0, "train.device": "cpu", "train.precision": "fp32"}  # fmt: skip
        values |= {key.replace("__", "."): value for key, value in keys.items()}
        return TrainRequest(data=str(data), values=values, out=tmp_path / "run")

    return make


def plan_of(request: TrainRequest) -> Plan:
    return dry_run(request)[1]


def chosen(plan: Plan) -> str:
    return plan.config.train.pretrained_weights


def reason(plan: Plan) -> str | None:
    return next((choice.reason for choice in plan.choices if choice.key == "train.pretrained_weights"), None)


@pytest.fixture(scope="module")
def short_run() -> tuple[VisionTransformer, VisionTransformer]:
    """A model trained on 500 digits for 150 steps, and its average with decay 0.9999: still the random start."""
    inputs, labels = load_digits(return_X_y=True)
    images, classes = torch.from_numpy(inputs[:500]).float().view(-1, 1, 8, 8) / 16 - 0.3, torch.from_numpy(labels)
    model, generator = fresh(DIGITS), torch.Generator().manual_seed(0)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9999))
    average.update_parameters(model)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        batch = torch.randint(500, (64,), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[batch]), classes[batch]).backward()
        optimizer.step()
        average.update_parameters(model)
    return model, average.module


@pytest.mark.slow
def test_raw_weights_replace_the_worthless_average_of_a_short_run(short_run: Any, save: Save, ask: Any) -> None:
    trained, average = short_run
    plan = plan_of(ask(save(model=trained, model_ema=average), "digits"))
    assert chosen(plan) == "model"
    assert "right with model and" in str(reason(plan))
    assert "chance" not in str(reason(plan))


@pytest.mark.slow
def test_good_average_is_kept_and_both_scores_are_given(short_run: Any, save: Save, ask: Any) -> None:
    trained, average = short_run
    plan = plan_of(ask(save(model=average, model_ema=trained), "digits"))
    assert chosen(plan) == "model_ema"
    assert "chance" not in str(reason(plan))


def test_config_plan_and_first_checkpoint_agree_on_the_choice(save: Save, ask: Any) -> None:
    raw, average = fresh(), fresh(scale=0.0)
    folder: RunFolder = run_training(ask(save(model=raw, model_ema=average), train__max_retries=0))
    assert read_config(folder.config).train.pretrained_weights == "model"
    page = folder.plan.read_text()
    assert (
        "| `train.pretrained_weights` | model | a linear classifier on the features gets 100.0% right with model"
        in page
    )
    assert "- reads model: a linear classifier" in page
    assert "reads model_ema" not in page
    first = load_file(folder.checkpoints / "step-000000000.safetensors")
    torch.testing.assert_close(first["model.tokenizer.proj.weight"], raw.state_dict()["tokenizer.proj.weight"])


def test_resumed_run_does_not_choose_again(save: Save, ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_training(ask(save(model=fresh(), model_ema=fresh(scale=0.0))))
    folder.model.unlink()
    monkeypatch.setattr("vitreous.training.prepare.with_better_weights", None)
    run_training(TrainRequest(resume=folder.path))
    assert folder.model.is_file()


def test_average_is_kept_if_the_difference_may_be_chance(save: Save, ask: Any) -> None:
    plan = plan_of(ask(save(model=fresh(seed=0), model_ema=fresh(seed=1))))
    assert chosen(plan) == "model_ema"
    assert str(reason(plan)).endswith("the difference may be chance, so the averaged weights are kept")


def test_choice_of_the_user_is_kept_and_nothing_is_scored(
    save: Save, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_or_averaged, "_load_images", None)
    file = save(model=fresh(), model_ema=fresh(scale=0.0))
    for weights in ("ema", "raw", "model_ema"):
        plan = plan_of(ask(file, train__pretrained_weights=weights))
        assert (chosen(plan), reason(plan)) == (weights, "you asked for it")
    assert chosen(plan_of(ask(save(model=fresh())))) == "auto"


def test_diverged_weights_lose(save: Save, ask: Any) -> None:
    plan = plan_of(ask(save(model=fresh(), model_ema=fresh(scale=1e38))))
    assert chosen(plan) == "model"


def test_only_training_images_are_scored_at_most_a_thousand(
    save: Save, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []
    original = store.load_store

    def spy(source: Any, indices: np.ndarray, *arguments: Any, **options: Any) -> store.Store:
        seen.append(indices)
        return original(source, indices, *arguments, **options)

    monkeypatch.setattr(raw_or_averaged, "load_store", spy)
    request = ask(save(model=fresh(DIGITS), model_ema=fresh(DIGITS, seed=1)), "digits")
    train = set(_train_indices(request))
    assert len(seen) == 1
    assert 900 < len(seen[0]) <= 1000
    assert set(seen[0].tolist()) <= train
    assert len(train) < 1300


def _train_indices(request: TrainRequest) -> list[int]:
    from vitreous.training.prepare import plan_run

    return list(plan_run(request, ignore)[0].indices["train"].tolist())


def test_other_vision_transformer_in_the_file_is_named_but_not_compared(save: Save, ask: Any) -> None:
    small = ModelConfig(img_size=(8, 8), patch_size=4, in_chans=3, num_classes=5, embed_dim=8, depth=1, num_heads=2)
    plan = plan_of(ask(save(student=fresh(small), teacher=fresh())))
    assert chosen(plan) == "auto"
    assert any("student is not compared" in note for note in plan.notes)
    assert any(note.startswith("reads teacher, averaged weights or a teacher, not student") for note in plan.notes)


def test_too_few_images_are_not_compared(save: Save, ask: Any, tmp_path: Path) -> None:
    colors = {"apple": ((220, 30, 40), 2), "kiwi": ((60, 190, 50), 40)}
    folder = write_pictures(tmp_path / "fruit", colors, seed=1, name="{:02d}.png", noise=40)
    plan = plan_of(ask(save(model=fresh(), model_ema=fresh(scale=0.0)), folder))
    assert chosen(plan) == "auto"
    assert any("too few to compare its raw and averaged weights" in note for note in plan.notes)


def test_labels_of_images_with_several_are_scored_too(
    save: Save, ask: Any, tmp_path: Path, images_folder: Path
) -> None:
    rows = [
        f"{path},{path.parent.name};{'round' if path.parent.name != 'kiwi' else 'hairy'}"
        for path in sorted(images_folder.rglob("*.png"))
    ]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["path,label", *rows]))
    plan = plan_of(ask(save(model=fresh(), model_ema=fresh(scale=0.0)), table))
    assert chosen(plan) == "model"


@pytest.mark.slow
def test_seeds_keep_the_choice_and_each_fold_chooses_by_its_own_training_images(
    save: Save, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = raw_or_averaged.with_better_weights

    def spy(plan: Plan, checkpoint: Any, *arguments: Any) -> Plan:
        calls.append(len(checkpoint.parts))
        return original(plan, checkpoint, *arguments)

    monkeypatch.setattr("vitreous.training.prepare.with_better_weights", spy)
    request = ask(save(model=fresh(), model_ema=fresh(scale=0.0)))
    series = TrainRequest(data=request.data, values=request.values, out=request.out, folds=2, seeds=2)
    folder: SeriesFolder = run_series(series, lambda run: None)
    chosen_by_runs = {
        name: read_config(RunFolder(folder.path / name).config).train.pretrained_weights
        for name in ("fold-0-seed-0", "fold-1-seed-0", "fold-0-seed-1", "fold-1-seed-1")
    }
    assert set(chosen_by_runs.values()) == {"model"}
    assert calls == [2, 2, 0, 2]  # the second run of fold 0 takes the choice over
