"""A Vision Transformer -> the interface by which other libraries use a backbone, as timm's models offer it."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.model.build_parts import AnyRelation, AnyTokenizer, build_pool_and_head
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.published import TIMM_POOLS
from vitreous.model.init import initialise
from vitreous.model.parts.attention import Attention, AttentionKernel
from vitreous.model.parts.encoder import Encoder
from vitreous.model.parts.relation import Relation, select
from vitreous.model.parts.residual import drop_path_rates
from vitreous.tensors import Features, Images, Logits, Tokens

Layout = Literal["NCHW", "NLC"]
_LEARNING_POOLS = ("map", "sequence")


class Backbone(nn.Module):
    """What a model can be asked beyond its logits; `VisionTransformer` adds the forward itself.

    Attributes:
        num_features: Width of the vector that the head takes.
        head_hidden_size: The same, under timm's newer name.
        num_prefix_tokens: Tokens before the patches in `forward_features`.
        feature_info: For each block, its width, its reduction of the image's side, and its name.

    Args:
        config: What the model was built from.
    """

    tokenizer: AnyTokenizer
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
        """Logits; 0 where the model returns features."""
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

    def embed(self, images: Images) -> tuple[Tokens, Sequence[Relation] | None]:
        """The sequence that enters the encoder, and what each block's attention takes beside it.

        Raises:
            ShapeError: Images that `config` does not describe.
        """
        tokens = self.patch_norm(self.tokenizer(images))
        grid_size = self.tokenizer.grid_size(images)  # after the tokenizer, which may draw its patch size
        tokens = self.position(tokens, grid_size)
        tokens, kept = self.patch_drop(tokens)
        tokens = self.prefix(tokens)
        if self.relation is None:
            return tokens, None
        relations = self.relation(grid_size)
        if kept is None:
            return tokens, relations
        count = self.config.num_prefix_tokens
        kept = torch.cat([torch.arange(count, device=kept.device).expand(len(kept), -1), kept + count], dim=1)
        return tokens, [select(relation, kept) for relation in relations]

    def forward_head(self, tokens: Tokens, pre_logits: bool = False) -> Features | Logits:
        """The second half of the forward.

        Args:
            tokens: What `forward_features` gave.
            pre_logits: Return the pooled vector itself, without the head.
        """
        features = self.fc_norm(self.pool(tokens))
        return features if pre_logits else self.head(features)

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
        """The tokens after chosen blocks.

        Args:
            images: As for `forward`.
            indices: Which blocks: the last n, or their numbers, negative ones from the end; None is all.
            return_prefix_tokens: Give each as a pair (patches, prefix tokens).
            norm: Pass each through the last norm.
            stop_early: Do not run blocks after the last one asked for.
            output_fmt: `NCHW`, `[batch, embed_dim, rows, columns]`, or `NLC`, `[batch, patches, embed_dim]`.
            intermediates_only: Return the list alone, not `(last tokens, list)`.

        Returns:
            `(tokens, intermediates)`: tokens as `forward_features` gives them, of the last block that ran.

        Raises:
            ConfigError: A block that is not there, no such layout, or a map with patches dropped.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt={output_fmt}: no such layout; use NCHW or NLC")
        wanted = block_numbers(indices, len(self.encoder.blocks))
        if output_fmt == "NCHW" and self.training and self.config.patch_drop_rate:
            raise ConfigError(
                "output_fmt=NCHW: patches dropped in training leave holes in a map; use NLC, or model.eval()"
            )
        tokens, relations = self.embed(images)
        rows, columns = self.tokenizer.grid_size(images)
        intermediates = []
        for number, tokens in enumerate(self.encoder.steps(tokens, relations)):  # noqa: B020 - as in `Encoder.forward`
            if number in wanted:
                intermediates.append(self.encoder.norm(tokens) if norm else tokens)
            if stop_early and number == max(wanted):
                break
        count = self.config.num_prefix_tokens
        outputs: list[Any] = []
        for taken in intermediates:
            patches = taken[:, count:]
            if output_fmt == "NCHW":
                patches = rearrange(patches, "b (h w) d -> b d h w", h=rows, w=columns)
            outputs.append((patches, taken[:, :count]) if return_prefix_tokens else patches)
        return outputs if intermediates_only else (self.encoder.norm(tokens), outputs)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Throw away, in place, what `forward_intermediates(indices)` does not need.

        Args:
            indices: As there.
            prune_norm: The last norm too.
            prune_head: The head, the norm before it, and a pool that has weights, for which a mean stands in, too.

        Returns:
            The numbers of the blocks, all from the start.
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
        """The patches after the last `n` blocks, or those numbered, `[batch, patches, embed_dim]`, as DINO calls it."""
        return self.forward_intermediates(images, n, norm=norm, output_fmt="NLC", intermediates_only=True)

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory in training; see `Encoder.grad_checkpointing`."""
        self.encoder.grad_checkpointing = enable

    def set_attention_kernel(self, kernel: AttentionKernel) -> None:
        """Let every block attend by this kernel: the same results but for rounding; see `Attention`."""
        for module in self.modules():
            if isinstance(module, Attention):
                module.kernel = kernel

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that shall not decay, beyond those of one dimension: positions, tokens, bias tables."""
        return {
            name
            for name, parameter in self.named_parameters()
            if parameter.ndim > 1 and name.split(".")[0] in ("position", "prefix", "relation")
        }

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm groups parameters from the stem to the head, for a learning rate per layer."""
        blocks: list[tuple[str, Any]] = [(r"^encoder\.blocks\.(\d+)", None)]
        if not coarse:
            blocks.append((r"^encoder\.norm\.|^pool|^fc_norm", (99999,)))
        return {"stem": r"^tokenizer|^patch_norm|^position|^prefix|^relation|^encoder\.norm_pre", "blocks": blocks}

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head, in place, by a fresh one; all other weights stay.

        Args:
            num_classes: Logits; 0 leaves the head out.
            global_pool: The pool to change to, one without weights of its own: `token`, `mean` (timm: `avg`), `max` or
                `token_mean`; None keeps the present one.

        Raises:
            ConfigError: A pool that needs a class token where there is none, that has weights which nothing trained, or
                that does not fit the norm after it.
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
        initialise(nn.ModuleDict({"head": head}), scheme=config.init)
        self.head = head.to(like.dtype).train(self.training)


def block_numbers(indices: int | Sequence[int] | None, depth: int) -> list[int]:
    """Which blocks `indices` means, ascending. Raises ConfigError for one that is not there."""
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
