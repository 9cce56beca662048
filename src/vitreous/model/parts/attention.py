"""Tokens -> tokens that have looked at each other. Vaswani et al. 2017, eq. 1 (1706.03762)."""

from typing import Literal, get_args

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.model.parts.relation import Relation, rotate
from vitreous.tensors import FirstTokens, Tokens

AttentionKernel = Literal["auto", "explicit", "sdpa"]
Heads = Float[Tensor, "batch heads tokens head_dim"]
FirstHeads = Float[Tensor, "batch heads first head_dim"]
"""Of the tokens that look: all, or the first."""
AttentionMaps = Float[Tensor, "batch heads queries keys"]
"""How much each token (query) reads from each token (key); rows sum to one."""

_LONGEST_EXPLICIT = {"inference": 16, "training": 64, "bf16": 256}
"""Tokens up to which `auto` writes the product out on a CPU, as `benchmarks/attention.py` found it on two Zen 3 cores;
those multiply no bf16, of which other libraries' speed on ViT-S/16 tells that the fused kernel loses there.
"""
_NOTHING = Relation()


def is_explicit(
    kernel: AttentionKernel, device_type: str, num_tokens: int, *, dtype: torch.dtype, training: bool
) -> bool:
    """Whether the product is written out, or PyTorch's fused one is called.

    Args:
        kernel: What is asked for.
        device_type: Where the model is.
        num_tokens: Length of a sequence.
        dtype: Of the product.
        training: Whether a backward will follow.
    """
    if kernel == "auto":
        case = "bf16" if dtype == torch.bfloat16 else "training" if training else "inference"
        return device_type == "cpu" and num_tokens <= _LONGEST_EXPLICIT[case]
    return kernel == "explicit"


