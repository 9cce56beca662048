import os

import pytest

from vitreous import processes


def test_usable_cores_follow_the_affinity_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert processes.usable_cores() == 3


@pytest.mark.parametrize(("cpu_count", "expected"), [(8, 8), (None, 1)])
def test_usable_cores_are_all_cores_where_affinity_is_unknown(
    monkeypatch: pytest.MonkeyPatch, cpu_count: int | None, expected: int
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cpu_count)
    assert processes.usable_cores() == expected
