"""Model, images -> one forward pass that can be differentiated: attention maps, tokens, logits."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.change.merge import Merged, MergingEncoder, unmerge
from vitreous.model.parts.encoder import Encoder, PostNormBlock
from vitreous.model.parts.relation import Relation
from vitreous.model.taps import taps
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Logits, Tokens

TOKENS_AT_ONCE = 2_048
"""Tokens of a batch that is explained. Methods that differentiate keep all activations: 1 GB for ViT-S/16 at 224 px."""


@dataclass(frozen=True)
class Trace:
    """One forward pass.

    Attributes:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Number of tokens before the patches.
        states: Tokens that enter each block, then those that leave the last one, before the final norm. If the model
            merges tokens, later states have fewer of them.
        merged: What the tokens of each state represent; None where no tokens have merged.
        maps: Attention maps of each block, between the tokens that enter it, `[batch, heads, tokens, tokens]`.
        attended: Tokens that the attention of the last block reads: those that enter the block, normalized.
        tokens: Tokens after the final norm, which the pool reads; all tokens, also if the model merges them.
        logits: `[batch, classes]`, float32; the pooled features if the model has no head.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int
    states: Sequence[Tensor]
    merged: Sequence[Merged | None]
    maps: Sequence[Tensor]
    attended: Tensor
    tokens: Tokens
    logits: Logits

    def patches(self, values: Float[Tensor, "*batch tokens"]) -> Float[Tensor, "*batch rows columns"]:
        """Return the values of the patches, laid out as in the image and without those of the prefix tokens."""
        rows, columns = self.grid_size
        return rearrange(values[..., self.num_prefix_tokens :].float(), "... (h w) -> ... h w", h=rows, w=columns)


def check_explainable(model: nn.Module, *, needs_head: bool = True) -> VisionTransformer:
    """Return the model without its compiled wrapper; arguments and errors are those of `evaluating`."""
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, VisionTransformer):
        raise ConfigError(
            f"model={type(inner).__name__}: is not a VisionTransformer; use one that `load_model` or `create_model` "
            "returns"
        )
    if needs_head and inner.num_classes == 0:
        raise ConfigError("model.num_classes=0: has no head, so there is no score to explain; use a model with classes")
    if any(weight.is_inference() for weight in inner.parameters()):
        raise ConfigError(
            "model: was made inside torch.inference_mode(), so no gradient can be computed; make or load it outside"
        )
    return inner


@contextmanager
def evaluating(model: nn.Module, *, needs_head: bool = True) -> Iterator[VisionTransformer]:
    """Yield the model in evaluation mode, without its compiled wrapper, where gradients of images can be computed.

    Its weights require no gradient meanwhile, so that a forward pass does not keep what only their gradients need.
    Modes and weights are restored afterwards. Callers may be inside `torch.no_grad` or `torch.inference_mode`.
    `needs_head` refuses models that return features.

    Raises:
        ConfigError: The model is not a VisionTransformer, has no head, or was made inside `torch.inference_mode`.
    """
    inner = check_explainable(model, needs_head=needs_head)
    modes = {module: module.training for module in inner.modules()}
    trainable = [weight for weight in inner.parameters() if weight.requires_grad]
    inner.eval()
    try:
        for weight in trainable:
            weight.requires_grad_(False)
        with torch.inference_mode(False), torch.enable_grad():
            yield inner
    finally:
        for weight in trainable:
            weight.requires_grad_()
        for module, was_training in modes.items():
            module.training = was_training


def trace(model: VisionTransformer, images: Images) -> Trace:
    """Run the model once and keep what methods differentiate: the score with respect to maps, states and tokens.

    The graph begins at the tokens that enter the encoder. Under `torch.no_grad` there is none. The model is one that
    `evaluating` yields, and the images are normalized.
    """
    with torch.no_grad():
        embedded, relations = model.embed(images)
    encoder = model.encoder
    norm1 = f"blocks.{len(encoder.blocks) - 1}.norm1"
    with taps(encoder, "norm_pre", norm1, "blocks.*.attn.maps", detach=False) as seen:
        stages = list(_stages(encoder, embedded.requires_grad_(), relations))
    last, represented = stages[-1]
    states = [seen["norm_pre"], *(tokens for tokens, _ in stages)]
    tokens = unmerge(encoder.norm(last), represented)
    return Trace(
        grid_size=model.tokenizer.grid_size(images),
        num_prefix_tokens=model.num_prefix_tokens,
        states=states,
        merged=[None, *(merged for _, merged in stages)],
        maps=[seen[f"blocks.{number}.attn.maps"] for number in range(len(encoder.blocks))],
        attended=states[-2] if isinstance(encoder.blocks[-1], PostNormBlock) else seen[norm1],
        tokens=tokens,
        logits=model.forward_head(tokens).float(),
    )


def _stages(
    encoder: Encoder, tokens: Tokens, relations: Sequence[Relation] | None
) -> Iterator[tuple[Tensor, Merged | None]]:
    """Yield the tokens after each block, and what they represent if tokens have merged."""
    if isinstance(encoder, MergingEncoder):
        yield from encoder.merging_steps(tokens, relations)
        return
    outputs: dict[int, Tensor | None] = dict.fromkeys(range(len(encoder.blocks)))
    encoder(tokens, relations, outputs=outputs)
    for output in outputs.values():
        if output is not None:
            yield output, None
