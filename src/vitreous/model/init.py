"""A model -> the same model with new weights, drawn by the rules of a paper or library."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.nn import init

from vitreous.model.config.model_config import InitScheme
from vitreous.model.parts.attention import Attention, LocalityAttention
from vitreous.model.parts.embedding import LearnedPosition, Prefix
from vitreous.model.parts.encoder import LayerScale, Mlp
from vitreous.model.parts.fixed_position import sincos2d
from vitreous.model.parts.head import DistilledHead
from vitreous.model.parts.pool import AttentionPool
from vitreous.model.parts.relative_bias import RelativeBias
from vitreous.model.parts.rotary import MixedRotaryPosition, draw_mixed
from vitreous.model.parts.tokenizer import ImageTokenizer

Matrix = Literal["normal", "xavier", "xavier_joint", "default"]
"""Distribution of a matrix. `normal` is a truncated normal distribution with std 0.02. `xavier` is uniform within
±√(6/(fan_in + fan_out)), for query, key and value separately; `xavier_joint` treats these three as one matrix.
`default` is PyTorch's: uniform within ±1/√fan_in."""


@dataclass(frozen=True)
class Scheme:
    """Distributions from which the weights of a model are drawn.

    Attributes:
        linear: Distribution of the matrices of attention and MLP.
        proj: Distribution of the output projection of attention; None for that of `linear`.
        patch: Distribution of the patch projection: a `Matrix`, or `fan_in` for a normal distribution with std
            1/√fan_in, or `lecun` for the same truncated at two standard deviations and rescaled, as in Flax.
        patch_bias: Draw the bias of the patch projection as PyTorch does; False for zeros.
        mlp_bias_std: Standard deviation of the biases of the MLP.
        position_std: Standard deviation of learned positions.
        token_std: Standard deviation of class token, distillation token and registers.
        head_std: Standard deviation of the weights of the head; 0 for zeros, None for the distribution of `linear`.
        head_bias: Bias of the head as a function of the number of classes.
    """

    linear: Matrix
    proj: Matrix | None = None
    patch: Matrix | Literal["lecun", "fan_in"] = "default"
    patch_bias: bool = True
    mlp_bias_std: float = 0.0
    position_std: float = 0.02
    token_std: float = 1e-6
    head_std: float | None = None
    head_bias: Callable[[int], float] = lambda num_classes: 0.0


SCHEMES: dict[InitScheme, Scheme] = {
    # timm `init_weights_vit_timm`, in which the patch projection keeps PyTorch's values for a convolution.
    "timm": Scheme("normal"),
    # For narrow models. Positions have the scale of the normalized patch tokens that they are added to. The head is not
    # zero: in a short run it would stay small for long. After 12 epochs of sign-digits a zero head cost 15 points of
    # validation accuracy, one of std 0.02 cost 7, and a zero head with 10 times the learning rate 2.
    "xavier": Scheme("xavier", position_std=1.0),
    # Google's `vision_transformer`, in which query, key and value are three layers; timm's `init_weights_vit_jax`
    # draws them as one. "nlhb" stands for negative log head bias.
    "jax": Scheme("xavier", patch="lecun", patch_bias=False, mlp_bias_std=1e-6, head_std=0.0),
    "jax_nlhb": Scheme(
        "xavier", patch="lecun", patch_bias=False, mlp_bias_std=1e-6, head_std=0.0, head_bias=lambda n: -math.log(n)
    ),
    # torchvision `vision_transformer.py`, which uses torch.nn.MultiheadAttention.
    "torchvision": Scheme(
        "xavier_joint", "default", "fan_in", patch_bias=False, mlp_bias_std=1e-6, token_std=0.0, head_std=0.0
    ),
    # DeiT III, `models_v2.py`.
    "deit3": Scheme("normal", token_std=0.02),
    # MAE, `models_mae.py`; the head is initialized as in its fine-tuning script.
    "mae": Scheme("xavier_joint", patch="xavier", token_std=0.02, head_std=2e-5),
    # Like `timm`, except for the matrices of attention (`_imitate_trained`) and learned positions.
    "mimetic": Scheme("normal"),
}


def initialize(model: nn.Module, *, scheme: InitScheme = "timm", generator: Generator | None = None) -> None:
    """Draw every weight, part by part in the order of the model.

    Norms start as the identity, and biases as zeros unless the scheme draws them. At width 768 `timm` and `xavier` are
    similar. At width 64 the weights of `timm` are a sixth as large, and a short run ends before they have grown: on
    digits, 20 epochs reach 42% with `timm`, 78% with Xavier matrices, and 96% with Xavier matrices and positions of std
    1 (`benchmarks/ablations.py`).

    A model or any part of one is changed in place. `scheme` is a key of `SCHEMES`. The generator is one of the CPU;
    None uses torch's global one.

    Source:
        The code named at each entry of `SCHEMES`. Mimetic: Trockman and Kolter 2023 (2305.09828).
    """
    rules, roles = SCHEMES[scheme], _roles(model)
    for module in model.modules():
        match module:
            case nn.Linear() | nn.Conv2d():
                _draw_linear(module, roles.get(module, "linear"), rules, generator)
            case nn.LayerNorm() | nn.GroupNorm() | nn.RMSNorm():
                init.ones_(module.weight)
                if isinstance(bias := getattr(module, "bias", None), Tensor):
                    init.zeros_(bias)
            case _:
                _draw_tokens(module, rules, generator)
    if scheme == "mimetic":
        for module in model.modules():
            if isinstance(module, Attention):
                _imitate_trained(module, generator)
            elif isinstance(module, LearnedPosition) and module.grid.shape[2] % 4 == 0:
                rows, columns, width = module.grid.shape
                _fill(module.grid, sincos2d((rows, columns), width).view_as(module.grid))


