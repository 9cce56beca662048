"""A Vision Transformer -> the methods of timm's models, through which other libraries use a backbone."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.build_parts import AnyRelation, Parts, build_pool_and_head
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.published import TIMM_POOLS
from vitreous.model.init import initialize
from vitreous.model.parts.attention import Attention, AttentionKernel
from vitreous.model.parts.encoder import Encoder, drop_path_rates
from vitreous.model.parts.relation import Relation
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.tensors import Features, Images, Logits, Tokens

Layout = Literal["NCHW", "NLC"]
_LEARNING_POOLS = ("map", "sequence")


class Backbone(nn.Module):
    """All of a model except the forward pass, which `VisionTransformer` adds."""

    tokenizer: ImageTokenizer
    patch_norm: nn.Module
    position: nn.Module
    patch_drop: nn.Module
    prefix: nn.Module
    relation: AnyRelation | None
    encoder: Encoder
    pool: nn.Module
    fc_norm: nn.Module
    head: nn.Module

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def num_classes(self) -> int:
        """Number of logits; 0 if the model returns features."""
        return self.config.num_classes

    @property
    def embed_dim(self) -> int:
        """Width of a token."""
        return self.config.embed_dim

    @property
    def num_features(self) -> int:
        """Width of the vector that the head takes."""
        return self.config.num_features

    @property
    def head_hidden_size(self) -> int:
        """Width of the vector that the head takes, under timm's newer name."""
        return self.config.num_features

    @property
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches in `forward_features`."""
        return self.config.num_prefix_tokens

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """One dictionary per block: its width `num_chs`, the side of a patch in px `reduction`, its name `module`."""
        width, reduction = self.config.embed_dim, self.config.patch_size
        names = [f"encoder.blocks.{number}" for number in range(len(self.encoder.blocks))]
        return [{"num_chs": width, "reduction": reduction, "module": name} for name in names]

    @abstractmethod
    def embed(self, images: Images) -> tuple[Tokens, Sequence[Relation] | None]:
        """Return the tokens that enter the encoder, and one relation per block; None if attention takes only tokens."""

    @abstractmethod
    def forward_features(self, images: Images) -> Tokens:
        """Return the tokens after the final norm, `[batch, tokens, embed_dim]`."""

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Features | Logits:
        """Return the logits for the tokens of `forward_features`.

        With `pre_logits`, return the pooled features instead, which the head takes.
        """
        features = self.fc_norm(self.pool(tokens))
        return features if pre_logits else self.head(features)

    def pooled(self, images: Images) -> Features:
        """Return the pooled features, one vector per image, which the head takes."""
        return self.forward_head(self.forward_features(images), pre_logits=True)

    def forward_intermediates(
        self,
        images: Images,
        indices: int | Sequence[int] | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Layout = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return the tokens after each of the requested blocks.

        Args:
            images: `[batch, channels, height, width]`, normalized.
            indices: Which blocks: a number n for the last n blocks, or block numbers, where negative ones count from
                the end; None for all.
            return_prefix_tokens: Return a pair (patches, prefix tokens) for each block instead of the patches.
            norm: Apply the final norm to the tokens of each block.
            stop_early: Do not run the blocks after the last requested one.
            output_fmt: `NCHW` for `[batch, embed_dim, rows, columns]`, or `NLC` for `[batch, patches, embed_dim]`.
            intermediates_only: Return only `intermediates`.

        Returns:
            `(tokens, intermediates)`: the tokens of the last block that ran, after the final norm, and a list with one
            entry per requested block.

        Raises:
            ConfigError: The block or the layout does not exist, or `NCHW` is requested while patches are dropped.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt={output_fmt}: no such layout; use NCHW or NLC")
        numbers = block_numbers(indices, len(self.encoder.blocks))
        if output_fmt == "NCHW" and self.training and self.config.patch_drop_rate:
            raise ConfigError(
                "output_fmt=NCHW: patches dropped in training leave holes in a map; use NLC, or model.eval()"
            )
        tokens, relations = self.embed(images)
        (rows, columns), count = self.tokenizer.grid_size(images), self.num_prefix_tokens
        outputs: dict[int, Any] = dict.fromkeys(numbers)
        depth = max(numbers) + 1 if stop_early else None
        tokens = self.encoder(tokens, relations, outputs=outputs, depth=depth)
        intermediates: list[Any] = []
        for number in numbers:
            taken = self.encoder.norm(outputs[number]) if norm else outputs[number]
            patches = taken[:, count:]
            if output_fmt == "NCHW":
                patches = rearrange(patches, "b (h w) d -> b d h w", h=rows, w=columns)
            intermediates.append((patches, taken[:, :count]) if return_prefix_tokens else patches)
        return intermediates if intermediates_only else (tokens, intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the parts that `forward_intermediates(indices)` does not need; changes the model in place.

        Args:
            indices: A number n for the last n blocks, or block numbers, where negative ones count from the end.
            prune_norm: Remove the final norm too.
            prune_head: Remove the head and the norm before it too, and replace a pool that has weights by the mean.

        Returns:
            The numbers of the requested blocks, counted from the start.

        Raises:
            ConfigError: The block does not exist.
        """
        wanted = block_numbers(indices, len(self.encoder.blocks))
        depth = max(wanted) + 1
        rates = drop_path_rates(self.config.drop_path_rate, self.config.depth, self.config.drop_path_schedule)
        self.encoder.blocks = self.encoder.blocks[:depth]
        if self.relation is not None:
            self.relation.keep_blocks(depth)
        self.config = dataclasses.replace(self.config, depth=depth, drop_path_rate=rates[depth - 1])
        if prune_norm:
            self.encoder.norm = nn.Identity()
            self.config = dataclasses.replace(self.config, final_norm=False)
        if prune_head:
            self.fc_norm = nn.Identity()
            self.config = dataclasses.replace(self.config, fc_norm=False)
            self.reset_classifier(0, "mean" if self.config.pool in _LEARNING_POOLS else None)
        return wanted

    def get_intermediate_layers(self, images: Images, n: int | Sequence[int] = 1, norm: bool = True) -> list[Tensor]:
        """Return the patch tokens of some blocks; this is DINO's name for `forward_intermediates`.

        `n` is a number n for the last n blocks, or block numbers, where negative ones count from the end. `norm`
        applies the final norm to the tokens of each block.

        Returns:
            One tensor per block, `[batch, patches, embed_dim]`.
        """
        return self.forward_intermediates(images, n, norm=norm, output_fmt="NLC", intermediates_only=True)

    def parts(self) -> Parts:
        """Return the parts of the model by name: the keyword arguments of `VisionTransformer`."""
        return cast("Parts", {name: getattr(self, name) for name in Parts.__annotations__})

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass, which saves memory; see `Encoder.grad_checkpointing`."""
        self.encoder.grad_checkpointing = enable

    def set_attention_kernel(self, kernel: AttentionKernel) -> None:
        """Set the attention kernel of every block: `auto`, `explicit` or `sdpa`. Results differ only by rounding."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.set_kernel(kernel)

    def no_weight_decay(self) -> set[str]:
        """Return the names of the matrices without weight decay: positions, prefix tokens and bias tables."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim > 1 and name.split(".")[0] in ("position", "prefix", "relation")
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the patterns that timm uses to group parameters from stem to head, for layer-wise learning rates.

        `coarse` puts final norm, pool and feature norm in the group of the head.
        """
        blocks: list[tuple[str, Any]] = [(r"^encoder\.blocks\.(\d+)", None)]
        if not coarse:
            blocks.append((r"^encoder\.norm\.|^pool|^fc_norm", (99999,)))
        return {"stem": r"^tokenizer|^patch_norm|^position|^prefix|^relation|^encoder\.norm_pre", "blocks": blocks}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a new one; changes the model in place and keeps all other weights.

        With 0 classes, there is no head. The new pool is `token`, `mean` (timm: `avg`), `max` or `token_mean`; None
        keeps the pool.

        Raises:
            ConfigError: The pool needs a class token that the model does not have, or has weights of its own, or gives
                features of another width than the norm after it takes.
        """
        config = dataclasses.replace(self.config, class_token=self.config.has_class_token, num_classes=num_classes)
        name: Any = config.pool if global_pool is None else TIMM_POOLS.get(global_pool, global_pool)
        if name != config.pool and name in _LEARNING_POOLS:
            raise ConfigError(f"global_pool={global_pool}: has weights of its own; create the model with it")
        like, changed = next(self.parameters()), dataclasses.replace(config, pool=name)
        if config.fc_norm and changed.num_features != config.num_features:
            raise ConfigError(
                f"global_pool={global_pool}: gives {changed.num_features} features, model.fc_norm is made for "
                f"{config.num_features}; create the model with it"
            )
        self.config = changed
        with torch.device(like.device):
            pool, head = build_pool_and_head(self.config)
        if name != config.pool:
            self.pool = pool
        initialize(nn.ModuleDict({"head": head}), scheme=config.init)
        self.head = head.to(like.dtype).train(self.training)


def block_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Return the numbers of the blocks that `indices` selects, ascending.

    `indices` is a number n for the last n blocks, or block numbers, negative ones counted from the end; None for all.

    Raises:
        ConfigError: The block does not exist.
    """
    if isinstance(indices, int):
        requested: Sequence[int] = range(depth - indices, depth) if indices <= depth else [indices]
    else:
        requested = range(depth) if indices is None else indices
    numbers = [number + depth if number < 0 else number for number in requested]
    wrong = [number for number, resolved in zip(requested, numbers, strict=True) if not 0 <= resolved < depth]
    if wrong or not numbers:
        got = wrong[0] if wrong else indices
        raise ConfigError(f"indices={got}: no such block; the model has blocks 0 to {depth - 1}")
    return sorted(set(numbers))
