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
from vitreous.model.parts.encoder import Encoder
from vitreous.model.parts.relation import Relation
from vitreous.model.taps import taps
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Images, Logits, Tokens
from vitreous.use.explain.relevance import PatchValues

Maps = Float[Tensor, "batch heads tokens tokens"]


@dataclass(frozen=True)
class Trace:
    """One forward pass.

    Attributes:
        grid_size: Rows and columns of patches.
        num_prefix_tokens: Number of tokens before the patches.
        outputs: Tokens after each block, before the final norm. If the model merges tokens, these are fewer than those
            that entered the encoder.
        merged: What the input tokens of each block represent, then what the output tokens of the last one represent;
            None where no tokens have merged.
        maps: Attention maps of each block, between its input tokens.
        tokens: Tokens after the final norm, which the pool reads; all tokens, also if the model merges them.
        logits: `[batch, classes]`, float32.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int
    outputs: Sequence[Tensor]
    merged: Sequence[Merged | None]
    maps: Sequence[Maps]
    tokens: Tokens
    logits: Logits

    def patches(self, values: Float[Tensor, "batch tokens"]) -> PatchValues:
        """Return the values of the patches, laid out as in the image and without those of the prefix tokens."""
        rows, columns = self.grid_size
        return rearrange(values[:, self.num_prefix_tokens :].float(), "b (h w) -> b h w", h=rows, w=columns)

    def between_all(
        self, block: int, weights: Float[Tensor, "batch fewer fewer"]
    ) -> Float[Tensor, "batch tokens tokens"]:
        """Return weights between the input tokens of a block as weights between all tokens.

        Tokens that were merged share the weight of their key equally, and each has the weights of their query.
        """
        merged = self.merged[block]
        if merged is None:
            return weights
        source = merged.source
        queries = weights.gather(1, rearrange(source, "b n -> b n 1").expand(-1, -1, weights.shape[2]))
        shared = queries / rearrange(merged.sizes, "b m -> b 1 m")
        return shared.gather(2, rearrange(source, "b n -> b 1 n").expand(-1, source.shape[1], -1))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[VisionTransformer]:
    """Yield the model in evaluation mode, without its compiled wrapper; its mode is restored afterwards.

    Raises:
        ConfigError: The model is not a VisionTransformer, or has no head.
    """
    inner = getattr(model, "_orig_mod", model)
    if not isinstance(inner, VisionTransformer):
        raise ConfigError(
            f"model={type(inner).__name__}: is not a VisionTransformer; use one that `load_model` or `create_model` "
            "returns"
        )
    if inner.num_classes == 0:
        raise ConfigError("model.num_classes=0: has no head, so there is no score to explain; use a model with classes")
    modes = {module: module.training for module in inner.modules()}
    inner.eval()
    try:
        yield inner
    finally:
        for module, was_training in modes.items():
            module.training = was_training


def trace(model: VisionTransformer, images: Images) -> Trace:
    """Run the model once and keep what methods differentiate: the score with respect to maps, outputs and tokens.

    The graph begins at the tokens that enter the encoder, so no gradient of the weights is computed.

    Args:
        model: In evaluation mode; see `evaluating`.
        images: `[batch, channels, height, width]`, normalized.
    """
    with torch.no_grad():
        embedded, relations = model.embed(images)
    encoder = model.encoder
    with torch.enable_grad(), taps(encoder, "blocks.*.attn.maps", detach=False) as seen:
        stages = list(_stages(encoder, embedded.detach().clone().requires_grad_(), relations))
        last, represented = stages[-1]
        tokens = unmerge(encoder.norm(last), represented)
        logits = model.forward_head(tokens).float()
    return Trace(
        grid_size=model.tokenizer.grid_size(images),
        num_prefix_tokens=model.num_prefix_tokens,
        outputs=[output for output, _ in stages],
        merged=[None, *(merged for _, merged in stages)],
        maps=[seen[f"blocks.{number}.attn.maps"] for number in range(len(encoder.blocks))],
        tokens=tokens,
        logits=logits,
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
