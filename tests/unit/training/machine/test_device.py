import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.training.machine import device as room
from vitreous.training.machine.device import (
    autocast,
    describe_hardware,
    describe_software,
    deterministic,
    float32_products,
    resolve_device,
    resolve_precision,
)

CPU = torch.device("cpu")


@pytest.fixture
def _two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("_no_accelerator")
def test_auto_uses_the_cpu_without_an_accelerator() -> None:
    assert resolve_device("auto") == CPU


@pytest.mark.usefixtures("_two_gpus")
def test_auto_prefers_cuda() -> None:
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("_no_accelerator")
def test_auto_prefers_mps_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize("requested", ["cpu", "cpu:0", "cuda", "cuda:0", "cuda:1"])
def test_device_that_exists_is_used(requested: str) -> None:
    assert resolve_device(requested) == torch.device(requested)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ("cuda", "PyTorch finds no CUDA device on this machine; use auto or cpu"),
        ("cuda:3", "PyTorch finds no CUDA device on this machine; use auto or cpu"),
        ("mps", "PyTorch finds no MPS device on this machine; use auto or cpu"),
        ("cpu:1", "PyTorch finds 1 CPU device on this machine; use cpu:0"),
        ("cudda", "no such device; did you mean cuda?"),
        (
            "gpu",
            "no such device; a GPU is called cuda, but PyTorch finds no CUDA device on this machine; use auto or cpu",
        ),
        ("tpu:0", "no such device; did you mean cpu?"),
        ("cuda:one", "no such device; did you mean cuda?"),
        ("cuda:²", "no such device; did you mean cuda?"),
        ("cuda:-1", "no such device; did you mean cuda?"),
        ("cpu:", "no such device; did you mean cpu?"),
        ("cpu:00", "no such device; did you mean cpu?"),
        ("", "no such device; use one of auto, cpu, cuda, mps"),
    ],
)
def test_device_that_does_not_exist_is_an_error_with_advice(requested: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_device(requested)
    assert str(caught.value) == f"device={requested}: {message}"


@pytest.mark.usefixtures("_two_gpus")
def test_error_about_a_gpu_number_says_which_numbers_exist() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_device("cuda:2")
    assert str(caught.value) == "device=cuda:2: PyTorch finds 2 CUDA devices on this machine; use cuda:0 to cuda:1"


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize("requested", ["gpu", "gpu:1"])
def test_gpu_suggests_cuda_on_a_machine_with_cuda(requested: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_device(requested)
    assert str(caught.value) == f"device={requested}: no such device; use cuda"


@pytest.mark.usefixtures("_no_accelerator")
def test_gpu_suggests_mps_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ConfigError) as caught:
        resolve_device("gpu")
    assert str(caught.value) == "device=gpu: no such device; use mps"


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize(
    ("requested", "num_processes", "message"),
    [
        ("mps", 2, "2 processes cannot share one device; use auto, cuda or cpu"),
        ("cuda:1", 2, "2 processes cannot share one device; use auto, cuda or cpu"),
        ("cuda", 3, "3 processes need a GPU each, and PyTorch finds 2 GPUs; start 2 processes, or use cpu"),
        ("auto", 3, "3 processes need a GPU each, and PyTorch finds 2 GPUs; start 2 processes, or use cpu"),
    ],
)
def test_processes_that_cannot_have_a_gpu_each_are_an_error(
    monkeypatch: pytest.MonkeyPatch, requested: str, num_processes: int, message: str
) -> None:
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, str(num_processes))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with pytest.raises(ConfigError) as caught:
        resolve_device(requested)
    assert str(caught.value) == f"device={requested}: {message}"


@pytest.mark.usefixtures("_two_gpus")
def test_each_process_gets_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda:1")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize(
    ("avx", "amx", "precision"), [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")]
)
def test_auto_precision_is_bf16_only_if_the_cpu_has_bf16_instructions(
    monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_precision("auto", CPU) == precision


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_precision_is_bf16_on_ampere_and_newer_gpus(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == precision


def test_requested_precision_is_used() -> None:
    assert [resolve_precision(requested, CPU) for requested in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_unknown_precision_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_precision("fp16", CPU)
    assert str(caught.value) == "train.precision=fp16: no such precision; did you mean bf16?"


def test_autocast_changes_products_only_for_bf16() -> None:
    left = torch.randn(2, 3)
    with autocast(CPU, "fp32"):
        assert (left @ left.T).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (left @ left.T).dtype == torch.bfloat16
    assert (left @ left.T).dtype == torch.float32


@pytest.mark.parametrize("is_faster", [False, True])
def test_tf32_is_refused_on_a_cpu_without_faster_products(monkeypatch: pytest.MonkeyPatch, is_faster: bool) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_faster)
    if is_faster:
        assert resolve_precision("tf32", CPU) == "tf32"
        return
    with pytest.raises(ConfigError) as caught:
        resolve_precision("tf32", CPU)
    assert str(caught.value) == "train.precision=tf32: cpu has no faster float32 product; use auto or fp32"


@pytest.mark.parametrize(("capability", "is_faster"), [((7, 5), False), ((8, 0), True)])
def test_tf32_is_refused_on_gpus_older_than_ampere(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], is_faster: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if is_faster:
        assert resolve_precision("tf32", torch.device("cuda")) == "tf32"
    else:
        with pytest.raises(ConfigError, match="cuda has no faster float32 product"):
            resolve_precision("tf32", torch.device("cuda"))


def test_tf32_is_switched_off_again_after_the_context() -> None:
    assert torch.get_float32_matmul_precision() == "highest"
    for context in (autocast(CPU, "tf32"), float32_products("tf32")):
        with context:
            assert torch.backends.mkldnn.matmul.fp32_precision == "bf16"
            assert torch.backends.cuda.matmul.fp32_precision == "tf32"
            assert (torch.ones(2, 3) @ torch.ones(3, 2)).dtype == torch.float32
        assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(RuntimeError), float32_products("tf32"):
        torch.ones(2, 3) @ torch.ones(2, 3)
    assert torch.get_float32_matmul_precision() == "highest"
    for precision in ("fp32", "bf16"):
        with float32_products(precision):
            assert torch.get_float32_matmul_precision() == "highest"


def test_a_program_that_only_warns_of_kernels_that_are_not_deterministic_still_does_after_a_run() -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with deterministic(True):
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_hardware_description_has_only_texts_and_integers() -> None:
    found = describe_hardware(CPU)
    assert found["device"] == "cpu"
    assert found["device_name"]
    assert found["torch"] == torch.__version__
    assert all(isinstance(value, str | int) for value in found.values())


def test_processor_without_a_name_is_described_by_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(room.Path, "open", unreadable)
    assert describe_hardware(CPU)["device_name"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_revision_is_that_of_this_code_and_not_of_a_checkout_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / ".venv" / "device.py"
    file.parent.mkdir()
    file.touch()
    (tmp_path / "mine.py").touch()
    monkeypatch.setattr(room, "__file__", str(file))

    def git(*words: str) -> None:
        who = ("-c", "user.name=me", "-c", "user.email=me@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("add", "mine.py")
    git("commit", "-m", "mine")
    assert describe_software()["git_revision"] is None
    git("add", ".venv/device.py")
    git("commit", "-m", "theirs")
    assert len(describe_software()["git_revision"] or "") == 40
