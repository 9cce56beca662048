"""Exact Shapley values against a loop over coalitions with factorials, and the axioms."""

import itertools
import math
from typing import Any

import pytest
import torch
from tests.unit.use.explain.removal_models import KINDS, draw_images, logits_of, make_model
from torch import Tensor

from vitreous.errors import ConfigError
from vitreous.use.explain.methods.removal import shapley
from vitreous.use.explain.removal.exact_shapley import exact_shapley, members, shapley_values
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.target import Target


def by_factorials(scores: dict[frozenset[int], float], num_players: int) -> list[float]:
    """Return Shapley values as the formula of 1953 is printed: a sum over all coalitions without the player."""
    values = []
    for player in range(num_players):
        others, value = [p for p in range(num_players) if p != player], 0.0
        for size in range(num_players):
            weight = math.factorial(size) * math.factorial(num_players - size - 1) / math.factorial(num_players)
            for chosen in itertools.combinations(others, size):
                value += weight * (scores[frozenset(chosen) | {player}] - scores[frozenset(chosen)])
        values.append(value)
    return values


def score_of_nothing(model: Any, image: Tensor, label: int) -> float:
    kept = torch.zeros(1, model.config.num_patches, dtype=torch.bool)
    return float(PatchRemoval(model, image).logits(torch.tensor([0]), kept)[0, label])


@pytest.mark.parametrize("changes", [{}, {"pool": "mean", "rotary": "axial"}, {"stem": "conv", "pool": "max"}])
@pytest.mark.parametrize("cells", [(2, 2), (2, 3)])
def test_values_are_the_sum_over_all_coalitions_with_factorial_weights(
    changes: dict[str, Any], cells: tuple[int, int]
) -> None:
    """On 3x5 patches: 2x2 super-tokens have 6, 4, 3 and 2 patches, for 2x3 the columns are 2, 2 and 1."""
    model, image = make_model(img_size=(12, 20), **changes), draw_images(1, (12, 20))
    tops, lefts = {2: (0, 2, 3)}[cells[0]], {2: (0, 3, 5), 3: (0, 2, 4, 5)}[cells[1]]
    rectangles = [
        [row * 5 + column for row in range(*down) for column in range(*across)]
        for down in itertools.pairwise(tops) for across in itertools.pairwise(lefts)
    ]  # fmt: skip
    scores = {frozenset[int](): score_of_nothing(model, image, 3)}
    for size in range(1, len(rectangles) + 1):
        for chosen in itertools.combinations(range(len(rectangles)), size):
            kept = sorted(patch for cell in chosen for patch in rectangles[cell])
            scores[frozenset(chosen)] = float(logits_of(model, image, kept)[3])
    found = exact_shapley(model, image, Target(3), cells=cells, precision="fp32")
    expected = torch.tensor(by_factorials(scores, len(rectangles)), dtype=torch.float64).view(1, *cells)
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-5)
    for number, score in enumerate(found.scores[0].tolist()):
        chosen = frozenset(cell for cell in range(len(rectangles)) if number >> cell & 1)
        assert score == pytest.approx(scores[chosen], abs=1e-5)


@pytest.mark.parametrize("num_players", [1, 2, 5])
def test_any_game_is_the_sum_over_all_coalitions_with_factorial_weights(num_players: int) -> None:
    scores = torch.randn(2, 2**num_players, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for row, values in zip(scores, shapley_values(scores), strict=True):
        table = {
            frozenset(p for p in range(num_players) if present[p]): float(score)
            for score, present in zip(row, members(num_players).tolist(), strict=True)
        }
        torch.testing.assert_close(values, torch.tensor(by_factorials(table, num_players), dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_values_sum_to_the_last_score_minus_the_first(kind: str) -> None:
    model, images = make_model(kind), draw_images()
    found = exact_shapley(model, images)
    torch.testing.assert_close(
        found.values.sum(dim=(1, 2)), found.scores[:, -1] - found.scores[:, 0], rtol=0, atol=1e-12
    )
    assert (found.scores[:, -1] - model(images).amax(dim=1)).abs().max() < 1e-5


def test_identical_patches_have_equal_values() -> None:
    model, image = make_model(position="none", pool="mean"), draw_images(1)
    image[:, :, 4:8, 8:12] = image[:, :, 0:4, 4:8]
    values = exact_shapley(model, image, precision="fp32").values[0]
    torch.testing.assert_close(values[1, 2], values[0, 1], rtol=0, atol=1e-6)
    others = torch.stack([values[0, 0], values[0, 2], values[1, 0], values[1, 1]])
    assert (others - values[0, 1]).abs().min() > 1e-3


def test_a_patch_that_changes_no_score_has_the_value_0() -> None:
    """The blocks change nothing, and the largest value of each channel wins: never that of a token of zeros."""
    model, images = make_model(pool="max", position="none", depth=1, layer_scale=0.5, final_norm=False), draw_images()
    with torch.no_grad():
        for scale in (model.encoder.blocks[0].ls1, model.encoder.blocks[0].ls2):
            scale.gamma.zero_()  # tokens stay as they are, and the pool takes the maximum
        model.tokenizer.proj.weight.abs_()
        model.tokenizer.proj.bias.zero_()
    images = images.abs() + 0.1
    images[:, :, :4, 8:12] = 0  # a token of zeros is never larger, and equal to no patch at all
    values = exact_shapley(model, images, precision="fp32").values
    assert values[:, 0, 2].tolist() == [0, 0]
    assert (values.flatten(1).abs() > 1e-3).sum(dim=1).tolist() == [5, 5]


def test_a_grid_with_fewer_patches_has_a_super_token_for_each_row_or_column() -> None:
    model, images = make_model(), draw_images()
    assert exact_shapley(model, images).values.shape == (2, 2, 3)
    assert exact_shapley(model, images, cells=(1, 9)).values.shape == (2, 1, 3)


@pytest.mark.slow
def test_sixteen_super_tokens_agree_with_sampled_values() -> None:
    size = (20, 24)
    model, image = make_model(img_size=size, embed_dim=12, depth=1, pool="mean"), draw_images(1, size)
    exact = exact_shapley(model.float(), image.float(), Target(1))
    assert exact.values.shape == (1, 4, 4)
    assert exact.scores.shape == (1, 65_536)
    found = shapley(model, image.float(), Target(1), cells=(4, 4), num_permutations=200)
    assert found.errors is not None
    assert ((found.values - exact.values).abs() <= 4 * found.errors).all()


def test_progress_counts_the_coalitions() -> None:
    seen: list[tuple[int, int]] = []
    exact_shapley(make_model(), draw_images(), progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] <= 64
    assert seen[-1] == (64, 64)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {64}


def test_too_many_super_tokens_are_refused_with_their_cost() -> None:
    with pytest.raises(ConfigError, match=r"^cells=3x6: have 262,144 coalitions; use at most 16 super-tokens, such as"):
        exact_shapley(make_model(img_size=(12, 24)), draw_images(1, (12, 24)), cells=(5, 6))
    with pytest.raises(ConfigError, match=r"^cells=0x2: cannot divide 2x3 patches; use 1 to 2 rows and 1 to 3 columns"):
        exact_shapley(make_model(), draw_images(), cells=(0, 2))
