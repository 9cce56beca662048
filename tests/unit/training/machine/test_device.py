import pytest
import torch

from vitreous.errors import ConfigError
from vitreous.training.machine import device as room
from vitreous.training.machine.device import (
    autocast,
    describe_hardware,
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
def test_auto_takes_the_cpu_where_there_is_nothing_else() -> None:
    assert resolve_device("auto") == CPU


@pytest.mark.usefixtures("_two_gpus")
def test_auto_takes_cuda_first() -> None:
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.usefixtures("_no_accelerator")
def test_auto_takes_mps_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")


@pytest.mark.usefixtures("_two_gpus")
@pytest.mark.parametrize("wish", ["cpu", "cpu:0", "cuda", "cuda:0", "cuda:1"])
def test_device_that_is_there_is_taken(wish: str) -> None:
    assert resolve_device(wish) == torch.device(wish)


@pytest.mark.usefixtures("_no_accelerator")
@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("cuda", "this machine has 0 of kind cuda; use auto or cpu"),
        ("cuda:3", "this machine has 0 of kind cuda; use auto or cpu"),
        ("mps", "this machine has 0 of kind mps; use auto or cpu"),
        ("cpu:1", "this machine has 1 of kind cpu; use auto or cpu"),
        ("cudda", "no such device; did you mean cuda?"),
        ("gpu", "no such device; did you mean cpu?"),
        ("tpu:0", "no such device; did you mean cpu?"),
        ("cuda:one", "no such device; did you mean cuda?"),
        ("cuda:²", "no such device; did you mean cuda?"),
        ("cuda:-1", "no such device; did you mean cuda?"),
        ("", "no such device; use one of auto, cpu, cuda, mps"),
    ],
)
def test_device_that_is_not_there_is_told(wish: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_device(wish)
    assert str(caught.value) == f"device={wish}: {message}"


@pytest.mark.usefixtures("_two_gpus")
def test_gpu_beyond_the_last_is_told_with_how_many_there_are() -> None:
    with pytest.raises(ConfigError, match=r"^device=cuda:2: this machine has 2 of kind cuda; "):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("avx", "amx", "precision"), [(False, False, "fp32"), (True, False, "bf16"), (False, True, "bf16")]
)
def test_auto_precision_is_bf16_exactly_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, avx: bool, amx: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert resolve_precision("auto", CPU) == precision


@pytest.mark.parametrize(("capability", "precision"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_auto_precision_is_bf16_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_precision("auto", torch.device("cuda")) == precision


def test_precision_that_was_asked_is_taken() -> None:
    assert [resolve_precision(wish, CPU) for wish in ("fp32", "bf16")] == ["fp32", "bf16"]


def test_unknown_precision_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_precision("fp16", CPU)
    assert str(caught.value) == "train.precision=fp16: no such precision; did you mean bf16?"


def test_autocast_changes_products_in_bf16_alone() -> None:
    left = torch.randn(2, 3)
    with autocast(CPU, "fp32"):
        assert (left @ left.T).dtype == torch.float32
    with autocast(CPU, "bf16"):
        assert (left @ left.T).dtype == torch.bfloat16
    assert (left @ left.T).dtype == torch.float32


@pytest.mark.parametrize("is_faster", [False, True])
def test_rounded_factors_are_for_processors_that_gain_by_it(monkeypatch: pytest.MonkeyPatch, is_faster: bool) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: is_faster)
    if is_faster:
        assert resolve_precision("tf32", CPU) == "tf32"
        return
    with pytest.raises(ConfigError) as caught:
        resolve_precision("tf32", CPU)
    assert str(caught.value) == "train.precision=tf32: cpu has no faster product of float32; use auto or fp32"


@pytest.mark.parametrize(("capability", "is_faster"), [((7, 5), False), ((8, 0), True)])
def test_gpus_round_factors_from_ampere_on(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], is_faster: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    if is_faster:
        assert resolve_precision("tf32", torch.device("cuda")) == "tf32"
    else:
        with pytest.raises(ConfigError, match="cuda has no faster product of float32"):
            resolve_precision("tf32", torch.device("cuda"))


def test_factors_may_be_rounded_within_and_afterwards_no_more() -> None:
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


def test_hardware_is_described_in_plain_values() -> None:
    found = describe_hardware(CPU)
    assert found["device"] == "cpu"
    assert found["device_name"]
    assert found["torch"] == torch.__version__
    assert all(isinstance(value, str | int) for value in found.values())


def test_processor_without_a_name_is_called_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(path: object, **options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(room.Path, "open", unreadable)
    assert describe_hardware(CPU)["device_name"]
