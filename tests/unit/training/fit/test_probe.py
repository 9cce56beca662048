"""Fitting what is familiar: bounded, stratified, decided by the seed, and with the score that the probe finds best."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import MemoryStore
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.training.fit import probe
from vitreous.training.fit.familiarity import SCORES, Familiarity
from vitreous.training.fit.probe import fit_familiarity

Stores = dict[str, MemoryStore]
MakeModel = Callable[..., VisionTransformer]


def store(num: int, *, channels: int = 3, seed: int = 0, labels: Tensor | None = None) -> MemoryStore:
    """Images of three classes with different brightness; their numbers in the source are 1000 and up."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.arange(num) % 3
    base = 60 + 60 * numbers[:, None, None, None]
    noise = torch.randint(-30, 31, (num, channels, 8, 12), generator=generator)
    return MemoryStore((base + noise).to(torch.uint8), numbers if labels is None else labels, 1000 + np.arange(num))


def stores(train: int = 60, val: int = 30, test: int = 0, **options: Any) -> Stores:
    counts = {"train": train, "val": val, "test": test}
    return {split: store(num, seed=n, **options) for n, (split, num) in enumerate(counts.items()) if num}


@pytest.fixture
def make_model() -> MakeModel:
    def make(**changes: Any) -> VisionTransformer:
        values: dict[str, Any] = {
            "img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 3, "embed_dim": 16, "depth": 1,
            "num_heads": 2,
        }  # fmt: skip
        return build_model(ModelConfig(**{**values, **changes}), generator=torch.Generator().manual_seed(1))

    return make


def fit(model: VisionTransformer, given: Stores, **options: Any) -> tuple[Familiarity, dict[str, Any]]:
    channels = model.config.in_chans
    preprocess = Preprocess(img_size=(8, 12), in_chans=channels, mean=(0.5,) * channels, std=(0.3,) * channels)
    found = fit_familiarity(model, preprocess, given, ("a", "b", "c"), **{"seed": 5, **options})
    assert found is not None
    return found


@pytest.mark.parametrize("pool", ["token", "mean", "max", "token_mean", "map", "sequence"])
def test_every_pool_can_be_fitted(pool: str, make_model: MakeModel) -> None:
    model = make_model(pool=pool)
    found, record = fit(model, stores())
    assert found.features.shape == (60, model.num_features)
    assert found.features.dtype == torch.float16
    torch.testing.assert_close(found.features.float().norm(dim=1), torch.ones(60), atol=2e-3, rtol=0)
    assert len(found.known) == 30
    assert 0 <= found.shrinkage <= 1
    assert record["split"] == "val"


@pytest.mark.parametrize("channels", [1, 5])
def test_images_with_other_numbers_of_channels_can_be_fitted(channels: int, make_model: MakeModel) -> None:
    found, record = fit(make_model(in_chans=channels), stores(channels=channels))
    assert set(record["auroc"]) == set(SCORES)
    assert found.known.isfinite().all()


def test_with_several_labels_per_image_sets_of_labels_are_the_groups(make_model: MakeModel) -> None:
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.bool).repeat(20, 1)
    given = {"train": store(60, labels=labels), "val": store(30, seed=1, labels=labels[:30])}
    found, _ = fit(make_model(), given)
    assert found.is_multilabel
    assert len(found.groups.unique()) == 3
    assert [len(found.groups[n::3].unique()) for n in range(3)] == [1, 1, 1]


def test_two_classes_with_two_training_images_each_share_one_mean(make_model: MakeModel) -> None:
    labels = torch.tensor([0, 1, 0, 1])
    given = {"train": store(4, labels=labels), "val": store(25, seed=1)}
    found, _ = fit(make_model(num_classes=2), given)
    assert found.groups.tolist() == [-1] * 4
    assert found.centered[1].shape == (1, 16)


def test_only_classes_with_few_images_share_a_mean(make_model: MakeModel) -> None:
    labels = torch.tensor([0] * 20 + [1] * 5 + [2] * 4 + [3] * 1)
    found, _ = fit(make_model(num_classes=4), {"train": store(30, labels=labels), "val": store(20, seed=1)})
    assert found.groups.tolist() == [0] * 20 + [1] * 5 + [-1] * 5


