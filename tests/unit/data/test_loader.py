import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.policy import RandAugment
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.loader import Batch, EvalLoader, Prefetcher, TrainLoader
from vitreous.data.pixels.store import MemoryStore
from vitreous.errors import ConfigError, DataError
from vitreous.seeding import derive

PREPROCESS = Preprocess((5, 7), 3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
AUGMENT = Augment(flip=True, max_shift=0.3, max_rotate_deg=30.0)


def store_of(num_images: int) -> MemoryStore:
    pixels = np.random.default_rng(0).integers(0, 256, (num_images, 3, 5, 7), dtype=np.uint8)
    return MemoryStore(torch.from_numpy(pixels), torch.arange(num_images) % 4)


def loader_of(
    num_images: int, batch_size: int, *, augment: Augment = AUGMENT, seed: int = 11, repeats: int = 1
) -> TrainLoader:
    return TrainLoader(store_of(num_images), PREPROCESS, augment, batch_size, seed, repeats=repeats)


def assert_same(first: Batch, second: Batch) -> None:
    torch.testing.assert_close(first.images, second.images, atol=0, rtol=0)
    torch.testing.assert_close(first.labels, second.labels)
    np.testing.assert_array_equal(first.indices, second.indices)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [(3, 256, [3]), (1, 1, [1]), (10, 4, [3, 3, 4]), (12, 4, [4, 4, 4]), (257, 256, [128, 129]), (5, 1, [1] * 5)],
)
def test_epoch_shows_every_image_once_in_nearly_equal_batches(
    num_images: int, batch_size: int, sizes: list[int]
) -> None:
    loader = loader_of(num_images, batch_size)
    assert loader.steps_per_epoch == len(sizes)
    for epoch in (0, 3):
        batches = [loader.batch(epoch * len(sizes) + step) for step in range(len(sizes))]
        assert [len(batch.labels) for batch in batches] == sizes
        np.testing.assert_array_equal(np.sort(np.concatenate([b.indices for b in batches])), np.arange(num_images))


def test_batch_holds_augmented_normalized_images_and_their_labels() -> None:
    store = store_of(10)
    batch = TrainLoader(store, PREPROCESS, AUGMENT, 4, 11).batch(5)
    augmented = AUGMENT(store.take(batch.indices), batch.indices, derive(11, "augment", 1))
    torch.testing.assert_close(batch.images, PREPROCESS.normalize(augmented))
    torch.testing.assert_close(batch.labels, torch.from_numpy(batch.indices % 4))
    assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (torch.float32, torch.int64, np.int64)


@pytest.mark.parametrize("repeats", [1, 2])
def test_targets_replace_the_labels_of_their_images(repeats: int) -> None:
    loader, targets = loader_of(10, 4, repeats=repeats), torch.rand(10, 3)
    before = loader.batch(5)
    loader.replace_labels(targets)
    batch, features = loader.batch(5), loader.features_batch(torch.rand(10, 2), 5)
    torch.testing.assert_close(batch.images, before.images, rtol=0, atol=0)
    for found in batch, features:
        assert found.indices.tolist() == before.indices.tolist()
        assert torch.equal(found.labels, targets[before.indices])
    assert torch.equal(loader.each_once(4).labels, torch.arange(10) % 4)


def test_batch_does_not_depend_on_how_many_images_are_augmented_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    augment = Augment(flip=True, min_crop_area=0.3, max_rotate_deg=20, policies=[RandAugment()])
    loader = TrainLoader(store_of(23), PREPROCESS, augment, batch_size=23, seed=3)
    together = loader.batch(1)
    monkeypatch.setattr("vitreous.data.loader.BYTES_AT_ONCE", 5 * together.images[0].nbytes)
    assert_same(loader.batch(1), together)
    monkeypatch.setattr("vitreous.data.loader.BYTES_AT_ONCE", 1)
    assert_same(loader.batch(1), together)


def test_batch_does_not_depend_on_which_steps_were_taken_before() -> None:
    forward, backward = loader_of(10, 4), loader_of(10, 4)
    batches = {step: forward.batch(step) for step in range(9)}
    for step in reversed(range(9)):
        assert_same(backward.batch(step), batches[step])


