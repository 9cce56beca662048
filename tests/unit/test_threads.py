"""Waiting OpenMP threads: the setting takes effect only in a process that has not imported torch yet."""

import os
import subprocess
import sys

import pytest

from vitreous.threads import SPINS, let_threads_sleep

KEYS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def test_setting_takes_effect_although_vitreous_is_imported() -> None:
    environment = {key: value for key, value in os.environ.items() if key not in KEYS}
    code = (
        "import os, vitreous; from vitreous.threads import let_threads_sleep; "
        "print(let_threads_sleep(), os.environ['GOMP_SPINCOUNT'])"
    )
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", str(SPINS)]


def test_call_after_torch_is_imported_says_that_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for key in KEYS:
        monkeypatch.setenv(key, "1")
    assert "torch" in sys.modules
    assert torch.get_num_threads() > 0
    assert not let_threads_sleep()
    assert os.environ["GOMP_SPINCOUNT"] == "1", "a setting of the user is kept"
