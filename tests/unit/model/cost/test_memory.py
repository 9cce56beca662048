"""The memory estimate of a training step, compared with every tensor that PyTorch allocates."""

import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vitreous.model.build import build_model
from vitreous.model.change.trim import trim_last_block
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.cost.memory import activation_bytes
from vitreous.model.parts.attention import AttentionKernel
from vitreous.training.machine.device import autocast

SMALL = ModelConfig(img_size=(28, 28), patch_size=4, in_chans=1, num_classes=10, embed_dim=128, depth=4, num_heads=4)
WITH_STEM = replace(SMALL, img_size=(32, 32), patch_size=8, stem="conv", stem_ratio=1.0, pool="mean")
LONG = replace(SMALL, img_size=(64, 96), in_chans=3)


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all live tensors, and their peak."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, result)
        return result

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage._cdata)

    def _free(self, key: int) -> None:
        self.now -= self._seen.pop(key)


def allocated_bytes(
    config: ModelConfig, batch_size: int, precision: str, grad_checkpointing: bool, kernel: AttentionKernel = "auto"
) -> int:
    """Measure the peak of forward and backward pass, without the weights; drop path always draws the same images."""
    torch.manual_seed(0)
    model = trim_last_block(build_model(config))
    model.set_attention_kernel(kernel)
    model.set_grad_checkpointing(grad_checkpointing)
    images = torch.zeros(batch_size, config.in_chans, *config.img_size)
    labels = torch.zeros(batch_size, dtype=torch.int64)
    with LiveBytes() as live:
        with autocast(torch.device("cpu"), precision):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
    return live.peak


@pytest.mark.parametrize(
    ("config", "batch_size", "grad_checkpointing", "precision"),
    [
        pytest.param(SMALL, 64, False, "fp32", id="small"),
        pytest.param(SMALL, 64, False, "bf16", id="small, bf16"),
        pytest.param(LONG, 8, False, "bf16", id="fused kernel, bf16"),
        pytest.param(SMALL, 64, True, "fp32", id="small, checkpointing"),
        pytest.param(LONG, 8, False, "fp32", id="fused kernel"),
        pytest.param(replace(SMALL, pool="mean"), 64, False, "fp32", id="mean"),
        pytest.param(WITH_STEM, 64, False, "fp32", id="stem of convolutions"),
        pytest.param(WITH_STEM, 64, False, "bf16", id="stem of convolutions, bf16"),
        pytest.param(replace(WITH_STEM, stem="cct"), 64, False, "fp32", id="compact stem"),
        pytest.param(replace(LONG, pool="mean"), 8, False, "fp32", id="mean, fused kernel"),
        pytest.param(replace(SMALL, patch_drop_rate=0.5), 64, False, "fp32", id="half of the patches"),
        pytest.param(
            replace(SMALL, drop_path_rate=0.4, drop_path_schedule="constant"), 64, False, "fp32", id="drop path"
        ),
        pytest.param(replace(SMALL, layer_scale=1e-4, qk_norm=True), 64, False, "fp32", id="layer scale, qk norm"),
        pytest.param(replace(SMALL, proj_drop_rate=0.1, attn_drop_rate=0.1), 64, False, "fp32", id="dropout"),
        pytest.param(replace(LONG, mlp="gated", act="silu", norm="rms"), 8, False, "fp32", id="gated, rms"),
        pytest.param(replace(SMALL, attn_gate=True, locality=True), 64, False, "fp32", id="gate, locality"),
        pytest.param(replace(LONG, position="none", rotary="axial"), 8, False, "fp32", id="rotary"),
        pytest.param(config_for("vit_tiny_patch16_224"), 16, False, "fp32", id="Ti/16"),
        pytest.param(config_for("vit_tiny_patch16_224"), 32, True, "fp32", id="Ti/16, checkpointing"),
    ],
)
def test_estimate_is_within_15_percent_of_what_pytorch_allocates(
    config: ModelConfig, batch_size: int, grad_checkpointing: bool, precision: str
) -> None:
    estimate = activation_bytes(config, batch_size, precision=precision, grad_checkpointing=grad_checkpointing)
    assert estimate == pytest.approx(allocated_bytes(config, batch_size, precision, grad_checkpointing), rel=0.15)


@pytest.mark.parametrize(("config", "kernel"), [(SMALL, "sdpa"), (LONG, "explicit")])
def test_estimate_is_for_the_requested_kernel(config: ModelConfig, kernel: AttentionKernel) -> None:
    estimate = activation_bytes(config, 16, kernel=kernel)
    assert estimate == pytest.approx(allocated_bytes(config, 16, "fp32", False, kernel), rel=0.15)
    assert estimate != pytest.approx(activation_bytes(config, 16), rel=0.05)
