"""Training steps on a GPU against the same steps on the CPU; skipped without a CUDA or MPS device."""

import importlib.util
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitreous.data.augmentation.mix import Mix
from vitreous.data.loader import Batch
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Supervised
from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.machine.device import deterministic, resolve_device
from vitreous.training.request import TrainRequest
from vitreous.training.start import run_training
from vitreous.training.step.compiled import compile_ahead, compile_model
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.run_ahead import Steps, can_run_ahead
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used

HAS_CUDA = torch.cuda.is_available()
GPU = torch.device("cuda" if HAS_CUDA else "mps")
CPU = torch.device("cpu")
PLAIN = StepSettings(task=Supervised(CrossEntropy(label_smoothing=0.1)), optim=OptimConfig(), precision="fp32", seed=3)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (HAS_CUDA or torch.backends.mps.is_available()), reason="needs a CUDA or MPS device"),
]
needs_cuda = pytest.mark.skipif(not HAS_CUDA, reason="needs a CUDA device")


def make_state(device: torch.device, **changes: Any) -> TrainState:
    """Make a state at step 0 of 20. Its weights are drawn on the CPU, so they are the same on every device."""
    values: dict[str, Any] = {
        "img_size": (16, 24), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 40, "depth": 2,
        "num_heads": 5, "drop_path_rate": 0.0,
    }  # fmt: skip
    model = build_model(ModelConfig(**{**values, **changes}), generator=torch.Generator().manual_seed(0)).to(device)
    model.set_attention_kernel("explicit")
    optimizer = build_optimizer(model, OptimConfig())
    return TrainState(model=model, ema=Ema(model), optimizer=optimizer, horizon=Horizon(20))


def make_batch(device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images, labels = torch.randn(6, 3, 16, 24, generator=generator), torch.randint(5, (6,), generator=generator)
    return images.to(device), labels.to(device)


def tensors_of(state: TrainState) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in state.tensors().items()}


@pytest.mark.parametrize("num_micro_batches", [1, 4])
def test_fp32_step_equals_the_step_on_the_cpu(num_micro_batches: int) -> None:
    settings = replace(PLAIN, num_micro_batches=num_micro_batches)
    on_cpu, on_gpu = make_state(CPU), make_state(GPU)
    expected = train_step(on_cpu, *make_batch(CPU), settings)
    result = train_step(on_gpu, *make_batch(GPU), settings)
    assert result.applied
    assert (result.loss, result.grad_norm) == pytest.approx((expected.loss, expected.grad_norm), rel=1e-4)
    assert (result.correct, result.num_images) == (expected.correct, expected.num_images)
    # Moments and not weights: the first step of AdamW depends only on the sign of a gradient, even if it is tiny.
    on_cpu_tensors, on_gpu_tensors = tensors_of(on_cpu), tensors_of(on_gpu)
    assert on_gpu_tensors.keys() == on_cpu_tensors.keys()
    moments = [name for name in on_cpu_tensors if name.endswith("exp_avg")]
    assert len(moments) == len(list(on_cpu.model.parameters()))
    for name in moments:
        torch.testing.assert_close(on_gpu_tensors[name], on_cpu_tensors[name], rtol=1e-3, atol=1e-6)


def test_bf16_steps_are_finite_and_near_fp32_steps() -> None:
    exact, state = make_state(GPU), make_state(GPU)
    batch = make_batch(GPU)
    for _ in range(3):
        expected, result = train_step(exact, *batch, PLAIN), train_step(state, *batch, replace(PLAIN, precision="bf16"))
        assert result.applied
        assert result.loss != expected.loss
        assert result.loss == pytest.approx(expected.loss, rel=0.03)
        exact.step, state.step = exact.step + 1, state.step + 1
    assert all(tensor.isfinite().all() for tensor in tensors_of(state).values())
    assert {parameter.dtype for parameter in state.model.parameters()} == {torch.float32}


