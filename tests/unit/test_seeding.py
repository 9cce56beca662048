import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vitreous.seeding import derive, permutation, uniform


@given(st.integers(), st.text(), st.integers())
def test_derived_seeds_are_63_bit_and_repeatable(seed: int, name: str, step: int) -> None:
    derived = derive(seed, name, step)
    assert 0 <= derived < 2**63
    assert derived == derive(seed, name, step)


def test_any_change_of_seed_or_name_gives_another_seed() -> None:
    derived = [derive(0, "a"), derive(1, "a"), derive(0, "b"), derive(0, "a", 0), derive(0, "a", 1), derive(0)]
    assert len(set(derived)) == len(derived)


def test_seeds_and_numbers_are_the_same_on_every_machine() -> None:
    assert derive(0, "augment", 3) == 787279350811852227
    expected = np.array([[0.6904396414756775, 0.9506903290748596], [0.46721112728118896, 0.01363760232925415]])
    np.testing.assert_array_equal(uniform(787279350811852227, np.array([0, 7]), 2), expected.astype(np.float32))


def test_uniform_numbers_fill_the_unit_interval_evenly() -> None:
    draws = uniform(derive(0, "test"), np.arange(20_000), 5)
    assert draws.shape == (20_000, 5)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.stack([np.histogram(column, bins=20, range=(0, 1))[0] for column in draws.T])
    # Allow 5 standard errors of the count in a bin.
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000 * 0.95)


def test_draws_of_one_index_and_of_adjacent_indices_are_uncorrelated() -> None:
    draws = uniform(derive(3, "test"), np.arange(20_000), 4)
    adjacent = np.concatenate([draws[:-1], draws[1:]], axis=1)
    correlation = np.corrcoef(adjacent.T) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_numbers_depend_only_on_seed_index_and_draw() -> None:
    indices = np.array([5, 2**40, 0, -7])
    whole = uniform(9, indices, 3)
    np.testing.assert_array_equal(uniform(9, indices[[3, 0]], 3), whole[[3, 0]])
    assert not np.array_equal(uniform(10, indices, 3), whole)


def test_permutation_contains_every_index_once_and_depends_on_its_seed() -> None:
    order = permutation(derive(0, "order", 1), 101)
    np.testing.assert_array_equal(np.sort(order), np.arange(101))
    np.testing.assert_array_equal(order, permutation(derive(0, "order", 1), 101))
    assert not np.array_equal(order, permutation(derive(0, "order", 2), 101))
    assert permutation(4, 0).shape == (0,)
