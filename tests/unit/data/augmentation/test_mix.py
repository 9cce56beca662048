import numpy as np
import pytest
import torch
from torch import Tensor

from vitreous.data.augmentation.mix import Mix

HEIGHT, WIDTH, CLASSES = 11, 17, 7


def batch_of(num: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num)
    return torch.randn(num, 3, HEIGHT, WIDTH, generator=generator), torch.randint(CLASSES, (num,), generator=generator)


def partners(num: int) -> list[int]:
    return [(i + num // 2) % num for i in range(num)]


def shares(images: Tensor, mixed: Tensor) -> Tensor:
    """Compute each image's own share of each mixed pixel, `[batch, height, width]`, from the result."""
    other = images[partners(len(images))]
    return ((mixed - other) * (images - other)).sum(1) / (images - other).square().sum(1)


def naive_targets(labels: Tensor, own: Tensor) -> Tensor:
    targets = torch.zeros(len(labels), CLASSES)
    for i, partner in enumerate(partners(len(labels))):
        targets[i, labels[i]] += own[i]
        targets[i, labels[partner]] += 1 - own[i]
    return targets


@pytest.mark.parametrize("num", [2, 5, 8])
@pytest.mark.parametrize("per_pair", [False, True])
def test_mixup_blends_each_image_and_its_label_in_the_same_proportion(num: int, per_pair: bool) -> None:
    images, labels = batch_of(num)
    mixed, targets = Mix(num_classes=CLASSES, mixup_alpha=0.8, per_pair=per_pair)(images, labels, 3)
    own = shares(images, mixed).mean(dim=(1, 2))
    other = images[partners(num)]
    expected = own.view(-1, 1, 1, 1) * images + (1 - own.view(-1, 1, 1, 1)) * other
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(targets, naive_targets(labels, own), atol=1e-5, rtol=0)
    assert (len({round(float(share), 4) for share in own}) > 1) is per_pair


@pytest.mark.parametrize("num", [2, 5, 8])
@pytest.mark.parametrize("per_pair", [False, True])
def test_cutmix_pastes_a_rectangle_and_weights_the_label_by_its_area(num: int, per_pair: bool) -> None:
    images, labels = batch_of(num)
    for seed in range(20):
        mixed, targets = Mix(num_classes=CLASSES, cutmix_alpha=1.0, per_pair=per_pair)(images, labels, seed)
        other = images[partners(num)]
        taken = (mixed == other).all(dim=1)
        torch.testing.assert_close(mixed, torch.where(taken[:, None], other, images), atol=0, rtol=0)
        for mask in taken:  # a rectangle equals the product of its rows and columns
            torch.testing.assert_close(mask, mask.any(dim=1)[:, None] & mask.any(dim=0)[None, :])
        own = 1 - taken.float().mean(dim=(1, 2))
        torch.testing.assert_close(targets, naive_targets(labels, own), atol=1e-6, rtol=0)


def test_label_weight_is_that_of_the_rectangle_inside_the_image() -> None:
    images, labels = batch_of(2)
    labels = torch.tensor([1, 4])
    sizes = set()
    for seed in range(60):
        mixed, targets = Mix(num_classes=CLASSES, cutmix_alpha=1.0)(images, labels, seed)
        taken = int((mixed[0] == images[1]).all(dim=0).sum())
        sizes.add(taken)
        assert float(targets[0, 4]) == pytest.approx(taken / (HEIGHT * WIDTH), abs=1e-6)
    assert len(sizes) > 20


def test_shares_have_the_mean_and_variance_of_their_beta_distribution() -> None:
    images, labels = torch.zeros(4000, 1, 1, 1), torch.zeros(4000, dtype=torch.int64)
    labels[2000:] = 1
    _, targets = Mix(num_classes=2, mixup_alpha=0.4, per_pair=True)(images, labels, 1)
    own = torch.cat([targets[:2000, 0], targets[2000:, 1]])
    assert float(own.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(own.var()) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), abs=0.01)


def test_cutmix_rate_is_the_frequency_of_cutmix() -> None:
    images, labels = batch_of(2000)
    mixed, _ = Mix(num_classes=CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_rate=0.3, per_pair=True)(
        images, labels, 5
    )
    own = shares(images, mixed)
    cut = ((own < 1e-3) | (own > 1 - 1e-3)).flatten(1).all(dim=1).float().mean()
    assert float(cut) == pytest.approx(0.3, abs=0.06)  # some shares of mixup are near 0 or 1 as well


@pytest.mark.parametrize("rate", [0.0, 0.35])
def test_images_that_are_not_mixed_do_not_change_bit_for_bit(rate: float) -> None:
    images, labels = batch_of(1001)
    mixed, targets = Mix(num_classes=CLASSES, mixup_alpha=1.0, cutmix_alpha=1.0, rate=rate, per_pair=True)(
        images, labels, 5
    )
    same = (mixed == images).flatten(1).all(dim=1)
    assert float(same.float().mean()) == pytest.approx(1 - rate, abs=0.06)
    torch.testing.assert_close(targets[same].argmax(dim=1), labels[same])


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_rate_is_the_frequency_of_mixed_batches(rate: float) -> None:
    images, labels = batch_of(6)
    mix = Mix(num_classes=CLASSES, mixup_alpha=1.0, rate=rate)
    mixed = [not torch.equal(mix(images, labels, seed)[0], images) for seed in range(200)]
    assert np.mean(mixed) == pytest.approx(rate, abs=0.12)


@pytest.mark.parametrize("per_pair", [False, True])
def test_batch_of_one_image_does_not_change(per_pair: bool) -> None:
    images, labels = batch_of(1)
    mix = Mix(num_classes=CLASSES, mixup_alpha=1.0, cutmix_alpha=1.0, per_pair=per_pair)
    for seed in range(9):
        mixed, targets = mix(images, labels, seed)
        torch.testing.assert_close(mixed, images)
        torch.testing.assert_close(targets, torch.nn.functional.one_hot(labels, CLASSES).float())


@pytest.mark.parametrize("per_pair", [False, True])
def test_draws_depend_on_only_the_seed(per_pair: bool) -> None:
    images, labels = batch_of(6)
    mix = Mix(num_classes=CLASSES, mixup_alpha=0.8, cutmix_alpha=1.0, per_pair=per_pair)
    first = mix(images, labels, 4)[0]
    torch.manual_seed(17)
    again, other = mix(images, labels, 4)[0], mix(images, labels, 5)[0]
    torch.testing.assert_close(first, again, atol=0, rtol=0)
    assert not torch.equal(first, other)


def test_rows_of_targets_sum_to_one_and_adjacent_copies_are_not_partners() -> None:
    images, labels = batch_of(4)
    images, labels = images.repeat_interleave(3, dim=0), labels.repeat_interleave(3)
    mixed, targets = Mix(num_classes=CLASSES, mixup_alpha=1.0, per_pair=True)(images, labels, 2)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(12))
    assert not (mixed == images).flatten(1).all(dim=1).any()


def test_half_precision_images_keep_their_type_and_get_exact_targets() -> None:
    images, labels = batch_of(3)
    mix = Mix(num_classes=CLASSES, mixup_alpha=1.0)
    mixed, targets = mix(images.bfloat16(), labels, 2)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(targets, mix(images, labels, 2)[1], atol=0, rtol=0)
