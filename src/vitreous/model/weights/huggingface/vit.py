"""transformers' ViT, ViTMAE and DeiT -> ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import FIXED, attention, positions
from vitreous.model.weights.huggingface.describe import describe, rates, sizes
from vitreous.model.weights.huggingface.settings import Settings
from vitreous.model.weights.shapes import count_blocks, resolve
from vitreous.model.weights.table import LISTED, VECTOR, Format, Hints, Row, Shapes, kernel, layer, row


@dataclass(frozen=True)
class Kind:
    """What the families differ in.

    Attributes:
        model_type: Their word for it.
        architecture: The class that opens what we write; without classes, it returns features as logits.
        prefix: Of the names of all but the heads.
        heads: Our head -> theirs.
        fields: Of ModelConfig, as every model of the family has them.
        second_token: Our name of the distillation token and how it is kept here; None where there is none.
    """

    model_type: str
    architecture: str
    prefix: str
    heads: Mapping[str, str]
    fields: Mapping[str, Any] = field(default_factory=dict)
    second_token: Row | None = None

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """What `config.json` and the shapes say."""
        settings = Settings(hints)
        block = f"{self.prefix}.encoder.layer"
        num_positions = shapes[f"{self.prefix}.embeddings.position_embeddings"][1]
        values = settings.sizes(
            shapes[f"{self.prefix}.embeddings.patch_embeddings.projection.weight"],
            depth=count_blocks(shapes, rf"^{self.prefix}\.encoder\.layer\.(\d+)\."),
            hidden=shapes[f"{block}.0.intermediate.dense.weight"][0],
            num_patches=num_positions - (1 if self.second_token is None else 2),
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
        """The table."""
        embeddings = f"{self.prefix}.embeddings"
        table = [
            *layer("tokenizer.proj", f"{embeddings}.patch_embeddings.projection", kernel(config)),
            row("prefix.class_token", f"{embeddings}.cls_token", VECTOR),
            positions(config, f"{embeddings}.position_embeddings"),
            *layer("encoder.norm", f"{self.prefix}.layernorm"),
        ]
        table += [] if self.second_token is None else [self.second_token]
        for number in range(config.depth):
            our, their = f"encoder.blocks.{number}", f"{self.prefix}.encoder.layer.{number}"
            apart = [f"{their}.attention.attention.{name}" for name in ("query", "key", "value")]
            table += [
                *layer(f"{our}.norm1", f"{their}.layernorm_before"),
                *attention(f"{our}.attn", apart, f"{their}.attention.output.dense", config),
                *layer(f"{our}.norm2", f"{their}.layernorm_after"),
                *layer(f"{our}.mlp.fc1", f"{their}.intermediate.dense"),
                *layer(f"{our}.mlp.fc2", f"{their}.output.dense"),
            ]
        heads = self.heads if config.num_classes else {}
        return table + [part for our, their in heads.items() for part in layer(our, their)]

    def describe(self, config: ModelConfig) -> dict[str, str]:
        """`config.json`."""
        values = {"model_type": self.model_type, **sizes(config), **rates(config)}
        values |= {"intermediate_size": config.mlp_dim, "qkv_bias": config.qkv_bias}
        values |= {} if config.head_dim is None else {"head_dim": config.head_dim}
        return describe(config, self.architecture, values)


def _renames(prefix: str) -> tuple[tuple[str, str], ...]:
    """The names that version 5 has in memory, and those of the bare model, to those that it writes for a classifier."""
    return (
        (r"^(embeddings|encoder|layers|layernorm|pooler)\.", rf"{prefix}.\1."),
        (rf"^{prefix}\.layers\.", f"{prefix}.encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    )


_SECOND = "deit.embeddings.distillation_token"
_VIT = Kind("vit", "ViTForImageClassification", "vit", {"head": "classifier"})
_MAE = Kind("vit_mae", "ViTMAEModel", "vit", {}, {"init": "mae"})
# The bare DeiTModel and DeiTForImageClassification carry the distillation token along and read the class token alone:
# to us that is a register with a position of its own.
_DEIT = Kind(
    "deit",
    "DeiTForImageClassification",
    "deit",
    {"head": "classifier"},
    {"num_registers": 1, "prefix_position": "all"},
    row("prefix.registers", _SECOND, LISTED),
)
_DISTILLED = Kind(
    "deit",
    "DeiTForImageClassificationWithTeacher",
    "deit",
    {"head.label": "cls_classifier", "head.teacher": "distillation_classifier"},
    {"distill_token": True},
    row("prefix.distill_token", _SECOND, VECTOR),
)

_VIT_NAMES = {"vit.embeddings.position_embeddings", "vit.encoder.layer.0.intermediate.dense.weight"}
_SKIPPED = {
    r"\.pooler\.": "a tanh layer behind the class token, which no classifier reads",
    r"\.embeddings\.mask_token$": "stands for hidden patches in pre-training",
    r"^decoder\.": "draws hidden patches in pre-training",
}
_HELD: dict[str, tuple[Any, ...] | None] = {
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
    recognises=lambda names: names >= _VIT_NAMES,
    read_config=_VIT.read_config,
    rows=_VIT.rows,
    allowed=_HELD,
    renames=_renames("vit"),
    skipped=_SKIPPED,
    describe=_VIT.describe,
)
MAE = Format(
    name="transformers vit_mae",
    # Its positions are fixed, but the file has them, and their bits: they are read as a learned grid.
    recognises=lambda names: names >= {*_VIT_NAMES, "decoder.decoder_embed.weight"},
    read_config=_MAE.read_config,
    rows=_MAE.rows,
    allowed=_HELD | {"position": ("sincos2d",), "num_classes": (0,)},
    renames=_renames("vit"),
    skipped=_SKIPPED,
    describe=_MAE.describe,
)
DEIT = Format(
    name="transformers deit",
    recognises=lambda names: _SECOND in names and "cls_classifier.weight" not in names,
    read_config=_DEIT.read_config,
    rows=_DEIT.rows,
    allowed=_HELD | {"num_registers": (1,), "prefix_position": ("all",)},
    renames=_renames("deit"),
    skipped=_SKIPPED,
    describe=_DEIT.describe,
)
DEIT_DISTILLED = Format(
    name="transformers distilled deit",
    recognises=lambda names: names >= {_SECOND, "cls_classifier.weight"},
    read_config=_DISTILLED.read_config,
    rows=_DISTILLED.rows,
    allowed=_HELD | {"distill_token": (True,)},
    # Without classes it would average its two tokens, where we put them side by side.
    refuses=lambda config: [] if config.num_classes else ["model.num_classes=0"],
    renames=_renames("deit"),
    skipped=_SKIPPED,
    describe=_DISTILLED.describe,
)
