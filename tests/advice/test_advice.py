"""Every error that gives advice: the advice fits the cause, and following it works."""

from pathlib import Path

import pytest
from tests.advice import data_cases, key_cases, model_cases, run_cases  # noqa: F401
from tests.advice.walk import CASES, NOT_WALKED, not_walked, places, walk


@pytest.mark.parametrize("name", CASES)
def test_advice_works_when_followed(name: str, tmp_path: Path) -> None:
    assert walk(CASES[name], tmp_path)


@pytest.mark.slow
def test_every_error_with_advice_has_a_case_or_is_listed() -> None:
    """Give a new error a case. The list is for errors that were there before; it only gets shorter."""
    listed = NOT_WALKED.read_text(encoding="utf-8").splitlines()
    assert not_walked() == listed, "add a case; for fewer or renamed errors run python -m tests.advice.test_advice"
    assert len(listed) < len(set(places().values()))


if __name__ == "__main__":
    NOT_WALKED.write_text("\n".join(not_walked()) + "\n", encoding="utf-8")
