"""A Vision Transformer -> the interface of timm's models, through which other libraries use a backbone."""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

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
    """All of a model except the forward pass, which `VisionTransformer` adds.

    Args:
        config: Configuration from which the model was built.
    """

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
        """Tokens before the patches in `forward_features`."""
        return self.config.num_prefix_tokens

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """For each block: `num_chs` its width, `reduction` px of the image per cell, `module` its name."""
        width, reduction = self.config.embed_dim, self.config.patch_size
        names = [f"encoder.blocks.{number}" for number in range(len(self.encoder.blocks))]
        return [{"num_chs": width, "reduction": reduction, "module": name} for name in names]

    @abstractmethod
    def embed(self, images: Images) -> tuple[Tokens, Sequence[Relation] | None]:
        """Return the sequence that enters the encoder, and a relation for the attention of each block."""

    @abstractmethod
    def forward_features(self, images: Images) -> Tokens:
        """Return the tokens after the final norm."""

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Features | Logits:
        """Compute the second half of the forward pass.

        Args:
            tokens: The result of `forward_features`.
            pre_logits: Return the pooled features instead of logits.
        """
        features = self.fc_norm(self.pool(tokens))
        return features if pre_logits else self.head(features)

    def pooled(self, images: Images) -> Features:
        """Return the features of images, one vector per image, which the head takes."""
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
        """Return the tokens after chosen blocks.

        Args:
            images: `[batch, channels, height, width]`, as for `forward`.
            indices: The last n blocks, or the numbers of blocks, negative ones counted from the end; None is all.
            return_prefix_tokens: Return each intermediate as a pair (patches, prefix tokens).
            norm: Apply the final norm to each intermediate.
            stop_early: Do not run blocks after the last requested one.
            output_fmt: `NCHW` for `[batch, embed_dim, rows, columns]`, or `NLC` for `[batch, patches, embed_dim]`.
            intermediates_only: Return only the list, instead of `(last tokens, list)`.

        Returns:
            `(tokens, intermediates)`, where `tokens` are those of the last block that ran, after the final norm.

        Raises:
            ConfigError: No such block or layout, or a map is requested while patches are dropped.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt={output_fmt}: no such layout; use NCHW or NLC")
        numbers = block_numbers(indices, len(self.encoder.blocks))
        if output_fmt == "NCHW" and self.training and self.config.patch_drop_rate:
            raise ConfigError(
                "output_fmt=NCHW: patches dropped in training leave holes in a map; use NLC, or model.eval()"
            )
        tokens, relations = self.embed(images)
        grid_size, count = self.tokenizer.grid_size(images), self.num_prefix_tokens
        outputs: dict[int, Any] = dict.fromkeys(numbers)
        depth = max(numbers) + 1 if stop_early else None
        tokens = self.encoder(tokens, relations, outputs=outputs, depth=depth)
        intermediates: list[Any] = []
        for number in numbers:
            taken = self.encoder.norm(outputs[number]) if norm else outputs[number]
            patches = as_layout(taken[:, count:], grid_size, output_fmt)
            intermediates.append((patches, taken[:, :count]) if return_prefix_tokens else patches)
        return intermediates if intermediates_only else (tokens, intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove, in place, the parts that `forward_intermediates(indices)` does not need.

        Args:
            indices: The last n blocks, or the numbers of blocks.
            prune_norm: Remove the final norm too.
            prune_head: Remove the head and the norm before it too; a pool with weights is replaced by the mean.

        Returns:
            The numbers of the requested blocks, counted from the start.
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
            self.reset_classifier(0, "mean" if self.config.pool in ("map", "sequence") else None)
        return wanted

    def get_intermediate_layers(self, images: Images, n: int | Sequence[int] = 1, norm: bool = True) -> list[Tensor]:
        """Return the patches after the last `n` blocks, or after the blocks numbered `n`; the name is DINO's.

        Returns:
            For each block `[batch, patches, embed_dim]`.
        """
        return self.forward_intermediates(images, n, norm=norm, output_fmt="NLC", intermediates_only=True)

    def parts(self) -> Parts:
        """Return the parts of the model by name, as the constructor of `VisionTransformer` takes them."""
        return Parts(
            tokenizer=self.tokenizer,
            patch_norm=self.patch_norm,
            position=self.position,
            patch_drop=self.patch_drop,
            prefix=self.prefix,
            relation=self.relation,
            encoder=self.encoder,
            pool=self.pool,
            fc_norm=self.fc_norm,
            head=self.head,
        )

    def get_classifier(self) -> nn.Module:
        """Return the head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block again in the backward pass, which saves memory; see `Encoder.grad_checkpointing`."""
        self.encoder.grad_checkpointing = enable

    def set_attention_kernel(self, kernel: AttentionKernel) -> None:
        """Set the attention kernel of every block; results differ only by rounding. See `Attention`."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = kernel

    def no_weight_decay(self) -> set[str]:
        """Return the names of matrices that must not decay: positions, prefix tokens, bias tables."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim > 1 and name.split(".")[0] in ("position", "prefix", "relation")
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the patterns by which timm groups parameters from stem to head, for layer-wise learning rates."""
        blocks: list[tuple[str, Any]] = [(r"^encoder\.blocks\.(\d+)", None)]
        if not coarse:
            blocks.append((r"^encoder\.norm\.|^pool|^fc_norm", (99999,)))
        return {"stem": r"^tokenizer|^patch_norm|^position|^prefix|^relation|^encoder\.norm_pre", "blocks": blocks}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head, in place, by a new one; all other weights stay.

        Args:
            num_classes: Number of logits; 0 removes the head.
            global_pool: Pool to change to: `token`, `mean` (timm: `avg`), `max` or `token_mean`; None keeps the pool.

        Raises:
            ConfigError: The pool needs a class token that the model does not have, has weights of its own, or does not
                fit the norm after it.
        """
        config = dataclasses.replace(self.config, class_token=self.config.has_class_token, num_classes=num_classes)
        name: Any = TIMM_POOLS.get(global_pool, global_pool) if global_pool else config.pool
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

    Args:
        indices: The last n blocks, or the numbers of blocks, negative ones counted from the end; None is all.
        depth: Number of blocks.

    Raises:
        ConfigError: No such block.
    """
    if isinstance(indices, int):
        asked: Sequence[int] = range(depth - indices, depth) if indices <= depth else [indices]
    else:
        asked = range(depth) if indices is None else indices
    numbers = [number + depth if number < 0 else number for number in asked]
    wrong = [number for number, resolved in zip(asked, numbers, strict=True) if not 0 <= resolved < depth]
    if wrong or not numbers:
        got = wrong[0] if wrong else indices
        raise ConfigError(f"indices={got}: no such block; the model has blocks 0 to {depth - 1}")
    return sorted(set(numbers))


def as_layout(patches: Tensor, grid_size: tuple[int, int], layout: Layout) -> Tensor:
    """Return patch tokens `[batch, patches, embed_dim]` as they are (`NLC`), or as a map (`NCHW`)."""
    rows, columns = grid_size
    return patches if layout == "NLC" else rearrange(patches, "b (h w) d -> b d h w", h=rows, w=columns)