def test_a_model_with_constant_features_can_be_fitted(make_model: MakeModel) -> None:
    model = make_model()
    with torch.no_grad():
        for parameter in model.tokenizer.parameters():
            parameter.zero_()
    found, record = fit(model, stores())
    assert found.known.isfinite().all()
    assert all(0 <= value <= 1 for row in record["auroc"].values() for value in row.values())


def test_18_validation_images_are_too_few(make_model: MakeModel) -> None:
    preprocess = Preprocess(img_size=(8, 12), in_chans=3, mean=(0.5,) * 3, std=(0.3,) * 3)
    model, classes = make_model(), ("a", "b", "c")
    assert fit_familiarity(model, preprocess, stores(val=18), classes, seed=5) is None
    assert fit_familiarity(model, preprocess, stores(val=0), classes, seed=5) is None
    assert fit_familiarity(model, preprocess, stores(val=38), classes, seed=5, share=0.49) is None
    assert fit_familiarity(model, preprocess, stores(val=38), classes, seed=5, share=0.5) is not None


def test_the_share_limits_the_images_that_are_looked_at(make_model: MakeModel) -> None:
    model, seen = make_model(), 0

    def count(module: object, inputs: tuple[Tensor]) -> None:
        nonlocal seen
        seen += len(inputs[0])

    model.tokenizer.register_forward_pre_hook(count)
    found, record = fit(model, stores(train=120, val=60, test=40), share=0.5)
    assert (len(found.features), len(found.known), record["num_images"]) == (60, 30, 20)
    assert seen == 60 + 30 + 20 + 6 * 30


def test_large_sets_are_limited_with_the_share_of_each_class(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(probe.MOST_FAMILIAR, "train", 20)
    monkeypatch.setitem(probe.MOST_FAMILIAR, "val", 19)
    labels = torch.cat([torch.zeros(50), torch.ones(25), torch.full((25,), 2)]).long()
    found, _ = fit(make_model(), {"train": store(100, labels=labels), "val": store(70, seed=1)})
    assert found.groups.bincount().tolist() == [10, 5, 5]
    assert len(found.known) == 19


def test_wide_features_leave_room_for_fewer_images(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MOST_BYTES", 2 * 16 * 33)
    found, _ = fit(make_model(), stores())
    assert found.features.nbytes == 2 * 16 * 33


def test_the_seed_decides_everything(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(probe.MOST_FAMILIAR, "train", 20)
    first, again, other = (fit(make_model(), stores(test=10), seed=seed) for seed in (5, 5, 6))
    assert first[1] == again[1]
    assert torch.equal(first[0].features, again[0].features)
    assert torch.equal(first[0].known, again[0].known)
    assert not torch.equal(first[0].features, other[0].features)


def test_the_score_with_the_best_worst_auroc_is_chosen(make_model: MakeModel) -> None:
    found, record = fit(make_model(), stores(test=10))
    worst = {name: min(record["auroc"][name].values()) for name in SCORES}
    assert worst[found.score] == max(worst.values())
    assert record["score"] == found.score
    assert f"AUROC at least {worst[found.score]:.2f}" in record["text"]


def test_the_auroc_is_the_share_of_pairs_in_which_the_outlier_has_the_larger_score(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outliers that are training images, and outliers that are far away, have a known AUROC."""
    given = stores()
    monkeypatch.setattr(
        probe, "make_outliers", lambda some, classes, seed: {"same": given["val"].pixels[:30], "none": some * 0}
    )
    monkeypatch.setattr(probe, "_drawn", lambda store, num, seed: np.arange(num))
    found, record = fit(make_model(), given)
    assert {row["same"] for row in record["auroc"].values()} == {0.5}
    assert found.known.shape == (30,)


def test_the_record_counts_the_flagged_test_images_and_names_the_least_familiar(make_model: MakeModel) -> None:
    given = stores(test=40)
    given["test"].pixels[7] = torch.randint(256, (3, 8, 12), dtype=torch.uint8)
    record = fit(make_model(), given)[1]
    shares = [share for _, share in record["least_familiar"]]
    assert (record["split"], record["num_images"], len(shares)) == ("test", 40, 12)
    assert shares == sorted(shares, reverse=True)
    assert all(1000 <= number < 1040 for number, _ in record["least_familiar"])
    if record["num_flagged"] <= 12:
        assert sum(share >= 0.95 for share in shares) == record["num_flagged"]
