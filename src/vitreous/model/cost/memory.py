"""`ModelConfig`, batch -> bytes that a training step needs for what lies between forward and backward."""

import torch

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.parts.attention import AttentionKernel, is_explicit
from vitreous.model.parts.encoder import SKIP_FROM_RATE, drop_path_rates
from vitreous.model.parts.patch_drop import num_kept

_WIDE = 4
"""Bytes of a number in the residual stream and in a norm, whatever the precision."""


def activation_bytes(
    config: ModelConfig,
    batch_size: int,
    *,
    precision: str = "fp32",
    device_type: str = "cpu",
    kernel: AttentionKernel = "auto",
    grad_checkpointing: bool = False,
) -> int:
    """What forward and backward of a batch hold at most, beside weights and their gradients.

    That is what autograd keeps of every block, and the gradients that pass through the last one while nothing is freed
    yet. What an allocator takes beyond that is not in it: a third more with glibc's, little with CUDA's.

    Args:
        config: The model.
        batch_size: Images that go through it at once.
        precision: `bf16`: matrix products under autocast; any other: all is float32.
        device_type: Decides, with the number of tokens, which kernel attention takes by itself.
        kernel: Of attention.
        grad_checkpointing: Only each block's input is kept, and one block is computed again at a time.

    Returns:
        Bytes, within 15 % of what PyTorch allocates for models of linear patches.
    """
    rates = drop_path_rates(config.drop_path_rate, config.depth, config.drop_path_schedule)
    kept = [1 - rate if rate >= SKIP_FROM_RATE else 1.0 for rate in rates]
    num, dtype = _num_tokens(config), torch.bfloat16 if precision == "bf16" else torch.float32
    explicit = is_explicit(kernel, device_type, num, dtype=dtype, training=True)
    attention, mlp = _attention(config, precision, explicit), _mlp(config, precision)
    tokens = num * config.embed_dim * _WIDE
    passing = _passing(config, precision, explicit)
    if grad_checkpointing:
        # What follows the last block is gone when the block is computed again.
        held = config.depth * tokens + attention + mlp + passing - tokens
    elif _leaves_out(config):
        last, passing_last = _last(config, precision)
        held = sum(share * (attention + mlp) for share in kept[:-1]) + max(kept[-1] * last + passing_last, passing)
    else:
        held = sum(share * (attention + mlp) for share in kept) + passing
    return round(batch_size * (_outside(config, precision) + held))


def _num_tokens(config: ModelConfig) -> int:
    """That go through the encoder: dropped patches do not."""
    return config.num_prefix_tokens + num_kept(config.num_patches, config.patch_drop_rate)


def _leaves_out(config: ModelConfig) -> bool:
    """Return True if the last block computes only the tokens that the pool reads; see `change.trim`."""
    draws = config.proj_drop_rate or config.attn_drop_rate or config.drop_path_rate
    return config.pool == "token" and config.norm_order == "pre" and not draws


def _last(config: ModelConfig, precision: str) -> tuple[float, float]:
    """Of a last block that leaves tokens out, for one image: what it keeps, and the gradients that pass through it.

    Those of queries, keys and values are there twice: by head, and side by side.
    """
    num, dim, projected = _num_tokens(config), config.embed_dim, 3 * config.attn_dim * _narrow(precision)
    norms = _norm(config) + _narrow(precision) * dim + 2 * config.qk_norm * config.attn_dim * _narrow(precision)
    return num * (norms + projected), num * (2 * projected + _WIDE * dim)


def _narrow(precision: str) -> int:
    return 2 if precision == "bf16" else _WIDE


def _norm(config: ModelConfig) -> int:
    """What a norm keeps of a token: what came in, and of an RMSNorm, which PyTorch composes, what it scaled that to."""
    return _WIDE * config.embed_dim * (2 if config.norm == "rms" else 1)


def _branch_width(config: ModelConfig) -> int:
    """Numbers of a token that either half keeps: what came out of its norm, what was scaled, by what dropout scaled."""
    return config.embed_dim * (1 + bool(config.layer_scale) + (config.proj_drop_rate > 0))


def _attention(config: ModelConfig, precision: str, explicit: bool) -> float:
    """The first half of a block, for one image: what its norm, products and softmax keep."""
    # Queries, keys, values, and what was gathered of them.
    inner = config.attn_dim * (4 + 2 * config.qk_norm + 3 * config.attn_gate)
    width = _branch_width(config) + inner
    return _num_tokens(config) * (_norm(config) + _narrow(precision) * width) + _maps(config, precision, explicit)


def _maps(config: ModelConfig, precision: str, explicit: bool) -> float:
    """The attention probabilities of a block, or what a fused kernel keeps to compute them again."""
    num, heads = _num_tokens(config), config.num_heads
    if not explicit:
        return _WIDE * heads * num
    # With dropout: before it, what it scaled by, after it.
    return heads * num**2 * _narrow(precision) * (3 if config.attn_drop_rate else 1)


def _mlp(config: ModelConfig, precision: str) -> float:
    """The second half of a block, for one image."""
    hidden = config.mlp_dim * ((4 if config.mlp == "gated" else 2) + (config.proj_drop_rate > 0))
    return _num_tokens(config) * (_norm(config) + _narrow(precision) * (_branch_width(config) + hidden))


def _outside(config: ModelConfig, precision: str) -> float:
    """What stem, last norm and pool keep, for one image."""
    num, dim = _num_tokens(config), config.embed_dim
    patch_values = config.in_chans * config.img_size[0] * config.img_size[1]
    return patch_values * (_WIDE + _narrow(precision)) + (1 if _leaves_out(config) else 2) * num * dim * _WIDE


def _passing(config: ModelConfig, precision: str, explicit: bool) -> float:
    """Gradients that are there at once at the largest moment of the backward, for one image."""
    num, dim, narrow = _num_tokens(config), config.embed_dim, _narrow(precision)
    in_mlp = num * (2 * _WIDE * dim + narrow * config.mlp_dim)
    in_attention = num * _WIDE * 2 * dim + 2 * _maps(config, precision, explicit) - _mlp(config, precision)
    return max(in_mlp, in_attention)
