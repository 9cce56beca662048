import math

import pytest
import torch
from torch import nn

from vitreous.objective.build import build_criterion
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy, balanced_class_weights


def naive_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    """The definition, number by number, in Python's float64."""
    rows = logits.double().tolist()
    total = 0.0
    for row, label in zip(rows, labels.tolist(), strict=True):
        log_normalizer = math.log(sum(math.exp(value - max(row)) for value in row)) + max(row)
        for column, value in enumerate(row):
            target = (1 - smoothing) * (column == label) + smoothing / len(row)
            total -= target * (value - log_normalizer)
    return total / len(rows)


def draw(*, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(4, 7, generator=generator, dtype=torch.float64)
    return logits, torch.randint(7, (4,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_equals_the_definition_in_float64(smoothing: float) -> None:
    logits, labels = draw()
    loss = CrossEntropy(label_smoothing=smoothing)(logits, labels)
    expected = torch.tensor(naive_loss(logits, labels, smoothing), dtype=torch.float64)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradient_is_softmax_minus_target(smoothing: float) -> None:
    logits, labels = draw()
    logits.requires_grad_()
    CrossEntropy(label_smoothing=smoothing)(logits, labels).backward()
    target = torch.full((4, 7), smoothing / 7, dtype=torch.float64)
    target[torch.arange(4), labels] += 1 - smoothing
    torch.testing.assert_close(logits.grad, (logits.detach().softmax(dim=1) - target) / 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    exact, labels = draw()
    logits = exact.to(dtype)
    loss = CrossEntropy(label_smoothing=0.1)(logits, labels)
    assert loss.dtype == torch.float32
    expected = torch.tensor(naive_loss(logits, labels, 0.1))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_gradient_of_half_precision_logits_has_their_dtype() -> None:
    exact, labels = draw()
    logits = exact.to(torch.bfloat16).requires_grad_()
    CrossEntropy()(logits, labels).backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]])
    torch.testing.assert_close(CrossEntropy()(logits, torch.tensor([1])), torch.tensor(6e4))


def test_config_sets_the_smoothing() -> None:
    objective = build_criterion(ObjectiveConfig(label_smoothing=0.25))
    assert isinstance(objective, nn.Module)
    logits, labels = draw()
    torch.testing.assert_close(
        objective(logits, labels), torch.tensor(naive_loss(logits, labels, 0.25), dtype=torch.float64)
    )


# Soft targets and class weights.

WEIGHTS = (0.5, 3.0, 1.0, 0.25, 2.0, 0.7, 1.4)


def naive_weighted_loss(
    logits: torch.Tensor, targets: torch.Tensor, smoothing: float, weights: tuple[float, ...] = (1.0,) * 7
) -> float:
    """Mean of the smoothed losses of the labels, weighted by their proportions and class weights."""
    total = weight = 0.0
    for row, target in zip(logits.split(1), targets.tolist(), strict=True):
        for label, share in enumerate(target):
            total += share * weights[label] * naive_loss(row, torch.tensor([label]), smoothing)
            weight += share * weights[label]
    return total / weight


def draw_mixed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, labels, partners' labels and mixed targets. One image is not mixed, one is mixed with its own class."""
    logits, labels = draw()
    partners = torch.tensor([(int(labels[0]) + 2) % 7, int(labels[1]), 3, 5])
    own = torch.tensor([0.7, 0.4, 1.0, 0.15], dtype=torch.float64)[:, None]
    targets = own * torch.eye(7, dtype=torch.float64)[labels] + (1 - own) * torch.eye(7, dtype=torch.float64)[partners]
    return logits, labels, partners, targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_of_soft_targets_equals_the_definition_in_float64(
    smoothing: float, weights: tuple[float, ...] | None
) -> None:
    logits, _, _, targets = draw_mixed()
    loss = CrossEntropy(label_smoothing=smoothing, class_weights=weights)(logits, targets)
    expected = naive_weighted_loss(logits, targets, smoothing, weights or (1.0,) * 7)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothing_of_soft_targets_equals_timms_mix_of_smoothed_labels(smoothing: float) -> None:
    logits, labels, partners, targets = draw_mixed()
    own = torch.tensor([0.7, 0.4, 1.0, 0.15], dtype=torch.float64)[:, None]
    off = smoothing / 7
    smooth = [torch.full((4, 7), off, dtype=torch.float64).scatter_(1, y[:, None], 1 - smoothing + off)
              for y in (labels, partners)]  # fmt: skip
    mixed = own * smooth[0] + (1 - own) * smooth[1]
    expected = -(mixed * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(CrossEntropy(label_smoothing=smoothing)(logits, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_one_hot_targets_give_the_loss_of_class_indices(smoothing: float, weights: tuple[float, ...] | None) -> None:
    logits, labels = draw()
    objective = CrossEntropy(label_smoothing=smoothing, class_weights=weights)
    onehot = torch.eye(7, dtype=torch.float32)[labels]
    torch.testing.assert_close(objective(logits, onehot), objective(logits, labels), rtol=1e-12, atol=0)


def test_weighted_loss_without_smoothing_equals_pytorchs() -> None:
    logits, labels = draw()
    expected = nn.functional.cross_entropy(logits, labels, weight=torch.tensor(WEIGHTS, dtype=torch.float64))
    torch.testing.assert_close(CrossEntropy(class_weights=WEIGHTS)(logits, labels), expected, rtol=1e-6, atol=0)


def test_class_weight_equals_showing_images_more_often() -> None:
    logits, labels = draw()
    times = [1, 4, 2, 1, 3, 2, 5]
    repeated = torch.tensor([times[label] for label in labels.tolist()])
    objective = CrossEntropy(label_smoothing=0.2)
    expected = objective(logits.repeat_interleave(repeated, dim=0), labels.repeat_interleave(repeated))
    weighted = CrossEntropy(label_smoothing=0.2, class_weights=[0.3 * count for count in times])
    torch.testing.assert_close(weighted(logits, labels), expected, rtol=1e-6, atol=0)


def test_equal_weights_change_nothing() -> None:
    logits, _, _, targets = draw_mixed()
    plain = CrossEntropy(label_smoothing=0.1)(logits, targets)
    torch.testing.assert_close(CrossEntropy(label_smoothing=0.1, class_weights=[2.5] * 7)(logits, targets), plain)


def test_half_precision_logits_accept_float32_targets_and_weights() -> None:
    exact, _, _, targets = draw_mixed()
    logits = exact.to(torch.bfloat16).requires_grad_()
    loss = CrossEntropy(label_smoothing=0.1, class_weights=WEIGHTS)(logits, targets.float())
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(
        loss, torch.tensor(naive_weighted_loss(logits, targets, 0.1, WEIGHTS)), rtol=1e-5, atol=0
    )


def test_batch_of_classes_with_weight_zero_has_loss_and_gradient_zero() -> None:
    logits, labels = draw()
    logits.requires_grad_()
    loss = CrossEntropy(class_weights=[0.0] * 7)(logits, labels)
    loss.backward()
    assert float(loss.detach()) == 0.0
    torch.testing.assert_close(logits.grad, torch.zeros(4, 7, dtype=torch.float64))


def test_balanced_weights_give_classes_equal_totals_and_images_mean_one() -> None:
    counts = [40, 0, 5, 15]
    weights = balanced_class_weights(counts)
    assert weights == pytest.approx((0.5, 0.0, 4.0, 4 / 3))
    assert sum(count * weight for count, weight in zip(counts, weights, strict=True)) == pytest.approx(sum(counts))


def test_config_sets_the_class_weights() -> None:
    logits, labels = draw()
    counts = [9, 3, 4, 1, 8, 2, 6]
    balanced = build_criterion(ObjectiveConfig(label_smoothing=0.25, class_weights="balanced"), counts)
    expected = CrossEntropy(label_smoothing=0.25, class_weights=balanced_class_weights(counts))
    torch.testing.assert_close(balanced(logits, labels), expected(logits, labels))
    for objective in (
        build_criterion(ObjectiveConfig(label_smoothing=0.25, class_weights="balanced")),
        build_criterion(ObjectiveConfig(label_smoothing=0.25), counts),
    ):
        torch.testing.assert_close(objective(logits, labels), CrossEntropy(label_smoothing=0.25)(logits, labels))
    assert list(balanced.state_dict()) == []
