import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vitreous.objective.joint_embedding import JointEmbedding, normality_gap


def naive_gap(embeddings: np.ndarray, directions: np.ndarray) -> float:
    """Epps-Pulley: n times the integral of |φ(t) - exp(-t²/2)|² exp(-t²/2) over [-3, 3], by the trapezoidal rule."""
    knots = np.linspace(-3, 3, 33)
    found = []
    for direction in directions.T:
        projected = embeddings @ (direction / np.sqrt((direction**2).sum()))
        values = []
        for t in knots:
            characteristic = np.mean(np.exp(1j * t * projected))
            values.append(abs(characteristic - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2))
        found.append(len(embeddings) * np.trapezoid(values, knots))
    return float(np.mean(found))


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_gap_is_the_statistic_of_epps_and_pulley_along_each_direction() -> None:
    embeddings, directions = 1.7 * drawn(9, 5) + 0.4, drawn(5, 6, seed=1)
    found = normality_gap(embeddings, directions)
    assert float(found) == pytest.approx(naive_gap(embeddings.numpy(), directions.numpy()), rel=1e-9)


def test_normal_embeddings_have_a_small_gap_and_collapsed_ones_a_large_one() -> None:
    directions, normal = drawn(8, 64, seed=2), drawn(400, 8, seed=3)
    gaps = [float(normality_gap(x, directions)) for x in (normal, 3 * normal, normal + 2, 0 * normal + 0.3)]
    assert gaps[0] < 2
    assert min(gaps[1:]) > 20 * gaps[0]


def test_loss_weighs_agreement_of_views_and_normality_as_in_the_paper(monkeypatch: pytest.MonkeyPatch) -> None:
    task, embeddings, directions = JointEmbedding(num_views=3, regularity_weight=0.2), drawn(12, 5), drawn(5, 7, seed=4)
    monkeypatch.setattr("torch.randn", lambda *_, **__: directions)
    loss, returned = task(nn.Flatten(), embeddings.view(12, 5, 1, 1), torch.zeros(12))
    views = embeddings.numpy().reshape(4, 3, 5)  # the views of an image follow one another
    distance = np.mean((views - views.mean(axis=1, keepdims=True)) ** 2)
    gap = np.mean([naive_gap(views[:, number], directions.numpy()) for number in range(3)])
    assert float(loss.detach()) == pytest.approx(0.8 * distance + 0.2 * gap, rel=1e-9)
    torch.testing.assert_close(returned, embeddings)
