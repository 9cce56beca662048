"""A small float64 model with all kinds of parameters that optimizers distinguish, and a driver with fixed gradients."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor, nn

RATES = (0.01, 0.03, 0.02)


@dataclass
class Course:
    """Values of each parameter before and after the steps, and its gradient at each learning rate of `RATES`."""

    before: dict[str, Tensor]
    after: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, list[Tensor]] = field(default_factory=dict)


class Encoder(nn.Module):
    """One block with a matrix that is large enough to be factored, a small one, and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"fc1": nn.Linear(33, 40), "fc2": nn.Linear(40, 3), "norm": nn.LayerNorm(3)})]
        )


class Small(nn.Module):
    """A model with the parameter names of a VisionTransformer."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = nn.ModuleDict({"proj": nn.Linear(5, 33)})
        self.encoder = Encoder()
        self.head = nn.Linear(3, 4)


@pytest.fixture
def small_model() -> nn.Module:
    """A model with the same weights in every test, none of them zero."""
    model = Small().double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


@pytest.fixture
def drive() -> Callable[[nn.Module, torch.optim.Optimizer], Course]:
    """A function that takes three steps with the learning rates `RATES` and random gradients."""

    def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer) -> Course:
        generator = torch.Generator().manual_seed(2)
        course = Course({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        for lr in RATES:
            for name, parameter in model.named_parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                course.gradients.setdefault(name, []).append(parameter.grad.clone())
            for group in optimizer.param_groups:
                group["lr"] = lr * group["lr_ratio"]
            optimizer.step()
        course.after = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return course

    return take_steps
