"""The host never waits for a device; tested without a GPU, on tensors of the `meta` device, which computes nothing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitreous import transfer
from vitreous.data.augmentation.augment import Augment
from vitreous.data.augmentation.mix import Mix
from vitreous.data.build import build_augment
from vitreous.data.config import DataConfig
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.pixels.store import MemoryStore
from vitreous.model.build import build_model
from vitreous.model.config.model_config import ModelConfig
from vitreous.objective.cross_entropy import CrossEntropy
from vitreous.objective.task import Supervised
from vitreous.optim.config import OptimConfig
from vitreous.optim.ema import Ema
from vitreous.optim.optimizers import build_optimizer
from vitreous.training.step.horizon import Horizon
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, compute_gradient
from vitreous.transfer import Reading, to_device

aten = torch.ops.aten


class Waits(TorchDispatchMode):
    """Records operations that would make the host wait: blocking copies, and indexing with a tensor elsewhere.

    Reading a value of a `meta` tensor, or the number of its nonzero elements, raises an error without this mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor) and leaf.dim()]
        is_async = func is aten._to_copy.default and kwargs.get("non_blocking")
        if len({tensor.device.type for tensor in tensors}) > 1 and not is_async:
            self.found.append(str(func))
        return result


@pytest.fixture(autouse=True)
def _meta_copies_asynchronously(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_ASYNC_DEVICES", frozenset({"meta"}))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    # A dispatch mode does not see the copies that these two make.
    for place, name in ((torch, "tensor"), (Tensor, "new_tensor")):
        monkeypatch.setattr(place, name, _checked(getattr(place, name)))


def _checked(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def make_and_check(*args: Any, **kwargs: Any) -> Tensor:
        made = make(*args, **kwargs)
        assert made.device.type == "cpu", "the host waits for the copy"
        return made

    return make_and_check


def test_waiting_is_detected() -> None:
    device, cells = torch.device("meta"), torch.zeros(8, device="meta")
    with Waits() as waits:
        to_device(torch.ones(3), device)
    assert not waits.found
    for wait in (lambda: torch.ones(3).to(device), lambda: cells[torch.tensor([1, 2])]):
        with Waits() as waits:
            wait()
        assert waits.found
    for wait in (lambda: cells.new_tensor([1.0, 2.0]), lambda: torch.tensor([1.0, 2.0], device=device)):
        with pytest.raises(AssertionError, match="the host waits"):
            wait()
    with pytest.raises(RuntimeError):
        cells.sum().item()
    with pytest.raises(NotImplementedError):
        cells.nonzero()


AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crops": {"min_crop_area": 0.3, "max_shift": 0.1, "max_rotate_deg": 10.0, "max_scale": 0.2},
    "shrinking": {"min_crop_area": 1.0, "max_scale": 0.5},
    "erasing": {"erase_rate": 0.5},
    "randaugment": {"policy": "randaugment"},
    "trivialaugment": {"policy": "trivialaugment"},
    "3-augment": {"policy": "3-augment", "color_jitter": 0.3},
}


@pytest.mark.parametrize("keys", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_batches_are_augmented_without_waiting_for_the_device(keys: dict[str, Any]) -> None:
    augment = build_augment(DataConfig(source="here", img_size=(16, 16), in_chans=3, num_classes=5, flip=True, **keys))
    with Waits() as waits:
        images = batch_of(augment)
    assert images.shape == (64, 3, 16, 16)
    assert not waits.found


def batch_of(augment: Augment) -> Tensor:
    pixels = torch.zeros(100, 3, 16, 16, dtype=torch.uint8, device="meta")
    store = MemoryStore(pixels, torch.zeros(100, dtype=torch.int64, device="meta"))
    indices = np.arange(64)
    preprocess = Preprocess(img_size=(16, 16), in_chans=3, mean=(0.5,) * 3, std=(0.5,) * 3)
    return preprocess.normalize(augment(store.take(indices), indices, seed=5))


MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout of positions, branches and patches": {
        "pos_drop_rate": 0.1,
        "drop_path_rate": 0.4,
        "patch_drop_rate": 0.25,
    },
    "rotary positions": {"rotary": "axial"},
    "relative bias": {"relative_bias": True},
}
TASKS = {
    "plain": StepSettings(Supervised(CrossEntropy()), OptimConfig(), "fp32", seed=3),
    "mixed, weighted, in micro-batches": StepSettings(
        Supervised(CrossEntropy(label_smoothing=0.1, class_weights=(1.0, 2.0, 1.0, 1.0, 3.0)).to("meta")),
        OptimConfig(),
        "fp32",
        3,
        Mix(num_classes=5, mixup_alpha=0.8, cutmix_alpha=1.0, per_pair=True),
        num_micro_batches=2,
    ),
    "sharpness-aware": StepSettings(Supervised(CrossEntropy()), OptimConfig(sam_rho=0.1), "fp32", seed=3),
}


@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("settings", TASKS.values(), ids=TASKS)
def test_gradient_is_computed_without_waiting_for_the_device(
    changes: dict[str, Any], settings: StepSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ModelConfig(
        **{"img_size": (8, 12), "patch_size": 4, "in_chans": 3, "num_classes": 5, "embed_dim": 16, "depth": 2,
           "num_heads": 2, **changes}
    )  # fmt: skip
    model = build_model(config)
    state = TrainState(model.to("meta"), Ema(model), build_optimizer(model, OptimConfig()), Horizon(20))
    monkeypatch.setattr(Reading, "__init__", lambda reading, numbers: None)  # values of this device cannot be read
    images, labels = torch.zeros(6, 3, 8, 12, device="meta"), torch.zeros(6, dtype=torch.int64, device="meta")
    with Waits() as waits:
        compute_gradient(state, images, labels, settings)
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert not waits.found


def test_reading_returns_the_numbers() -> None:
    assert Reading(torch.tensor([1.5, 2.0])).values() == [1.5, 2.0]
