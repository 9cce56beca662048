from collections.abc import Callable, Iterator
from typing import get_args

import pytest
import torch
from tests.unit.optim.conftest import RATES, Course
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.optim.adafactor import Adafactor
from vitreous.optim.config import OptimConfig, OptimizerName
from vitreous.optim.lamb import Lamb
from vitreous.optim.lion import Lion
from vitreous.optim.muon import Muon, MuonAdamW, orthogonalize
from vitreous.optim.optimizers import build_optimizer
from vitreous.optim.schedule_free import ScheduleFree

Drive = Callable[[nn.Module, torch.optim.Optimizer], Course]
LR, DECAY, BETA1, BETA2 = 0.03, 0.4, 0.8, 0.95
NAMES = get_args(OptimizerName)


def config(name: OptimizerName = "adamw", **changes: float) -> OptimConfig:
    return OptimConfig(name=name, lr=LR, weight_decay=DECAY, beta1=BETA1, beta2=BETA2, **changes)  # type: ignore[arg-type]


def naive_adamw(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, with the decay times the learning rate as in PyTorch."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, (gradient, lr) in enumerate(zip(gradients, RATES, strict=True), start=1):
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * gradient**2
        unbiased_first = first / (1 - BETA1**step)
        unbiased_second = second / (1 - BETA2**step)
        weight = weight - lr * decay * weight - lr * unbiased_first / (unbiased_second.sqrt() + 1e-8)
    return weight


def naive_lion(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Chen et al. 2023, algorithm 2."""
    mean = torch.zeros_like(weight)
    for gradient, lr in zip(gradients, RATES, strict=True):
        direction = torch.sign(BETA1 * mean + (1 - BETA1) * gradient)
        weight = weight - lr * (direction + decay * weight)
        mean = BETA2 * mean + (1 - BETA2) * gradient
    return weight


def naive_lamb(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """You et al. 2020, algorithm 2; equal to Adam without weight decay."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, (gradient, lr) in enumerate(zip(gradients, RATES, strict=True), start=1):
        first = BETA1 * first + (1 - BETA1) * gradient
        second = BETA2 * second + (1 - BETA2) * gradient**2
        move = first / (1 - BETA1**step) / ((second / (1 - BETA2**step)).sqrt() + 1e-6)
        if decay:
            move = move + decay * weight
            move = move * weight.norm() / move.norm()
        weight = weight - lr * move
    return weight


def naive_schedule_free(weight: Tensor, gradients: list[Tensor], decay: float) -> tuple[Tensor, Tensor]:
    """Defazio et al. 2024, algorithm 1, with given learning rates instead of its warm-up; returns the last y and x."""
    z, x, second, total = weight, weight, torch.zeros_like(weight), 0.0
    for step, (gradient, lr) in enumerate(zip(gradients, RATES, strict=True), start=1):
        y = (1 - BETA1) * z + BETA1 * x
        second = BETA2 * second + (1 - BETA2) * gradient**2
        rate = lr * (1 - BETA2**step) ** 0.5
        z = z - rate * gradient / (second.sqrt() + 1e-8) - rate * decay * y
        total += rate**2
        share = rate**2 / total
        x = (1 - share) * x + share * z
    return (1 - BETA1) * z + BETA1 * x, x


def naive_adafactor(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Zhai et al. 2022, section 3.4: the second moment of a large matrix is its row means times its column means."""
    mean, second = torch.zeros_like(weight), torch.zeros_like(weight)
    rows, columns = torch.zeros(weight.shape[:1]).double(), torch.zeros(weight.shape[-1:]).double()
    for step, (gradient, lr) in enumerate(zip(gradients, RATES, strict=True), start=1):
        beta2 = min(BETA2, 1 - step**-0.8)
        if weight.ndim == 2 and min(weight.shape) >= 32:
            rows = beta2 * rows + (1 - beta2) * (gradient**2).mean(dim=1)
            columns = beta2 * columns + (1 - beta2) * (gradient**2).mean(dim=0)
            second = rows[:, None] * columns[None] / rows.mean()
        else:
            second = beta2 * second + (1 - beta2) * gradient**2
        mean = BETA1 * mean + (1 - BETA1) * gradient / second.sqrt()
        weight = weight - lr * decay * weight - lr * mean
        mean = mean.bfloat16().double()
    return weight


def orthogonal_part(matrix: Tensor) -> Tensor:
    """Five Newton-Schulz steps with the coefficients of Jordan et al. 2024, applied to the singular values."""
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


def naive_muon(weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """Orthogonalized Nesterov momentum, scaled by 0.2 · √(longer side): Liu et al. 2025, eq. 4."""
    mean = torch.zeros_like(weight)
    for gradient, lr in zip(gradients, RATES, strict=True):
        mean = 0.95 * mean + 0.05 * gradient
        ahead = 0.95 * mean + 0.05 * gradient
        weight = weight * (1 - lr * decay) - lr * 0.2 * max(weight.shape) ** 0.5 * orthogonal_part(ahead)
    return weight


def with_decay(course: Course) -> Iterator[tuple[str, float]]:
    return ((name, 0.0 if "norm" in name or name.endswith("bias") else DECAY) for name in course.before)


@pytest.mark.parametrize(
    ("name", "naive"),
    [("adamw", naive_adamw), ("lion", naive_lion), ("lamb", naive_lamb), ("adafactor", naive_adafactor)],
)
def test_three_steps_equal_a_naive_optimizer_with_decay_on_matrices_only(
    small_model: nn.Module, drive: Drive, name: OptimizerName, naive: Callable[..., Tensor]
) -> None:
    course = drive(small_model, build_optimizer(small_model, config(name)))
    for key, decay in with_decay(course):
        expected = naive(course.before[key], course.gradients[key], decay)
        torch.testing.assert_close(course.after[key], expected, rtol=1e-11, atol=1e-11)


def test_schedule_free_steps_and_average_equal_a_naive_optimizer(small_model: nn.Module, drive: Drive) -> None:
    optimizer = build_optimizer(small_model, config("schedule_free"))
    assert isinstance(optimizer, ScheduleFree)
    course = drive(small_model, optimizer)
    for (key, decay), parameter in zip(with_decay(course), small_model.parameters(), strict=True):
        y, x = naive_schedule_free(course.before[key], course.gradients[key], decay)
        torch.testing.assert_close(course.after[key], y, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(optimizer.average(parameter), x, rtol=1e-11, atol=1e-11)


def test_muon_updates_hidden_matrices_and_adamw_the_rest(small_model: nn.Module, drive: Drive) -> None:
    course = drive(small_model, build_optimizer(small_model, config("muon")))
    hidden = {"encoder.blocks.0.fc1.weight", "encoder.blocks.0.fc2.weight"}
    for key, decay in with_decay(course):
        naive = naive_muon if key in hidden else naive_adamw
        expected = naive(course.before[key], course.gradients[key], decay)
        torch.testing.assert_close(course.after[key], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(33, 40), (40, 33), (24, 24)])
def test_muon_equals_pytorchs_up_to_bfloat16(shape: tuple[int, int]) -> None:
    ours, theirs = (nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(4))) for _ in range(2))
    one = Muon([{"params": [ours], "weight_decay": DECAY, "lr_ratio": 1.0}], lr=LR)
    other = torch.optim.Muon([theirs], lr=LR, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(5)
    before = ours.detach().clone()
    for _ in range(3):
        ours.grad = torch.randn(shape, generator=generator)
        theirs.grad = ours.grad.clone()
        one.step()
        other.step()
    moved = (theirs - before).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_updates_queries_keys_and_values_as_three_matrices() -> None:
    generator = torch.Generator().manual_seed(7)
    parts, gradients = (list(torch.randn(3, 8, 12, generator=generator).double().unbind()) for _ in range(2))
    stacked, gradient = nn.Parameter(torch.cat(parts)), torch.cat(gradients)
    muon = Muon([{"params": [stacked], "weight_decay": DECAY, "lr_ratio": 1.0}], lr=RATES[0], num_stacked={stacked: 3})
    for lr in RATES:
        muon.param_groups[0]["lr"], stacked.grad = lr, gradient.clone()
        muon.step()
    expected = [naive_muon(part, [its] * len(RATES), DECAY) for part, its in zip(parts, gradients, strict=True)]
    torch.testing.assert_close(stacked.detach(), torch.cat(expected), rtol=1e-9, atol=1e-9)


def test_muon_multiplies_in_bfloat16_with_that_precision(small_model: nn.Module, drive: Drive) -> None:
    before = {name: weight.clone() for name, weight in small_model.state_dict().items()}
    exact = drive(small_model, build_optimizer(small_model, config("muon"))).after
    exact = {name: weight.clone() for name, weight in exact.items()}
    small_model.load_state_dict(before)
    rounded = drive(small_model, build_optimizer(small_model, config("muon"), "bf16")).after
    for name, weight in exact.items():
        is_hidden = name in ("encoder.blocks.0.fc1.weight", "encoder.blocks.0.fc2.weight")
        change = (rounded[name] - weight).norm() / (weight - before[name]).norm()
        assert 0 < change < 0.05 if is_hidden else change == 0, name


def test_matrices_of_zeros_stay_zeros() -> None:
    torch.testing.assert_close(orthogonalize(torch.zeros(2, 3, 5)), torch.zeros(2, 3, 5), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(2, 33, 48), (3, 48, 33)])
def test_orthogonalized_matrices_have_singular_values_near_one(shape: tuple[int, int, int]) -> None:
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape, generator=torch.Generator().manual_seed(6))))
    assert 0.5 < values.min() < values.max() < 1.3


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_continues_bit_for_bit(small_model: nn.Module, drive: Drive, name: OptimizerName) -> None:
    optimizer = build_optimizer(small_model, config(name))
    drive(small_model, optimizer)
    saved = optimizer.state_dict()
    moments = {index: {key: value.clone() for key, value in of.items()} for index, of in saved["state"].items()}
    weights = {key: value.clone() for key, value in small_model.state_dict().items()}
    expected = drive(small_model, optimizer).after
    expected = {key: value.clone() for key, value in expected.items()}
    small_model.load_state_dict(weights)
    other = build_optimizer(small_model, config(name))
    other.load_state_dict({"state": moments, "param_groups": other.state_dict()["param_groups"]})
    torch.testing.assert_close(drive(small_model, other).after, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_config_reaches_the_groups(small_model: nn.Module, name: OptimizerName) -> None:
    groups = build_optimizer(small_model, config(name, layer_decay=0.5)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, DECAY}
    assert {group["lr_ratio"] for group in groups} == {0.25, 0.5, 1.0}
    assert all(group["lr"] == LR for group in groups)
    assert sum(len(group["params"]) for group in groups) == len(list(small_model.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_parameter_without_a_gradient_does_not_change(small_model: nn.Module, name: OptimizerName) -> None:
    optimizer = build_optimizer(small_model, config(name))
    before = {key: value.clone() for key, value in small_model.state_dict().items()}
    optimizer.step()
    torch.testing.assert_close(small_model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_zero_leaves_weights_finite(small_model: nn.Module, name: OptimizerName) -> None:
    optimizer = build_optimizer(small_model.float(), config(name))
    for parameter in small_model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    for _ in range(2):
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in small_model.parameters())


@pytest.mark.parametrize("name", ["adamw", "lion", "lamb", "adafactor", "schedule_free"])
def test_model_without_matrices_can_be_optimized(name: OptimizerName) -> None:
    assert [len(group["params"]) for group in build_optimizer(nn.LayerNorm(5), config(name)).param_groups] == [2]


def test_muon_without_hidden_matrices_is_refused(small_model: nn.Module) -> None:
    small_model.get_submodule("encoder").requires_grad_(False)
    with pytest.raises(ConfigError) as caught:
        build_optimizer(small_model, config("muon"))
    assert str(caught.value) == "optim.name=muon: no weight matrix of the encoder is trained; use optim.name=adamw"


def test_muon_works_if_everything_else_is_frozen(small_model: nn.Module) -> None:
    for name, parameter in small_model.named_parameters():
        parameter.requires_grad_(name == "encoder.blocks.0.fc1.weight")
    optimizer = build_optimizer(small_model, config("muon"))
    weight = small_model.get_parameter("encoder.blocks.0.fc1.weight")
    before, weight.grad = weight.detach().clone(), torch.ones_like(weight)
    optimizer.step()
    assert not torch.equal(weight, before)


def test_parameter_without_a_step_is_its_own_average(small_model: nn.Module) -> None:
    optimizer = build_optimizer(small_model, config("schedule_free"))
    assert isinstance(optimizer, ScheduleFree)
    for parameter in small_model.parameters():
        torch.testing.assert_close(optimizer.average(parameter), parameter, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "most_bytes"),
    [("adamw", 8), ("lion", 4), ("lamb", 8.1), ("muon", 8), ("adafactor", 2.5), ("schedule_free", 8)],
)
def test_state_of_a_large_matrix_has_the_documented_size(name: OptimizerName, most_bytes: float) -> None:
    model = nn.Module()
    model.encoder = nn.Module()
    model.encoder.blocks = nn.ModuleList([nn.Linear(96, 160, bias=False)])
    optimizer = build_optimizer(model, config(name))
    weight = model.encoder.blocks[0].weight
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    found = sum(moment.nbytes for moment in optimizer.state[weight].values()) / weight.numel()
    assert found <= most_bytes + 0.01


def test_each_name_builds_its_optimizer(small_model: nn.Module) -> None:
    kinds = {name: type(build_optimizer(small_model, config(name))) for name in NAMES}
    assert kinds == {
        "adamw": torch.optim.AdamW, "lion": Lion, "lamb": Lamb, "adafactor": Adafactor, "muon": MuonAdamW,
        "schedule_free": ScheduleFree,
    }  # fmt: skip