def test_epochs_and_seeds_differ_in_order_and_augmentation() -> None:
    loader = loader_of(40, 40)
    first, second, other = loader.batch(0), loader.batch(1), loader_of(40, 40, seed=12).batch(0)
    assert not np.array_equal(first.indices, second.indices)
    assert not np.array_equal(first.indices, other.indices)
    place = int(np.flatnonzero(second.indices == first.indices[0])[0])
    assert not torch.allclose(first.images[0], second.images[place])


def test_another_attempt_augments_the_same_images_differently() -> None:
    loader = loader_of(10, 4)
    first, again, third = (loader.batch(5, attempt) for attempt in (0, 1, 2))
    np.testing.assert_array_equal(first.indices, again.indices)
    assert not torch.allclose(first.images, again.images)
    assert not torch.allclose(again.images, third.images)
    assert_same(loader.batch(5, 1), again)


# Images that are shown several times: repeats and weights.


@pytest.mark.parametrize(
    ("num_images", "batch_size", "repeats"),
    [(100, 32, 3), (100, 3, 3), (10, 64, 3), (2, 9, 4), (1, 5, 5), (7, 5, 2), (97, 31, 5)],
)
def test_round_shows_all_copies_of_every_image_in_one_batch(num_images: int, batch_size: int, repeats: int) -> None:
    loader = loader_of(num_images, batch_size, repeats=repeats)
    num_steps = round(loader.steps_per_epoch * repeats)
    assert loader.steps_per_epoch == num_steps / repeats
    for number in (0, 2):
        batches = [loader.batch(number * num_steps + step) for step in range(num_steps)]
        assert all(0 < len(batch.labels) <= batch_size for batch in batches)
        for batch in batches:
            assert set(np.unique(batch.indices, return_counts=True)[1]) == {repeats}
        shown = np.concatenate([batch.indices for batch in batches])
        np.testing.assert_array_equal(np.sort(shown), np.arange(num_images).repeat(repeats))


def test_epoch_with_repeats_has_about_the_steps_of_one_without() -> None:
    assert loader_of(100, 30, repeats=3).steps_per_epoch == 10 / 3
    assert loader_of(100, 30).steps_per_epoch == 4
    assert isinstance(loader_of(100, 30).steps_per_epoch, int)


def test_copies_of_an_image_are_augmented_differently_and_reproducibly() -> None:
    store = store_of(10)
    loader = TrainLoader(store, PREPROCESS, AUGMENT, 6, 11, repeats=3)
    batch = loader.batch(6)  # a round has five steps
    for place in (0, 3):
        image = batch.indices[place]
        numbers = image + 10 * np.arange(3)
        augmented = AUGMENT(store.take(np.full(3, image)), numbers, derive(11, "augment", 1))
        expected = PREPROCESS.normalize(augmented)
        torch.testing.assert_close(batch.images[place : place + 3], expected, atol=1e-4, rtol=0)
        assert not torch.allclose(batch.images[place], batch.images[place + 1])
    torch.testing.assert_close(batch.labels, torch.from_numpy(batch.indices % 4))
    assert_same(loader_of(10, 6, repeats=3).batch(6), batch)


def test_weights_show_images_more_often_and_augment_each_showing_differently() -> None:
    weights = np.ones(40)
    weights[7] = 13.0
    loader = TrainLoader(store_of(40), PREPROCESS, AUGMENT, 40, 11, weights=weights)
    for epoch in range(5):
        batch = loader.batch(epoch)
        places = np.flatnonzero(batch.indices == 7)
        assert len(batch.indices) == 40
        assert len(places) in (10, 11)
        images = batch.images[places].flatten(1)
        assert all(not torch.allclose(images[0], other) for other in images[1:])
    assert_same(TrainLoader(store_of(40), PREPROCESS, AUGMENT, 40, 11, weights=weights).batch(4), loader.batch(4))


def test_weights_that_do_not_fit_the_store_are_an_error() -> None:
    with pytest.raises(DataError, match=r"^weights=4: there are 10 images; give one weight per image$"):
        TrainLoader(store_of(10), PREPROCESS, AUGMENT, 4, 11, weights=np.ones(4))


def test_evaluation_shows_all_images_in_order_without_augmentation() -> None:
    store = store_of(11)
    batches = list(EvalLoader(store, PREPROCESS, 4))
    assert len(EvalLoader(store, PREPROCESS, 4)) == 3
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([batch.indices for batch in batches]), np.arange(11))
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), PREPROCESS.normalize(store.pixels))
    torch.testing.assert_close(torch.cat([batch.labels for batch in batches]), store.labels)


