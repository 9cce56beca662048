import torch
from torch import nn

from vitreous.optim.config import OptimConfig
from vitreous.optim.optimizers import build_optimizer

CONFIG = OptimConfig(lr=0.03, weight_decay=0.4, beta1=0.8, beta2=0.95)
RATES = (0.01, 0.03, 0.02)


def small_model() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5)).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def naive_adamw(weight: torch.Tensor, gradients: list[torch.Tensor], decay: float) -> torch.Tensor:
    """Loshchilov & Hutter 2019, algorithm 2, with the decay times the learning rate as in PyTorch."""
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step, (gradient, lr) in enumerate(zip(gradients, RATES, strict=True), start=1):
        first = CONFIG.beta1 * first + (1 - CONFIG.beta1) * gradient
        second = CONFIG.beta2 * second + (1 - CONFIG.beta2) * gradient**2
        unbiased_first = first / (1 - CONFIG.beta1**step)
        unbiased_second = second / (1 - CONFIG.beta2**step)
        weight = weight - lr * decay * weight - lr * unbiased_first / (unbiased_second.sqrt() + 1e-8)
    return weight


def test_three_steps_are_naive_adamw_with_decay_on_the_matrix_alone() -> None:
    model = small_model()
    optimizer = build_optimizer(model, CONFIG)
    generator = torch.Generator().manual_seed(2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    gradients: dict[str, list[torch.Tensor]] = {name: [] for name in before}
    for lr in RATES:
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            gradients[name].append(parameter.grad.clone())
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    for name, parameter in model.named_parameters():
        decay = CONFIG.weight_decay if name == "0.weight" else 0.0
        expected = naive_adamw(before[name], gradients[name], decay)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


def test_config_reaches_both_groups() -> None:
    decayed, others = build_optimizer(small_model(), CONFIG).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.4, 0.0)
    assert all(group["lr"] == 0.03 and group["betas"] == (0.8, 0.95) for group in (decayed, others))


def test_a_model_without_matrices_is_optimised_too() -> None:
    optimizer = build_optimizer(nn.LayerNorm(5), CONFIG)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
