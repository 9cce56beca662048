"""`vitreous env`: what is slow follows from what the machine has, and each sentence says what to do."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from vitreous.training.measure import environment
from vitreous.training.measure.environment import describe_environment, find_slow, products_per_s

GOOD: dict[str, Any] = {
    "software": {"torch": "2.13.0+cpu", "torch_build": "cpu"},
    "hardware": {"usable_cpus": 8, "cpus": 8, "threads": 8},
    "gpus": [],
    "mps": False,
    "memory": {"total_bytes": 32e9, "available_bytes": 20e9},
    "cache": {"folder": "/cache", "free_bytes": 50e9, "is_writable": True},
    "runs": {"folder": "/work", "free_bytes": 50e9, "is_writable": True, "has_locks": True},
    "packages": {"simplejpeg": "1.8"},
    "products_per_s": {"cpu": {"fp32": 50e9, "bf16": 150e9}},
    "load": 0.5,
}


@pytest.fixture(autouse=True)
def _good_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.features, "check_feature", lambda feature: True)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    monkeypatch.setattr(environment, "has_native_bf16", lambda device: True)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def slow(**changes: Any) -> list[str]:
    """Return the sentences for the good machine with other values, such as `hardware__threads=2`."""
    found = copy.deepcopy(GOOD)
    for name, value in changes.items():
        section, _, key = name.partition("__")
        found[section] = found[section] | {key: value} if key else value
    return list(find_slow(found))


def test_good_machine_has_nothing_slow() -> None:
    assert slow() == []


@pytest.mark.parametrize(
    ("changes", "start", "way_out"),
    [
        ({"hardware__threads": 64}, "threads=64: more than the 8 usable cores", "set OMP_NUM_THREADS=8"),
        ({"hardware__threads": 2}, "threads=2: torch leaves most of 8 cores unused", "set OMP_NUM_THREADS=8"),
        ({"hardware__cpus": 64}, "cores=8: of 64, because of the affinity", "raise the limit"),
        ({"load": 9.0}, "load=9.0: other programs use the 8 cores too", "stop them"),
        ({"memory__available_bytes": 3.25e9}, "memory=3.2 GB available", "close other programs"),
        ({"cache__is_writable": False}, "cache=/cache: cannot be written", "set VITREOUS_CACHE"),
        ({"cache__free_bytes": 2.25e9}, "cache=/cache: 2.2 GB are free", "set VITREOUS_CACHE"),
        ({"runs__is_writable": False}, "runs=/work: cannot be written", "--out"),
        ({"runs__has_locks": False}, "runs=/work: has no file locks", "no two processes"),
        ({"packages__simplejpeg": None}, "simplejpeg: not installed", "pip install 'vitreous[fast-jpeg]'"),
        (
            {"products_per_s": {"cpu": {"fp32": 90e9, "bf16": 30e9}}},
            "precision=bf16: multiplies 3.0 times slower than fp32",
            "--precision fp32",
        ),
    ],
)
def test_each_problem_is_one_sentence_that_says_what_to_do(changes: dict[str, Any], start: str, way_out: str) -> None:
    (sentence,) = slow(**changes)
    assert sentence.startswith(start)
    assert way_out in sentence.partition("; ")[2]


def test_variable_that_limits_the_threads_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert slow(hardware__threads=1)[0].startswith("threads=1: OMP_NUM_THREADS=1 leaves most of 8 cores unused")


def test_driver_without_a_usable_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert slow()[0].startswith("torch=2.13.0+cpu: is a build for CPUs, and the machine has an NVIDIA driver; install")
    assert slow(software={"torch": "2.13.0", "torch_build": "cuda 13.0"})[0].startswith("torch=2.13.0: finds no GPU")
    gpu = {"name": "x", "memory_bytes": 1, "capability": "9.0"}
    assert slow(gpus=[gpu]) == []


def test_processor_without_bf16_is_reported_unless_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_native_bf16", lambda device: False)
    assert slow()[0].startswith("precision=fp32: this processor has no bf16 instructions")
    assert slow(mps=True) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_measured_speed_is_that_of_a_matrix_product(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(environment._SIDES, "cpu", 64)
    monkeypatch.setattr(environment, "median_s", lambda work, seconds, slow_s: 0.5)
    assert products_per_s(torch.device("cpu"), precision) == 64**3 / 0.5


def test_this_machine_is_described_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITREOUS_CACHE", str(tmp_path / "not" / "there"))
    monkeypatch.setattr(environment, "products_per_s", lambda device, precision: 1e9)
    found = json.loads(json.dumps(describe_environment()))
    assert found["cache"]["folder"] == str(tmp_path / "not" / "there")
    assert found["cache"]["free_bytes"] == found["runs"]["free_bytes"] > 0
    assert set(found["products_per_s"]["cpu"]) >= {"fp32", "bf16"}
    assert found["codecs"]["PNG"] is True
    assert list(tmp_path.iterdir()) == []  # what tries the locks is removed
