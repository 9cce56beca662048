"""ModelConfig, batch size -> bytes taken by activations and intermediate gradients in one training step."""

import torch

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.cost.count import stem_channels
from vitreous.model.parts.attention import AttentionKernel, is_explicit
from vitreous.model.parts.encoder import SKIP_FROM_RATE, drop_path_rates
from vitreous.model.parts.patch_drop import num_kept

_FLOAT32_BYTES = 4
"""Bytes of one value in the residual stream and in norms, which stay in float32 at every precision."""
_INT64_BYTES = 8


def activation_bytes(
    config: ModelConfig,
    batch_size: int,
    *,
    precision: str = "fp32",
    device_type: str = "cpu",
    kernel: AttentionKernel = "auto",
    grad_checkpointing: bool = False,
) -> int:
    """Return the peak memory of one forward and backward pass, without the weights and their gradients.

    The peak consists of what autograd saves for every block, and of the gradients that pass through the last block
    before anything is freed. Allocator overhead comes on top: about a third with glibc, little with CUDA.

    `bf16` runs matrix products under autocast; any other precision means float32. The type of the device, `cpu`, `cuda`
    ..., and the number of tokens decide which kernel `auto` means. With `grad_checkpointing`, only the input of each
    block is saved, and one block at a time is recomputed.

    Returns:
        Bytes, within 15% of what PyTorch allocates.
    """
    num, dtype = _num_tokens(config), torch.bfloat16 if precision == "bf16" else torch.float32
    explicit = is_explicit(kernel, device_type, num, dtype=dtype, training=True)
    block = _attention(config, precision, explicit) + _mlp(config, precision)
    tokens = num * config.embed_dim * _FLOAT32_BYTES
    gradients = _block_gradients(config, precision, explicit)
    if grad_checkpointing:
        # The output of the last block is freed before the first block is recomputed.
        held = config.depth * tokens + block + gradients - tokens
    elif _trims_last_block(config):
        saved, last_gradients = _trimmed_block(config, precision)
        held = (config.depth - 1) * block + max(saved + last_gradients, gradients)
    else:
        rates = drop_path_rates(config.drop_path_rate, config.depth, config.drop_path_schedule)
        # Share of the images for which a block runs: drop path skips the others if that saves time.
        shares = [1 - rate if rate >= SKIP_FROM_RATE else 1.0 for rate in rates]
        # A branch that skips images is added by `index_add`, which saves its output.
        outputs = sum(2 * share * tokens for share in shares if share < 1)
        held = sum(share * block for share in shares) + outputs + gradients
    return round(batch_size * (_outside_blocks(config, precision) + held))


def _num_tokens(config: ModelConfig) -> int:
    """Count the tokens that enter the encoder, after patch drop."""
    return config.num_prefix_tokens + num_kept(config.num_patches, config.patch_drop_rate)


def _trims_last_block(config: ModelConfig) -> bool:
    """Return True if the last block computes only the tokens that the pool reads; see `change.trim`."""
    draws = config.proj_drop_rate or config.attn_drop_rate or config.drop_path_rate
    return config.pool == "token" and config.norm_order == "pre" and not draws


def _trimmed_block(config: ModelConfig, precision: str) -> tuple[float, float]:
    """Return, for one image, what a trimmed last block saves, and the gradients that pass through it.

    The gradients of queries, keys and values exist twice: per head, and side by side.
    """
    num, dim, matmul = _num_tokens(config), config.embed_dim, _matmul_bytes(precision)
    projected = 3 * config.attn_dim * matmul
    norms = _norm(config) + matmul * dim + 2 * config.qk_norm * config.attn_dim * matmul
    return num * (norms + projected), num * (2 * projected + _FLOAT32_BYTES * dim)


def _matmul_bytes(precision: str) -> int:
    """Return the bytes of one value that a matrix product reads or writes."""
    return 2 if precision == "bf16" else _FLOAT32_BYTES


def _norm(config: ModelConfig) -> int:
    """Return the bytes that a norm saves per token: its input, and for RMSNorm also the normalized values.

    PyTorch composes RMSNorm of several operations, and one of them saves its own output.
    """
    return _FLOAT32_BYTES * config.embed_dim * (2 if config.norm == "rms" else 1)


def _branch_width(config: ModelConfig) -> int:
    """Return the values per token that attention and MLP each save: norm output, LayerScale input, dropout mask."""
    return config.embed_dim * (1 + bool(config.layer_scale) + (config.proj_drop_rate > 0))


def _attention(config: ModelConfig, precision: str, explicit: bool) -> float:
    """Return the bytes that the attention branch of a block saves for one image."""
    # Queries, keys, values and the output of attention; QK-norms and gates add their own.
    inner = config.attn_dim * (4 + 2 * config.qk_norm + 3 * config.attn_gate)
    width = _branch_width(config) + inner
    scores = _attention_scores(config, precision, explicit)
    return _num_tokens(config) * (_norm(config) + _matmul_bytes(precision) * width) + scores


def _attention_scores(config: ModelConfig, precision: str, explicit: bool) -> float:
    """Return the bytes of a block's attention scores, or of what a fused kernel saves to recompute them."""
    num, heads = _num_tokens(config), config.num_heads
    if not explicit:
        return _FLOAT32_BYTES * heads * num
    # Dropout saves three tensors of this size: its input, its mask and its output.
    return heads * num**2 * _matmul_bytes(precision) * (3 if config.attn_drop_rate else 1)


def _mlp(config: ModelConfig, precision: str) -> float:
    """Return the bytes that the MLP branch of a block saves for one image."""
    hidden = config.mlp_dim * ((4 if config.mlp == "gated" else 2) + (config.proj_drop_rate > 0))
    return _num_tokens(config) * (_norm(config) + _matmul_bytes(precision) * (_branch_width(config) + hidden))


def _outside_blocks(config: ModelConfig, precision: str) -> float:
    """Return the bytes that stem, final norm and pool save for one image."""
    num, dim = _num_tokens(config), config.embed_dim
    pixels = config.in_chans * config.img_size[0] * config.img_size[1]
    copies = 1 if _trims_last_block(config) else 2
    saved = pixels * (_FLOAT32_BYTES + _matmul_bytes(precision)) + copies * num * dim * _FLOAT32_BYTES
    return saved + _stem(config, precision)


def _stem(config: ModelConfig, precision: str) -> int:
    """Return the bytes that the convolutions of a stem save for one image, besides the image."""
    pixels, saved, matmul = config.img_size[0] * config.img_size[1], 0, _matmul_bytes(precision)
    for channels in stem_channels(config):
        halved = pixels // 4
        if config.stem == "conv":  # what the norm reads, and what ReLU returns
            saved += channels * halved * 2 * matmul
        else:  # what ReLU returns; then the largest values and their numbers
            saved += channels * (pixels * matmul + halved * (matmul + _INT64_BYTES))
        pixels = halved
    return saved


def _block_gradients(config: ModelConfig, precision: str, explicit: bool) -> float:
    """Return the bytes of the gradients that exist at once when the backward pass of a block is at its peak."""
    num, dim, matmul = _num_tokens(config), config.embed_dim, _matmul_bytes(precision)
    in_mlp = num * (2 * _FLOAT32_BYTES * dim + matmul * config.mlp_dim)
    scores = _attention_scores(config, precision, explicit)
    # By then, what the MLP branch saved has been freed.
    in_attention = num * _FLOAT32_BYTES * 2 * dim + 2 * scores - _mlp(config, precision)
    return max(in_mlp, in_attention)
