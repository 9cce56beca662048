import math

import pytest
import torch
from torch import nn

from vitreous.objective.build import build_objective
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy


def naive_loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> float:
    """The definition, number by number, in Python's own float64."""
    rows = logits.double().tolist()
    total = 0.0
    for row, label in zip(rows, labels.tolist(), strict=True):
        log_normaliser = math.log(sum(math.exp(value - max(row)) for value in row)) + max(row)
        for column, value in enumerate(row):
            target = (1 - smoothing) * (column == label) + smoothing / len(row)
            total -= target * (value - log_normaliser)
    return total / len(rows)


def draw(*, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(4, 7, generator=generator, dtype=torch.float64)
    return logits, torch.randint(7, (4,), generator=generator)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_loss_is_the_naive_definition_in_float64(smoothing: float) -> None:
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
def test_half_precision_logits_are_read_as_float32(dtype: torch.dtype) -> None:
    exact, labels = draw()
    logits = exact.to(dtype)
    loss = CrossEntropy(label_smoothing=0.1)(logits, labels)
    assert loss.dtype == torch.float32
    expected = torch.tensor(naive_loss(logits, labels, 0.1))
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_gradient_of_half_precision_logits_comes_back_in_their_own_precision() -> None:
    exact, labels = draw()
    logits = exact.to(torch.bfloat16).requires_grad_()
    CrossEntropy()(logits, labels).backward()
    assert logits.grad is not None
    assert logits.grad.dtype == torch.bfloat16


def test_large_logits_do_not_overflow() -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]])
    torch.testing.assert_close(CrossEntropy()(logits, torch.tensor([1])), torch.tensor(6e4))


def test_config_decides_the_smoothing() -> None:
    objective = build_objective(ObjectiveConfig(label_smoothing=0.25))
    assert isinstance(objective, nn.Module)
    logits, labels = draw()
    torch.testing.assert_close(
        objective(logits, labels), torch.tensor(naive_loss(logits, labels, 0.25), dtype=torch.float64)
    )
