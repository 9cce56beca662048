"""Tokens -> tokens that have attended to each other. Vaswani et al. 2017, eq. 1 (1706.03762)."""

from typing import Literal, TypedDict, Unpack, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.parts.relation import NO_RELATION, Bias, Relation, rotate
from vitreous.tensors import Tokens

AttentionKernel = Literal["auto", "explicit", "sdpa"]
Heads = Float[Tensor, "batch heads tokens head_dim"]
Queries = Float[Tensor, "batch heads queries head_dim"]
Keys = Float[Tensor, "batch heads keys head_dim"]
AttentionMaps = Float[Tensor, "batch heads queries keys"]
"""Attention probabilities: how much each query attends to each key; rows sum to one."""

_LONGEST_EXPLICIT = {"inference": 16, "training": 64, "bf16": 256}
"""Longest sequence for which `auto` takes the explicit product on a CPU, measured on two Zen 3 cores with
`benchmarks/attention.py`. Those cores have no bf16 instructions, so the bf16 limit comes from the speed of other
libraries on ViT-S/16, where the fused kernel is slower.
"""


class AttentionArguments(TypedDict, total=False):
    """The arguments of `Attention`, for subclasses that take the same ones."""

    num_heads: int
    qkv: nn.Linear
    proj: nn.Linear
    qk_norms: tuple[nn.Module, nn.Module] | None
    gate: nn.Module | None
    attn_drop_rate: float
    proj_drop_rate: float
    kernel: AttentionKernel


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values come from one projection, as in timm.

    Args:
        num_heads: Number of heads.
        qkv: Projects tokens to queries, keys and values side by side, `3 * num_heads * head_dim` wide.
        proj: Projects the output of all heads, `num_heads * head_dim` wide, to tokens.
        qk_norms: Norms for queries and for keys, each over one head; None for no norm.
        gate: Projects tokens to `num_heads * head_dim` logits. Their sigmoids scale the output of the heads
            elementwise, as in Qiu et al. 2025 (2505.06708). None for no gate.
        attn_drop_rate: Dropout rate of the attention probabilities.
        proj_drop_rate: Dropout rate of the output.
        kernel: `explicit` computes softmax(QKᵀ/√d)V step by step, `sdpa` calls PyTorch's fused kernel, `auto` takes
            the faster one. Results differ only by rounding.

    Raises:
        UnknownNameError: The kernel does not exist.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        qkv: nn.Linear,
        proj: nn.Linear,
        qk_norms: tuple[nn.Module, nn.Module] | None = None,
        gate: nn.Module | None = None,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        kernel: AttentionKernel = "auto",
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.set_kernel(kernel)
        self.qkv = qkv
        q_norm, k_norm = qk_norms or (None, None)
        self.q_norm: nn.Module | None = q_norm
        self.k_norm: nn.Module | None = k_norm
        self.gate = gate
        self.proj = proj
        self.proj_drop = nn.Dropout(proj_drop_rate)

    def set_kernel(self, kernel: AttentionKernel) -> None:
        """Choose the kernel of `attend`. Raises UnknownNameError if there is no such kernel."""
        if kernel not in get_args(AttentionKernel):
            raise UnknownNameError(
                f"kernel={kernel}: no such attention kernel; {nearest(kernel, get_args(AttentionKernel))}"
            )
        self.kernel: AttentionKernel = kernel

    @classmethod
    def plain(
        cls,
        *,
        embed_dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        kernel: AttentionKernel = "auto",
    ) -> "Attention":
        """Build the standard attention, in which each head is `embed_dim / num_heads` wide.

        `num_heads` must divide `embed_dim`. With `qkv_bias`, queries, keys and values get a bias.

        Raises:
            ConfigError: `num_heads` does not divide `embed_dim`.
        """
        if embed_dim % num_heads:
            raise ConfigError(
                f"num_heads={num_heads}: does not divide embed_dim={embed_dim} (remainder {embed_dim % num_heads}); "
                "choose a divisor"
            )
        return cls(
            num_heads=num_heads,
            qkv=nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias),
            proj=nn.Linear(embed_dim, embed_dim),
            attn_drop_rate=attn_drop_rate,
            proj_drop_rate=proj_drop_rate,
            kernel=kernel,
        )

    def forward(self, tokens: Tokens, relation: Relation = NO_RELATION) -> Tokens:
        """Project to queries, keys and values, attend head by head, and project back to tokens.

        Tokens are normalized if the block is pre-norm. The relation rotates queries and keys, and adds a bias to the
        attention scores.
        """
        queries, keys, values = self.project(tokens, relation)
        return self.output(tokens, self.attend(queries, keys, values, relation.bias))

    def project(self, tokens: Tokens, relation: Relation = NO_RELATION) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values, each `[batch, heads, tokens, head_dim]`, normalized and rotated."""
        qkv = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if is_explicit(self.kernel, qkv.device.type, qkv.shape[3], dtype=qkv.dtype, training=torch.is_grad_enabled()):
            qkv = qkv.contiguous()  # one copy here instead of one in each product
        queries, keys, values = qkv.unbind(0)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries).to(values.dtype), self.k_norm(keys).to(values.dtype)
        if relation.cos is not None:
            queries, keys = rotate(queries, relation), rotate(keys, relation)
        return queries, keys, values

    def attend(self, queries: Queries, keys: Keys, values: Keys, bias: Bias | None = None) -> Queries:
        """Compute softmax(QKᵀ/√d + bias)V.

        Args:
            queries: `[batch, heads, queries, head_dim]`.
            keys: `[batch, heads, keys, head_dim]`.
            values: One per key, `[batch, heads, keys, head_dim]`.
            bias: Added to the attention scores, `[batch or 1, heads or 1, queries or 1, keys]`.
        """
        rate = self.attn_drop_rate if self.training else 0.0
        bias = None if bias is None else bias.to(queries.dtype)
        if not is_explicit(
            self.kernel, keys.device.type, keys.shape[2], dtype=keys.dtype, training=torch.is_grad_enabled()
        ):
            return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=rate)
        maps = attention_maps(queries, keys, bias)
        return (F.dropout(maps, rate) if rate else maps) @ values

    def output(self, tokens: Tokens, attended: Queries) -> Tokens:
        """Join the heads, gate them if there is a gate, and project to tokens.

        The gate reads the tokens that the queries were projected from.
        """
        joined = rearrange(attended, "b h n d -> b n (h d)")
        if self.gate is not None:
            joined = joined * self.gate(tokens).sigmoid()
        return self.proj_drop(self.proj(joined))

    def maps(self, tokens: Tokens, relation: Relation = NO_RELATION) -> AttentionMaps:
        """Return the attention probabilities before dropout, computed explicitly for every kernel."""
        queries, keys, _ = self.project(tokens, relation)
        return self.weights(queries, keys, relation.bias)

    def weights(self, queries: Queries, keys: Keys, bias: Bias | None = None) -> AttentionMaps:
        """Return softmax(QKᵀ/√d + bias); the arguments are those of `attend`."""
        return attention_maps(queries, keys, None if bias is None else bias.to(queries.dtype))


class LocalityAttention(Attention):
    """Attention with a learned temperature in which no token attends to itself.

    If the sequence has only one token, it does attend to itself. The arguments are those of `Attention`.

    Source:
        Lee et al. 2021, section 3.2 (2112.13492). The temperature starts at √head_dim. The parameter is the logarithm
        of its inverse, so that the temperature stays positive.
    """

    def __init__(self, **arguments: Unpack[AttentionArguments]) -> None:
        super().__init__(**arguments)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def project(self, tokens: Tokens, relation: Relation = NO_RELATION) -> tuple[Heads, Heads, Heads]:
        """Return queries, keys and values; the queries include the learned temperature in place of √head_dim."""
        queries, keys, values = super().project(tokens, relation)
        scale = self.log_scale.exp() * queries.shape[-1] ** 0.5
        return queries * scale.to(queries.dtype), keys, values

    def attend(self, queries: Queries, keys: Keys, values: Keys, bias: Bias | None = None) -> Queries:
        """Compute softmax(QKᵀ/temperature + bias)V without the diagonal; the arguments are as in `Attention`."""
        return super().attend(queries, keys, values, _without_diagonal(bias, queries, keys))

    def weights(self, queries: Queries, keys: Keys, bias: Bias | None = None) -> AttentionMaps:
        """Return softmax(QKᵀ/temperature + bias) without the diagonal."""
        return super().weights(queries, keys, _without_diagonal(bias, queries, keys))


class KeylessBiasLinear(nn.Linear):
    """A projection to queries, keys and values in which only queries and values have a bias.

    A bias of the keys would add the same number to all scores of a query and so change no attention probability.
    `attn_dim` is the width of all heads together.

    Source:
        BEiT (2106.08254) and DINOv3 (2508.10104). DINOv3 masks the bias of the keys. Here that third does not exist:
        `bias` holds the bias of the queries, then that of the values.
    """

    def __init__(self, embed_dim: int, attn_dim: int) -> None:
        super().__init__(embed_dim, 3 * attn_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(2 * attn_dim))

    def forward(self, tokens: Tokens) -> Tensor:
        """Return queries, keys and values side by side, `[batch, tokens, 3 * attn_dim]`."""
        for_queries, for_values = self.bias.chunk(2)
        return F.linear(tokens, self.weight, torch.cat([for_queries, torch.zeros_like(for_queries), for_values]))


def attention_maps(queries: Queries, keys: Keys, bias: Bias | None = None) -> AttentionMaps:
    """Return softmax(QKᵀ/√d + bias), `[batch, heads, queries, keys]`."""
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def is_explicit(
    kernel: AttentionKernel, device_type: str, num_tokens: int, *, dtype: torch.dtype, training: bool
) -> bool:
    """Return True if attention computes the product explicitly, and False if it calls PyTorch's fused kernel.

    The dtype is that of queries, keys and values; in training, a backward pass follows.
    """
    if kernel == "auto":
        # A trace is for inference, and torch checks it without gradients: both have to use the same kernel.
        # Compiled code cannot ask, and is never traced.
        is_traced = not torch.compiler.is_compiling() and torch.jit.is_tracing()  # type: ignore[attr-defined]
        training = training and not is_traced
        case = "bf16" if dtype == torch.bfloat16 else "training" if training else "inference"
        return device_type == "cpu" and num_tokens <= _LONGEST_EXPLICIT[case]
    return kernel == "explicit"


def _without_diagonal(bias: Bias | None, queries: Queries, keys: Keys) -> Bias | None:
    """Return the bias with minus infinity on the diagonal; if there are fewer queries than keys, they come first."""
    num_queries, num_keys = queries.shape[2], keys.shape[2]
    if num_keys == 1:
        return bias
    diagonal = torch.eye(num_keys, device=keys.device, dtype=torch.bool)[:num_queries]
    hidden = torch.zeros(diagonal.shape, device=keys.device).masked_fill(diagonal, float("-inf"))[None, None]
    return hidden if bias is None else bias + hidden