class Attention(nn.Module):
    """Multi-head self-attention; queries, keys and values in one projection, as timm lays it out.

    Args:
        num_heads: Heads.
        qkv: Tokens to queries, keys and values side by side, `3 * num_heads * head_dim` wide.
        proj: What all heads gathered, `num_heads * head_dim` wide, to tokens; dropout included.
        qk_norms: For queries and for keys, each over a head; None for none.
        gate: Tokens to one number per gathered value, whose sigmoid scales it; None for none (Qiu et al. 2025,
            2505.06708, the elementwise gate on the output of the product).
        attn_drop_rate: Dropout on the attention probabilities.
        kernel: `explicit` forms softmax(QKᵀ/√d)V, `sdpa` calls PyTorch's fused one, `auto` takes the faster of the two.
            They differ in rounding alone.

    Raises:
        UnknownNameError: No such kernel.
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
        kernel: AttentionKernel = "auto",
    ) -> None:
        super().__init__()
        if kernel not in get_args(AttentionKernel):
            raise UnknownNameError(
                f"kernel={kernel}: no such attention kernel; {nearest(kernel, get_args(AttentionKernel))}"
            )
        self.num_heads = num_heads
        self.attn_drop_rate = attn_drop_rate
        self.kernel: AttentionKernel = kernel
        self.qkv = qkv
        q_norm, k_norm = qk_norms or (None, None)
        self.q_norm: nn.Module | None = q_norm
        self.k_norm: nn.Module | None = k_norm
        self.gate = gate
        self.proj = proj

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
        """As the first paper has it: heads that share the width, one linear layer before them, one after.

        Raises:
            ConfigError: The heads do not share the width evenly.
        """
        if embed_dim % num_heads:
            raise ConfigError(
                f"num_heads={num_heads}: does not divide embed_dim={embed_dim} (remainder {embed_dim % num_heads}); "
                "choose a divisor"
            )
        return cls(
            num_heads=num_heads,
            qkv=nn.Linear(embed_dim, 3 * embed_dim, bias=qkv_bias),
            proj=Projection(embed_dim, embed_dim, drop_rate=proj_drop_rate),
            attn_drop_rate=attn_drop_rate,
            kernel=kernel,
        )

    def forward(
        self, tokens: Tokens, relation: Relation = _NOTHING, with_keys: bool = False
    ) -> FirstTokens | tuple[FirstTokens, Heads]:
        """Let every token gather values from all tokens, head by head, and mix the heads.

        Args:
            tokens: Normalised, where the block does that first.
            relation: What attention takes beside them.
            with_keys: Give the keys too, by which tokens can be compared.
        """
        queries, keys, values = self.heads(tokens, relation)
        mixed = self.mix(tokens, self.gather(queries, keys, values, relation))
        return (mixed, keys) if with_keys else mixed

    def maps(self, tokens: Tokens, relation: Relation = _NOTHING) -> AttentionMaps:
        """The attention probabilities for these tokens, before dropout, whatever the kernel of `forward`."""
        queries, keys, _ = self.heads(tokens, relation)
        return self.weigh(queries, keys, relation)

    def heads(self, tokens: Tokens, relation: Relation = _NOTHING) -> tuple[FirstHeads, Heads, Heads]:
        """Queries of those that look, keys and values of all: projected, normalised, turned."""
        qkv = rearrange(self.qkv(tokens), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        if self._is_explicit(qkv):
            qkv = qkv.contiguous()  # one copy, where each product would make its own
        queries, keys, values = qkv.unbind(0)
        if self.q_norm is not None and self.k_norm is not None:
            queries, keys = self.q_norm(queries).to(values.dtype), self.k_norm(keys).to(values.dtype)
        if relation.cos is not None:
            queries, keys = rotate(queries, relation), rotate(keys, relation)
        return queries[:, :, : relation.num_queries], keys, values

    def weigh(self, queries: FirstHeads, keys: Heads, relation: Relation = _NOTHING) -> AttentionMaps:
        """softmax(QKᵀ/√d + bias): how much each query reads from each key."""
        scores = (queries * self._scale(queries)) @ keys.transpose(-2, -1)
        bias = self._bias(queries, keys, relation)
        return (scores if bias is None else scores + bias).softmax(dim=-1)

    def gather(self, queries: FirstHeads, keys: Heads, values: Heads, relation: Relation = _NOTHING) -> FirstHeads:
        """softmax(QKᵀ/√d + bias)V, by whichever kernel."""
        rate = self.attn_drop_rate if self.training else 0.0
        if self._is_explicit(keys):
            maps = self.weigh(queries, keys, relation)
            return (F.dropout(maps, rate) if rate else maps) @ values
        bias = self._bias(queries, keys, relation)
        scale = self._scale(queries)
        if isinstance(scale, Tensor):
            queries, scale = queries * scale, 1.0
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=rate, scale=scale)

    def mix(self, tokens: Tokens, gathered: FirstHeads) -> FirstTokens:
        """What the heads gathered, gated, and mixed by the output projection."""
        joined = rearrange(gathered, "b h n d -> b n (h d)")
        if self.gate is not None:
            joined = joined * self.gate(tokens[:, : joined.shape[1]]).sigmoid()
        return self.proj(joined)

    def _is_explicit(self, heads: Tensor) -> bool:
        training = torch.is_grad_enabled()
        return is_explicit(self.kernel, heads.device.type, heads.shape[-2], dtype=heads.dtype, training=training)

    def _scale(self, queries: FirstHeads) -> float | Tensor:
        return queries.shape[-1] ** -0.5

    def _bias(self, queries: FirstHeads, keys: Heads, relation: Relation) -> Tensor | None:
        bias, sizes = relation.bias, relation.sizes
        if sizes is not None:
            # A key that stands for several tokens weighs as much as all of them: ToMe's proportional attention.
            shares = rearrange(sizes.log(), "b n -> b 1 1 n")
            bias = shares if bias is None else bias + shares
        return None if bias is None else bias[:, :, : queries.shape[2]].to(queries.dtype)


class LocalityAttention(Attention):
    """Attention with a learned temperature in which no token attends to itself, so that it must look around.

    A token that is alone in its sequence has nothing else to attend to, and does.

    Args: Those of `Attention`.

    Source:
        Lee et al. 2021, section 3.2 (2112.13492). The temperature starts at √head_dim; it is kept as the logarithm of
        its inverse, so that it stays positive.
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
        kernel: AttentionKernel = "auto",
    ) -> None:
        super().__init__(
            num_heads=num_heads,
            qkv=qkv,
            proj=proj,
            qk_norms=qk_norms,
            gate=gate,
            attn_drop_rate=attn_drop_rate,
            kernel=kernel,
        )
        self.log_scale = nn.Parameter(torch.zeros(()))

    def _scale(self, queries: FirstHeads) -> float | Tensor:
        return self.log_scale.exp().to(queries.dtype)

    def _bias(self, queries: FirstHeads, keys: Heads, relation: Relation) -> Tensor | None:
        if keys.shape[2] == 1:
            return super()._bias(queries, keys, relation)
        itself = torch.eye(keys.shape[2], device=keys.device)
        # How many tokens a query sees behind each key: all those merged with it but itself; log(0) is -inf.
        seen = 1 - itself if relation.sizes is None else rearrange(relation.sizes, "b n -> b 1 1 n") - itself
        bias = seen.log() if relation.bias is None else seen.log() + relation.bias
        return bias[..., : queries.shape[2], :].to(queries.dtype)


class Projection(nn.Linear):
    """A linear layer and dropout on what it gives; a Linear itself, so that its weights are `proj.weight` as in timm.

    Args:
        in_features: Width that comes in.
        out_features: Width that goes out.
        bias: Whether it has a bias.
        drop_rate: Dropout on its output.
    """

    def __init__(self, in_features: int, out_features: int, *, bias: bool = True, drop_rate: float = 0.0) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.drop_rate = drop_rate

    def forward(self, values: Tensor) -> Tensor:
        """Project, and drop in training."""
        return F.dropout(super().forward(values), self.drop_rate, self.training)


class KeylessBiasLinear(nn.Linear):
    """Queries, keys and values of which the keys have no bias: it would not change a single attention probability.

    Args:
        embed_dim: Width of a token.
        attn_dim: Width of all heads together.

    Source:
        BEiT (2106.08254) and DINOv3 (2508.10104), which masks that third of the bias; here it is not there at all:
        `bias` holds the query's, then the value's.
    """

    def __init__(self, embed_dim: int, attn_dim: int) -> None:
        super().__init__(embed_dim, 3 * attn_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(2 * attn_dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Project to all three."""
        for_queries, for_values = self.bias.chunk(2)
        return F.linear(tokens, self.weight, torch.cat([for_queries, torch.zeros_like(for_queries), for_values]))
