"""Every error that gives advice: the advice fits the cause, and following it works."""

from pathlib import Path

import pytest
from tests.advice import data_cases, key_cases, model_cases, run_cases  # noqa: F401
from tests.advice.walk import CASES, NOT_WALKED, not_walked, reasons, walk


@pytest.mark.parametrize("name", CASES)
def test_advice_works_when_followed(name: str, tmp_path: Path) -> None:
    assert walk(CASES[name], tmp_path)


@pytest.mark.slow
def test_every_error_with_advice_has_a_case_or_a_reason() -> None:
    assert not_walked() == list(reasons()), "add a case; for fewer or renamed errors run python -m tests.advice.test_advice"
    assert all(reasons().values()), "write after #, why a test cannot provoke the error"


if __name__ == "__main__":
    known = reasons()
    NOT_WALKED.write_text("".join(f"{place}  # {known.get(place, '')}\n" for place in not_walked()), encoding="utf-8")
