"""Every error that gives advice: the advice fits the cause, and following it works."""

import pytest
from tests.advice import (  # noqa: F401
    annotation_cases,
    batch_cases,
    benchmark_cases,
    correction_cases,
    data_cases,
    decision_cases,
    explain_cases,
    export_cases,
    extension_cases,
    fit_cases,
    hub_cases,
    key_cases,
    model_cases,
    pixel_cases,
    plan_cases,
    pretrain_cases,
    push_cases,
    run_cases,
    serve_cases,
    source_cases,
    training_cases,
    use_cases,
    weight_cases,
)
from tests.advice.walk import CASES, not_walked, walk

UNREACHABLE: dict[str, str] = {}
"""Place in the source -> why a test cannot raise its error."""


@pytest.mark.parametrize("name", CASES)
def test_advice_works_when_followed(name: str) -> None:
    assert walk(name)


@pytest.mark.slow
def test_every_error_with_advice_has_a_case() -> None:
    assert not_walked() == sorted(UNREACHABLE), "add a case, or to UNREACHABLE why a test cannot provoke the error"