def _draw_tokens(module: nn.Module, rules: Scheme, generator: Generator | None) -> None:
    """Draw the parameters outside of linear and convolutional layers, such as positions, tokens and scales."""
    match module:
        case LearnedPosition():
            init.trunc_normal_(module.grid, std=rules.position_std, generator=generator)
        case Prefix():
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("position"):
                    init.trunc_normal_(parameter, std=rules.position_std, generator=generator)
                elif rules.token_std:
                    init.normal_(parameter, std=rules.token_std, generator=generator)
                else:
                    init.zeros_(parameter)
        case LayerScale():
            init.constant_(module.gamma, module.initial)
        case MixedRotaryPosition():
            draw_mixed(module.freqs, module.theta, generator)
        case RelativeBias():
            for parameter in module.parameters():
                init.trunc_normal_(parameter, std=0.02, generator=generator)
        case AttentionPool():
            init.trunc_normal_(module.probe, std=module.probe.numel() ** -0.5, generator=generator)
        case LocalityAttention():
            init.constant_(module.log_scale, -0.5 * math.log(module.proj.in_features / module.num_heads))


def _roles(model: nn.Module) -> dict[nn.Module, str]:
    """Return the role of each layer for which a scheme may have a rule of its own."""
    roles: dict[nn.Module, str] = {}
    for module in model.modules():
        match module:
            case ImageTokenizer():
                roles |= dict.fromkeys(module.modules(), "patch")
            case Attention():
                roles |= {module.qkv: "qkv", module.proj: "proj"}
            case AttentionPool():
                roles[module.kv] = "kv"
            case Mlp():
                roles |= {module.fc1: "mlp", module.fc2: "mlp"}
            case DistilledHead():
                roles |= {module.label: "head", module.teacher: "head"}
        if isinstance(head := getattr(module, "head", None), nn.Linear):
            roles[head] = "head"
    return roles


def _draw_linear(module: nn.Linear | nn.Conv2d, role: str, rules: Scheme, generator: Generator | None) -> None:
    kind: Matrix | Literal["lecun", "fan_in"] = rules.linear
    if role == "patch":
        kind = rules.patch
    elif role == "proj" and rules.proj:
        kind = rules.proj
    fan_out, fan_in = module.weight.flatten(1).shape
    if role == "head" and rules.head_std == 0:
        init.zeros_(module.weight)
    elif role == "head" and rules.head_std is not None:
        init.trunc_normal_(module.weight, std=rules.head_std, generator=generator)
    elif kind == "normal":
        init.trunc_normal_(module.weight, std=0.02, generator=generator)
    elif kind == "lecun":
        std = fan_in**-0.5 / 0.87962566  # divided by the std of a standard normal truncated at ±2
        init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std, generator=generator)
    elif kind == "fan_in":
        init.normal_(module.weight, std=fan_in**-0.5, generator=generator)
    elif kind == "default":
        init.uniform_(module.weight, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
    else:
        num_stacked = {"qkv": 3, "kv": 2}.get(role, 1) if kind == "xavier" else 1
        bound = (6 / (fan_in + fan_out // num_stacked)) ** 0.5
        init.uniform_(module.weight, -bound, bound, generator=generator)
    if module.bias is None:
        return
    if role == "patch" and rules.patch_bias:
        init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5, generator=generator)
    elif role == "mlp" and rules.mlp_bias_std:
        init.normal_(module.bias, std=rules.mlp_bias_std, generator=generator)
    else:
        init.constant_(module.bias, rules.head_bias(fan_out) if role == "head" else 0.0)


def _imitate_trained(attn: Attention, generator: Generator | None) -> None:
    """Draw matrices whose products imitate those of trained models.

    The product of query and key is close to 0.7 (noise + identity), and that of output and value to
    0.4 (noise - identity), where the noise has variance 1/width.
    """
    inner, width = attn.proj.in_features, attn.proj.out_features
    head_dim = inner // attn.num_heads

    def factors(noise: float, identity: float, rank: int) -> tuple[Tensor, Tensor]:
        """Return two matrices, `[width, rank]`, whose product left @ rightᵀ is the best approximation of this rank."""
        drawn = torch.randn(width, width, generator=generator, dtype=torch.float64) * width**-0.5
        left, spectrum, right = torch.linalg.svd(noise * drawn + identity * torch.eye(width, dtype=torch.float64))
        root, beyond = spectrum[:rank].sqrt(), (0, max(0, rank - width))
        return F.pad(left[:, :rank] * root, beyond), F.pad(right[:rank].T * root, beyond)

    pairs = [factors(0.7, 0.7, head_dim) for _ in range(attn.num_heads)]
    value, output = factors(0.4, -0.4, inner)
    _fill(attn.qkv.weight, torch.cat([*(query.T for query, _ in pairs), *(key.T for _, key in pairs), value.T]))
    _fill(attn.proj.weight, output)


def _fill(parameter: Tensor, values: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(values)
