"""Tensor names of transformers' ViT, ViTMAE and DeiT <-> ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import ATTENTION_RENAMES, FIXED, attention, positions
from vitreous.model.weights.huggingface.settings import Settings, describe, rates, sizes
from vitreous.model.weights.shapes import count_blocks, resolve
from vitreous.model.weights.table import BATCHED, VECTOR, Format, Hints, Row, Shapes, kernel, layer, row


@dataclass(frozen=True)
class Family:
    """Differences between the model families.

    Attributes:
        model_type: `model_type` in `config.json`.
        architecture: Class of transformers that opens what we write; without classes, its logits are the features.
        prefix: Prefix of all names except those of the heads.
        heads: Our name of a head -> theirs.
        fields: Fields of ModelConfig that all models of the family share.
        distill_token: Row of the distillation token; None if there is none.
    """

    model_type: str
    architecture: str
    prefix: str
    heads: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    distill_token: Row | None = None

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """Read the configuration from `config.json` and the shapes."""
        settings = Settings(hints)
        block = f"{self.prefix}.encoder.layer"
        num_positions = shapes[f"{self.prefix}.embeddings.position_embeddings"][1]
        values = settings.sizes(
            shapes[f"{self.prefix}.embeddings.patch_embeddings.projection.weight"],
            depth=count_blocks(shapes, rf"^{self.prefix}\.encoder\.layer\.(\d+)\."),
            hidden=shapes[f"{block}.0.intermediate.dense.weight"][0],
            num_patches=num_positions - (1 if self.distill_token is None else 2),
            heads=12,
            act="gelu",
            eps=1e-12,
        )
        biased = f"{block}.0.attention.attention.query.bias" in shapes
        head = next(iter(self.heads.values()), "classifier")
        values |= {
            "num_classes": settings.num_classes(shapes, f"{head}.weight"),
            "head_dim": settings.get("head_dim", None),
            "qkv_bias": settings.get("qkv_bias", biased),
            "pos_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "proj_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "attn_drop_rate": settings.get("attention_probs_dropout_prob", 0.0),
        }
        return resolve({**values, **self.fields}, hints)

    def rows(self, config: ModelConfig) -> list[Row]:
        """Build the table of tensor names."""
        embeddings = f"{self.prefix}.embeddings"
        table = [
            *layer("tokenizer.proj", f"{embeddings}.patch_embeddings.projection", kernel(config)),
            row("prefix.class_token", f"{embeddings}.cls_token", VECTOR),
            positions(config, f"{embeddings}.position_embeddings"),
            *layer("encoder.norm", f"{self.prefix}.layernorm"),
        ]
        table += [] if self.distill_token is None else [self.distill_token]
        for number in range(config.depth):
            our, their = f"encoder.blocks.{number}", f"{self.prefix}.encoder.layer.{number}"
            projections = [f"{their}.attention.attention.{name}" for name in ("query", "key", "value")]
            table += [
                *layer(f"{our}.norm1", f"{their}.layernorm_before"),
                *attention(f"{our}.attn", projections, f"{their}.attention.output.dense", config),
                *layer(f"{our}.norm2", f"{their}.layernorm_after"),
                *layer(f"{our}.mlp.fc1", f"{their}.intermediate.dense"),
                *layer(f"{our}.mlp.fc2", f"{their}.output.dense"),
            ]
        heads = self.heads if config.num_classes else {}
        return table + [part for our, their in heads.items() for part in layer(our, their)]

    def describe(self, config: ModelConfig) -> dict[str, str]:
        """Return the text of `config.json`, by file name."""
        values = {"model_type": self.model_type, **sizes(config), **rates(config)}
        values |= {"intermediate_size": config.mlp_dim, "qkv_bias": config.qkv_bias}
        values |= {} if config.head_dim is None else {"head_dim": config.head_dim}
        return describe(config, self.architecture, values)


def _renames(prefix: str) -> tuple[tuple[str, str], ...]:
    """Turn the names of version 5 in memory, and of bare models, into the names on disk of a classifier."""
    return (
        (r"^(embeddings|encoder|layers|layernorm|pooler)\.", rf"{prefix}.\1."),
        (rf"^{prefix}\.layers\.", f"{prefix}.encoder.layer."),
        *ATTENTION_RENAMES,
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )


_DISTILL_TOKEN = "deit.embeddings.distillation_token"
_VIT = Family("vit", "ViTForImageClassification", "vit", {"head": "classifier"})
_MAE = Family("vit_mae", "ViTMAEModel", "vit", {}, {"init": "mae"})
# DeiTModel and DeiTForImageClassification have a distillation token, but read only the class token. In our model such a
# token is a register with its own position.
_DEIT = Family(
    "deit",
    "DeiTForImageClassification",
    "deit",
    {"head": "classifier"},
    {"num_registers": 1, "prefix_position": "all"},
    row("prefix.registers", _DISTILL_TOKEN, BATCHED),
)
_DISTILLED = Family(
    "deit",
    "DeiTForImageClassificationWithTeacher",
    "deit",
    {"head.label": "cls_classifier", "head.teacher": "distillation_classifier"},
    {"distill_token": True},
    row("prefix.distill_token", _DISTILL_TOKEN, VECTOR),
)

_VIT_NAMES = {"vit.embeddings.position_embeddings", "vit.encoder.layer.0.intermediate.dense.weight"}
_SKIPPED = {
    r"\.pooler\.": "a tanh layer after the class token, which no classifier uses",
    r"\.embeddings\.mask_token$": "replaces hidden patches in pre-training",
    r"^decoder\.": "reconstructs hidden patches in pre-training",
}
_ALLOWED: dict[str, tuple[Any, ...] | None] = {
    "position": ("learned", *FIXED),
    "prefix_position": ("class", "all"),
    "class_token": (None, True),
    "head_dim": None,
    "qkv_bias": (True, False),
    "act": None,
    "norm_eps": None,
}

VIT = Format(
    name="transformers vit",
    recognizes=lambda names: names >= _VIT_NAMES,
    read_config=_VIT.read_config,
    rows=_VIT.rows,
    allowed=_ALLOWED,
    renames=_renames("vit"),
    skipped=_SKIPPED,
    describe=_VIT.describe,
)
MAE = replace(
    VIT,
    name="transformers vit_mae",
    # Its positions are fixed, but stored in the file, so they are read as learned ones and keep every bit.
    recognizes=lambda names: names >= {*_VIT_NAMES, "decoder.decoder_embed.weight"},
    read_config=_MAE.read_config,
    rows=_MAE.rows,
    allowed=_ALLOWED | {"position": ("sincos2d",), "num_classes": (0,)},
    describe=_MAE.describe,
)
DEIT = Format(
    name="transformers deit",
    recognizes=lambda names: _DISTILL_TOKEN in names and "cls_classifier.weight" not in names,
    read_config=_DEIT.read_config,
    rows=_DEIT.rows,
    allowed=_ALLOWED | {"num_registers": (1,), "prefix_position": ("all",)},
    renames=_renames("deit"),
    skipped=_SKIPPED,
    describe=_DEIT.describe,
)
DEIT_DISTILLED = replace(
    DEIT,
    name="transformers distilled deit",
    recognizes=lambda names: names >= {_DISTILL_TOKEN, "cls_classifier.weight"},
    parts=frozenset(("cls_classifier", "distillation_classifier")),
    read_config=_DISTILLED.read_config,
    rows=_DISTILLED.rows,
    allowed=_ALLOWED | {"distill_token": (True,)},
    # Without classes, their model averages its two tokens, while ours concatenates them.
    refuses=lambda config: [] if config.num_classes else ["model.num_classes=0"],
    describe=_DISTILLED.describe,
)
