import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.binary import BinaryCrossEntropy
from vitreous.objective.build import build_criterion
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import balanced_class_weights

WEIGHTS = (0.5, 3.0, 1.0, 0.25, 2.0, 0.7, 1.4)


def draw() -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and mixed targets. The third image is not mixed, the second is mixed with its own class."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 7, generator=generator, dtype=torch.float64)
    labels = torch.randint(7, (4,), generator=generator)
    partners = torch.tensor([(int(labels[0]) + 2) % 7, int(labels[1]), 3, (int(labels[3]) + 1) % 7])
    own = torch.tensor([0.7, 0.4, 1.0, 0.15], dtype=torch.float64)[:, None]
    eye = torch.eye(7, dtype=torch.float64)
    return logits, labels, own * eye[labels] + (1 - own) * eye[partners]


def naive_image(row: list[float], wanted: list[float], smoothing: float) -> float:
    """The definition for one image, class by class, in Python's float64."""
    loss = 0.0
    for value, target in zip(row, wanted, strict=True):
        smooth = (1 - smoothing) * target + smoothing / len(row)
        chance = 1 / (1 + math.exp(-value))
        loss -= smooth * math.log(chance) + (1 - smooth) * math.log(1 - chance)
    return loss / len(row)


def naive_loss(
    logits: Tensor, targets: Tensor, smoothing: float, threshold: float | None, weights: tuple[float, ...]
) -> float:
    """Mean of the losses of the labels, weighted by their proportions and class weights."""
    total = weight = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for label, share in enumerate(target):
            one_hot = [float(label == other) for other in range(7)]
            wanted = one_hot if threshold is None else [float(other > threshold) for other in target]
            total += share * weights[label] * naive_image(row, wanted, smoothing)
            weight += share * weights[label]
    return total / weight


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_of_labels_equals_pytorchs_for_smoothed_one_hot_targets(smoothing: float) -> None:
    logits, labels, _ = draw()
    wanted = (1 - smoothing) * F.one_hot(labels, 7).double() + smoothing / 7
    expected = F.binary_cross_entropy_with_logits(logits, wanted)
    loss = BinaryCrossEntropy(label_smoothing=smoothing)(logits, labels)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("threshold", [None, 0.0, 0.2, 0.8])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_of_mixed_targets_equals_the_definition_in_float64(
    smoothing: float, threshold: float | None, weights: tuple[float, ...] | None
) -> None:
    logits, _, targets = draw()
    loss = BinaryCrossEntropy(label_smoothing=smoothing, threshold=threshold, class_weights=weights)(logits, targets)
    expected = naive_loss(logits, targets, smoothing, threshold, weights or (1.0,) * 7)
    torch.testing.assert_close(loss, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)


def test_threshold_of_zero_makes_both_classes_of_a_mixed_image_full_targets() -> None:
    logits, _, targets = draw()
    expected = F.binary_cross_entropy_with_logits(logits, targets.gt(0.0).double())
    torch.testing.assert_close(BinaryCrossEntropy(threshold=0.0)(logits, targets), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("threshold", [None, 0.0, 0.2])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_one_hot_targets_give_the_loss_of_class_indices(
    threshold: float | None, weights: tuple[float, ...] | None
) -> None:
    logits, labels, _ = draw()
    criterion = BinaryCrossEntropy(label_smoothing=0.1, threshold=threshold, class_weights=weights)
    torch.testing.assert_close(criterion(logits, torch.eye(7)[labels]), criterion(logits, labels))


def test_class_weight_equals_showing_images_more_often() -> None:
    logits, labels, _ = draw()
    times = [1, 4, 2, 1, 3, 2, 5]
    repeated = torch.tensor([times[label] for label in labels.tolist()])
    plain = BinaryCrossEntropy(label_smoothing=0.2)
    expected = plain(logits.repeat_interleave(repeated, dim=0), labels.repeat_interleave(repeated))
    weighted = BinaryCrossEntropy(label_smoothing=0.2, class_weights=[0.3 * count for count in times])
    torch.testing.assert_close(weighted(logits, labels), expected, rtol=1e-6, atol=0)


def test_gradient_is_sigmoid_minus_target() -> None:
    logits, labels, _ = draw()
    logits.requires_grad_()
    BinaryCrossEntropy(label_smoothing=0.1)(logits, labels).backward()
    wanted = 0.9 * F.one_hot(labels, 7).double() + 0.1 / 7
    torch.testing.assert_close(logits.grad, (logits.detach().sigmoid() - wanted) / 28, rtol=1e-5, atol=1e-7)


def test_large_logits_keep_their_precision_and_do_not_overflow() -> None:
    logits, labels = torch.tensor([[15.0, -15.0], [3e4, -3e4]]), torch.tensor([0, 1])
    losses = [BinaryCrossEntropy()(row, label) for row, label in zip(logits.split(1), labels.split(1), strict=True)]
    torch.testing.assert_close(losses, [torch.tensor(math.log1p(math.exp(-15))), torch.tensor(3e4)], rtol=1e-6, atol=0)


def test_half_precision_logits_are_computed_in_float32() -> None:
    exact, _, targets = draw()
    logits = exact.to(torch.bfloat16).requires_grad_()
    loss = BinaryCrossEntropy(class_weights=WEIGHTS)(logits, targets.float())
    loss.backward()
    expected = naive_loss(logits.detach().double(), targets, 0.0, None, WEIGHTS)
    torch.testing.assert_close(loss, torch.tensor(expected), rtol=1e-5, atol=0)
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_batch_of_classes_with_weight_zero_has_loss_zero() -> None:
    logits, labels, _ = draw()
    assert float(BinaryCrossEntropy(class_weights=[0.0] * 7)(logits, labels)) == 0.0


def test_config_sets_loss_smoothing_threshold_and_weights() -> None:
    logits, _, targets = draw()
    counts = [9, 3, 4, 1, 8, 2, 6]
    config = ObjectiveConfig(loss="bce", label_smoothing=0.25, bce_threshold=0.2, class_weights="balanced")
    expected = BinaryCrossEntropy(label_smoothing=0.25, threshold=0.2, class_weights=balanced_class_weights(counts))
    torch.testing.assert_close(build_criterion(config, counts)(logits, targets), expected(logits, targets))
    assert list(build_criterion(config, counts).state_dict()) == []