def test_evaluation_of_an_empty_store_gives_no_batch() -> None:
    loader = EvalLoader(store_of(0), PREPROCESS, 4)
    assert (len(loader), list(loader)) == (0, [])


def test_training_on_an_empty_store_is_an_error() -> None:
    with pytest.raises(DataError) as caught:
        loader_of(0, 4)
    assert str(caught.value) == "data: 0 training images; add at least one"


def test_preprocess_without_mean_is_an_error_at_the_first_batch() -> None:
    loader = TrainLoader(store_of(3), replace(PREPROCESS, mean=None, std=None), AUGMENT, 2, 1)
    with pytest.raises(ConfigError, match=r"^preprocess\.mean=None: must be set to normalize; "):
        loader.batch(0)


def test_prefetched_batches_equal_the_loaders_in_any_order() -> None:
    loader = loader_of(10, 4)
    with Prefetcher(loader) as prefetcher:
        assert prefetcher.steps_per_epoch == 3
        for step in [0, 1, 2, 3, 3, 9, 1, 2]:
            assert_same(prefetcher.batch(step), loader.batch(step))
        assert_same(prefetcher.batch(4, 2), loader.batch(4, 2))


def test_next_batch_is_prepared_while_the_current_one_trains() -> None:
    loader = loader_of(10, 4)
    requested: list[int] = []
    prepared = threading.Event()
    original = loader.batch

    def record(step: int, attempt: int = 0) -> Batch:
        requested.append(step)
        if step == 2:
            prepared.set()
        return original(step, attempt)

    loader.batch = record  # type: ignore[method-assign]
    with Prefetcher(loader) as prefetcher:
        prefetcher.batch(0)
        assert prepared.wait(timeout=30)
    assert requested == [0, 1, 2]


def test_error_in_the_thread_is_raised_with_its_batch() -> None:
    loader = TrainLoader(store_of(3), replace(PREPROCESS, mean=None, std=None), AUGMENT, 2, 1)
    with (
        Prefetcher(loader) as prefetcher,
        pytest.raises(ConfigError, match=r"^preprocess\.mean=None: must be set to normalize; "),
    ):
        prefetcher.batch(0)


def test_closing_ends_the_thread() -> None:
    before = threading.active_count()
    prefetcher = Prefetcher(loader_of(10, 4))
    prefetcher.batch(0)
    prefetcher.close()
    prefetcher.close()
    assert threading.active_count() == before


def test_shares_of_all_processes_are_the_batch_of_one_process() -> None:
    whole = TrainLoader(store_of(11), PREPROCESS, AUGMENT, 8, 11, repeats=2)
    shares = [TrainLoader(store_of(11), PREPROCESS, AUGMENT, 8, 11, repeats=2, share=(rank, 3)) for rank in range(3)]
    for step in range(9):
        batches = [loader.batch(step) for loader in shares]
        torch.testing.assert_close(torch.cat([b.images for b in batches]), whole.batch(step).images, rtol=0, atol=0)
        np.testing.assert_array_equal(np.concatenate([b.indices for b in batches]), whole.batch(step).indices)
        assert min(len(batch.labels) for batch in batches) >= shares[0].least_images


def test_evaluation_shares_of_all_processes_cover_each_image_once() -> None:
    found = [list(EvalLoader(store_of(9), PREPROCESS, 4, share=(rank, 3))) for rank in range(3)]
    assert [len(batches) for batches in found] == [3, 3, 3]
    positions = np.concatenate([batch.indices for batches in found for batch in batches])
    assert sorted(positions.tolist()) == list(range(9))


@pytest.mark.parametrize(
    ("num_images", "batch_size", "rule"),
    [
        (10, 2, "2 images per batch cannot be shared among 3 processes; use at most 2 processes"),
        (1, 64, "1 image per batch cannot be shared among 3 processes; use at most 1 process"),
    ],
)
def test_more_processes_than_images_in_a_batch_are_an_error(num_images: int, batch_size: int, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainLoader(store_of(num_images), PREPROCESS, AUGMENT, batch_size, 11, share=(0, 3))
    assert str(caught.value) == f"data.batch_size={batch_size}: {rule}"
