import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vitreous.objective.build import build_criterion, build_task
from vitreous.objective.config import ObjectiveConfig
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.logit_adjustment import LogitAdjusted

COUNTS = (900, 60, 30, 7, 3)
WEIGHTS = (0.5, 3.0, 1.0, 0.25, 2.0)


def draw() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
    labels, partners = torch.randint(5, (2, 6), generator=generator)
    own = torch.rand(6, 1, generator=generator, dtype=torch.float64)
    return logits, labels, partners, own


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_loss_equals_a_softmax_weighted_by_class_frequency(tau: float) -> None:
    logits, labels, _, _ = draw()
    prior = torch.tensor(COUNTS, dtype=torch.float64) / 1000
    weighted = prior**tau * logits.exp()  # Menon et al. 2021, eq. 10, written as a fraction.
    chance = weighted.gather(1, labels[:, None])[:, 0] / weighted.sum(dim=1)
    loss = LogitAdjusted(CrossEntropy(), COUNTS, tau=tau)(logits, labels)
    torch.testing.assert_close(loss, -chance.log().mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_loss_of_a_mixed_image_is_the_mean_of_its_labels_in_their_proportions(
    smoothing: float, weights: tuple[float, ...] | None
) -> None:
    logits, labels, partners, own = draw()
    eye = torch.eye(5, dtype=torch.float64)
    criterion = LogitAdjusted(CrossEntropy(label_smoothing=smoothing, class_weights=weights), COUNTS, tau=1.0)
    loss = criterion(logits, own * eye[labels] + (1 - own) * eye[partners])
    weight = torch.tensor(weights or (1.0,) * 5, dtype=torch.float64)
    adjusted = logits + (torch.tensor(COUNTS, dtype=torch.float64) / 1000).log()
    total = expected = torch.zeros((), dtype=torch.float64)
    for label, share in ((labels, own[:, 0]), (partners, 1 - own[:, 0])):
        separate = F.cross_entropy(adjusted, label, label_smoothing=smoothing, reduction="none")
        expected, total = expected + (share * weight[label] * separate).sum(), total + (share * weight[label]).sum()
    torch.testing.assert_close(loss, expected / total, rtol=1e-6, atol=0)


def test_model_that_knows_only_class_frequencies_has_gradient_zero() -> None:
    bias = torch.zeros(5, requires_grad=True)
    labels = torch.arange(5).repeat_interleave(torch.tensor(COUNTS))
    criterion = LogitAdjusted(CrossEntropy(), COUNTS, tau=1.0)
    criterion(bias.expand(1000, 5), labels).backward()
    torch.testing.assert_close(bias.grad, torch.zeros(5), rtol=0, atol=1e-6)


def test_class_without_images_has_finite_loss_and_gradient() -> None:
    logits, labels, _, _ = draw()
    logits.requires_grad_()
    loss = LogitAdjusted(CrossEntropy(label_smoothing=0.1), (900, 0, 30, 7, 3), tau=1.0)(logits, labels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_task_returns_logits_without_the_adjustment() -> None:
    logits, labels, _, _ = draw()
    task = build_task(ObjectiveConfig(logit_adjustment=1.5), COUNTS)
    _, returned = task(torch.nn.Identity(), logits, labels)
    torch.testing.assert_close(returned, logits)


def test_config_sets_the_adjustment() -> None:
    logits, labels, _, _ = draw()
    plain = build_criterion(ObjectiveConfig(), COUNTS)
    adjusted = build_criterion(ObjectiveConfig(logit_adjustment=1.5), COUNTS)
    expected = LogitAdjusted(CrossEntropy(label_smoothing=0.1), COUNTS, tau=1.5)
    torch.testing.assert_close(adjusted(logits, labels), expected(logits, labels))
    assert not torch.allclose(adjusted(logits, labels), plain(logits, labels))
    unknown = build_criterion(ObjectiveConfig(logit_adjustment=1.5))
    torch.testing.assert_close(unknown(logits, labels), plain(logits, labels))
    assert list(adjusted.state_dict()) == []