@needs_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_running_ahead_gives_the_same_weights_as_waiting_bit_for_bit(precision: str) -> None:
    images, labels = make_batch(GPU)
    settings = replace(PLAIN, precision=precision, mix=Mix(num_classes=5, mixup_alpha=0.8))

    def batch_of(step: int, attempt: int) -> Batch:
        scale = math.inf if (step, attempt) in {(2, 0), (5, 0), (5, 1)} else 1 + 0.1 * step + 0.01 * attempt
        return Batch(images * scale, labels, np.arange(6))

    runs = []
    with deterministic(True):
        for runs_ahead in (False, True):
            state = make_state(GPU, drop_path_rate=0.3)
            assert can_run_ahead(state)
            steps, results = Steps(settings, batch_of, runs_ahead=runs_ahead), []
            while state.step < 8:
                result = steps.take(state).result
                state.step, state.attempt = (state.step + 1, 0) if result.applied else (state.step, state.attempt + 1)
                results.append(result)
            steps.discard(state)
            runs.append((results, tensors_of(state)))
    (results, tensors), (results_ahead, tensors_ahead) = runs
    assert [result.applied for result in results].count(False) == 3
    assert [repr(result) for result in results_ahead] == [repr(result) for result in results]  # NaN does not equal NaN
    torch.testing.assert_close(tensors_ahead, tensors, rtol=0, atol=0)


@pytest.mark.slow
@needs_cuda
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="inductor needs Triton")
def test_compiled_steps_equal_eager_steps() -> None:
    plain, fast = make_state(GPU), make_state(GPU)
    images, labels = make_batch(GPU)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of inductor itself
        settings = replace(PLAIN, compiled=compile_model(fast.model, "default"))
        before = tensors_of(fast)
        assert compile_ahead(fast, Batch(images, labels, np.arange(6)), settings) > 0
        torch.testing.assert_close(tensors_of(fast), before, rtol=0, atol=0)
        for _ in range(3):
            expected, result = train_step(plain, images, labels, PLAIN), train_step(fast, images, labels, settings)
            assert result.loss == pytest.approx(expected.loss, rel=1e-4)
            assert result.grad_norm == pytest.approx(expected.grad_norm, rel=1e-3)
            plain.step, fast.step = plain.step + 1, fast.step + 1
    torch.compiler.reset()


@pytest.fixture
def request_of(tmp_path: Path) -> Callable[[str, str], TrainRequest]:
    """Make a request (name, device) for a run of 12 steps without any random draws."""
    draw = np.random.default_rng(7)
    for name, color in {"apple": (220, 30, 40), "kiwi": (60, 190, 50), "plum": (80, 40, 170)}.items():
        (tmp_path / "fruit" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(np.array(color) + draw.normal(0, 40, (8, 12, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "fruit" / name / f"{number:02d}.png")
    values: dict[str, Any] = {
        "data.img_size": (8, 12), "data.batch_size": 8, "data.flip": False, "data.max_shift": 0.0,
        "data.max_scale": 0.0, "data.max_rotate_deg": 0.0, "data.min_crop_area": 1.0, "data.erase_rate": 0.0,
        "data.color_jitter": 0.0, "data.policy": "none", "data.mixup_alpha": 0.0, "data.cutmix_alpha": 0.0,
        "model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2,
        "model.drop_path_rate": 0.0, "model.proj_drop_rate": 0.0, "model.pos_drop_rate": 0.0,
        "model.patch_drop_rate": 0.0, "train.epochs": 2.0, "train.precision": "fp32", "train.checkpoint_every_s": 0.0,
    }  # fmt: skip

    def make(name: str, device: str) -> TrainRequest:
        keys = values | {"train.device": device}
        return TrainRequest(data=str(tmp_path / "fruit"), values=keys, out=tmp_path / name)

    return make


def losses_of(folder: RunFolder) -> dict[int, float]:
    return {record["step"]: record["loss"] for record in read_records(folder.records) if record["kind"] == "step"}


def test_run_that_was_started_on_a_gpu_resumes_on_a_cpu(
    request_of: Callable[[str, str], TrainRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = losses_of(run_training(request_of("cpu", "cpu")))

    def cut(kind: str, fields: Any) -> None:
        if kind == "step" and fields["step"] == 5:
            raise RuntimeError("power failure")

    request = request_of("moved", "auto")
    assert request.out is not None
    assert resolve_device("auto").type == GPU.type
    with pytest.raises(RuntimeError, match="power failure"):
        run_training(request, cut)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    folder = run_training(TrainRequest(resume=request.out))
    starts = [record for record in read_records(folder.records) if record["kind"] in ("start", "resume")]
    assert starts[0]["hardware"]["device"].startswith(GPU.type)
    assert starts[-1]["kind"] == "resume"
    losses = losses_of(folder)
    assert list(losses) == list(expected)
    assert list(losses.values()) == pytest.approx(list(expected.values()), rel=1e-2)
