"""transformers' DINOv2, without and with registers -> ours."""

import dataclasses
from dataclasses import dataclass

import torch

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import attention, positions, written
from vitreous.model.weights.huggingface.describe import describe, rates, sizes, unless_square
from vitreous.model.weights.huggingface.settings import Settings
from vitreous.model.weights.shapes import count_blocks, resolve
from vitreous.model.weights.table import LISTED, VECTOR, Format, Hints, Row, Shapes, kernel, layer, row, stack


@dataclass(frozen=True)
class Kind:
    """What the families differ in.

    Attributes:
        model_type: Their word for it, which begins the names too.
        classes: The bare class, and the one with a classifier.
        registers: Whether there are any.
        apart: Whether a gated MLP has its gate apart from its value, as in memory, not on disk.
    """

    model_type: str
    classes: tuple[str, str]
    registers: bool = False
    apart: bool = False

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """What `config.json` and the shapes say."""
        settings = Settings(hints)
        embeddings, block = f"{self.model_type}.embeddings", f"{self.model_type}.encoder.layer"
        is_gated = f"{block}.0.mlp.fc1.weight" not in shapes
        narrowing = "fc2" if not is_gated else "down_proj" if self.apart else "weights_out"
        values = settings.sizes(
            shapes[f"{embeddings}.patch_embeddings.projection.weight"],
            depth=count_blocks(shapes, rf"^{self.model_type}\.encoder\.layer\.(\d+)\."),
            hidden=shapes[f"{block}.0.mlp.{narrowing}.weight"][1],
            num_patches=shapes[f"{embeddings}.position_embeddings"][1] - 1,
            heads=12,
            act="gelu",
            eps=1e-6,
        )
        gated, width = settings.truth("use_swiglu_ffn", is_gated), values["embed_dim"]
        if settings.has("mlp_ratio"):
            values["mlp_ratio"] = _hidden(width, settings.number("mlp_ratio"), gated) / width
        registers = shapes[f"{embeddings}.register_tokens"][1] if self.registers else 0
        num_classes = settings.num_classes(shapes, "classifier.weight")
        both = num_classes or settings.is_architecture(self.classes[1])
        values |= {
            "num_classes": num_classes,
            "pool": "token_mean" if both else "token",
            "num_registers": settings.get("num_register_tokens", registers) if self.registers else 0,
            "mlp": "gated" if gated else "plain",
            "act": "silu" if gated else values["act"],
            "head_dim": settings.get("head_dim", None),
            "qkv_bias": settings.get("qkv_bias", f"{block}.0.attention.attention.query.bias" in shapes),
            "layer_scale": settings.get("layerscale_value", 1.0) or 1.0,  # where it started: it is in the weights now
            "position_resize": "timm" if self.registers else "huggingface",  # only the one with registers has antialias
            "dynamic_img_size": True,
            "pos_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "proj_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "attn_drop_rate": settings.get("attention_probs_dropout_prob", 0.0),
            "drop_path_rate": settings.get("drop_path_rate", 0.0),
            "drop_path_schedule": "constant",
        }
        return resolve(values, hints)

    def rows(self, config: ModelConfig) -> list[Row]:
        """The table."""
        embeddings = f"{self.model_type}.embeddings"
        table = [
            *layer("tokenizer.proj", f"{embeddings}.patch_embeddings.projection", kernel(config)),
            row("prefix.class_token", f"{embeddings}.cls_token", VECTOR),
            written(f"{embeddings}.mask_token", lambda: torch.zeros(1, config.embed_dim)),
            positions(config, f"{embeddings}.position_embeddings"),
            *layer("encoder.norm", f"{self.model_type}.layernorm"),
        ]
        table += [row("prefix.registers", f"{embeddings}.register_tokens", LISTED)] if config.num_registers else []
        for number in range(config.depth):
            our, their = f"encoder.blocks.{number}", f"{self.model_type}.encoder.layer.{number}"
            apart = [f"{their}.attention.attention.{name}" for name in ("query", "key", "value")]
            table += [
                *layer(f"{our}.norm1", f"{their}.norm1"),
                *attention(f"{our}.attn", apart, f"{their}.attention.output.dense", config),
                row(f"{our}.ls1.gamma", f"{their}.layer_scale1.lambda1"),
                *layer(f"{our}.norm2", f"{their}.norm2"),
                *self._mlp(config, f"{our}.mlp", f"{their}.mlp"),
                row(f"{our}.ls2.gamma", f"{their}.layer_scale2.lambda1"),
            ]
        return table + (layer("head", "classifier") if config.num_classes else [])

    def describe(self, config: ModelConfig) -> dict[str, str]:
        """`config.json`."""
        values = {"model_type": self.model_type, **sizes(config), **rates(config)}
        values |= {
            "mlp_ratio": _whole_ratio(config),
            "use_swiglu_ffn": config.mlp == "gated",
            "qkv_bias": config.qkv_bias,
        }
        values |= {"layerscale_value": float(config.layer_scale), "drop_path_rate": config.drop_path_rate}
        values |= {"num_register_tokens": config.num_registers} if self.registers else {}
        values |= {} if config.head_dim is None else {"head_dim": config.head_dim}
        return describe(config, self.classes[config.pool == "token_mean"], values)

    def _mlp(self, config: ModelConfig, our: str, their: str) -> list[Row]:
        if config.mlp == "plain":
            return [*layer(f"{our}.fc1", f"{their}.fc1"), *layer(f"{our}.fc2", f"{their}.fc2")]
        if not self.apart:
            return [*layer(f"{our}.fc1", f"{their}.weights_in"), *layer(f"{our}.fc2", f"{their}.weights_out")]
        return [
            *(
                row(f"{our}.fc1.{kind}", [f"{their}.{name}.{kind}" for name in ("gate_proj", "up_proj")], stack(2))
                for kind in ("weight", "bias")
            ),
            *layer(f"{our}.fc2", f"{their}.down_proj"),
        ]


def _hidden(width: int, ratio: float, gated: bool) -> int:
    """Width of the MLP; a gated one is two thirds as wide, since it has three matrices, up to the next eighth."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def _whole_ratio(config: ModelConfig) -> int | None:
    """The ratio that comes to this MLP, of the whole ones, which are all that their configuration takes."""
    gated = config.mlp == "gated"
    near = int(config.mlp_ratio * (1.5 if gated else 1))
    return next(
        (ratio for ratio in (near, near + 1) if _hidden(config.embed_dim, ratio, gated) == config.mlp_dim), None
    )


def _refuses(config: ModelConfig) -> list[str]:
    refused = unless_square(config)
    # The classifier reads class token and mean; without one, the class token alone is what the model gives.
    if config.pool == "token" and config.num_classes:
        refused.append(f"model.pool=token beside model.num_classes={config.num_classes}")
    if config.mlp == "gated" and config.act != "silu":
        refused.append(f"model.act={config.act} beside model.mlp=gated")
    return refused if _whole_ratio(config) else [*refused, f"model.mlp_ratio={config.mlp_ratio}"]


def _format(kind: Kind, name: str) -> Format:
    prefix = kind.model_type
    marks = {f"{prefix}.encoder.layer.0.layer_scale1.lambda1", f"{prefix}.embeddings.position_embeddings"}
    marks |= {f"{prefix}.embeddings.register_tokens"} if kind.registers else set()
    return Format(
        name=f"transformers {name}",
        recognises=lambda names: (
            names >= marks and (f"{prefix}.encoder.layer.0.mlp.gate_proj.weight" in names) == kind.apart
        ),
        read_config=kind.read_config,
        rows=kind.rows,
        allowed={
            "layer_scale": (1.0,),
            "num_registers": None if kind.registers else (0,),
            "class_token": (None, True),
            "pool": ("token", "token_mean"),
            "mlp": ("plain", "gated"),
            "head_dim": None,
            "qkv_bias": (True, False),
            "act": None,
            "norm_eps": None,
        },
        renames=(
            (r"^(embeddings|encoder|layernorm)\.", rf"{prefix}.\1."),
            (r"\.attention\.q_proj\.", ".attention.attention.query."),
            (r"\.attention\.k_proj\.", ".attention.attention.key."),
            (r"\.attention\.v_proj\.", ".attention.attention.value."),
            (r"\.attention\.o_proj\.", ".attention.output.dense."),
        ),
        skipped={r"\.embeddings\.mask_token$": "stands for hidden patches in pre-training"},
        describe=kind.describe,
        refuses=lambda config: (
            _refuses(config) + (["model.num_registers=0"] if kind.registers and not config.num_registers else [])
        ),
    )


_PLAIN = Kind("dinov2", ("Dinov2Model", "Dinov2ForImageClassification"))
_WITH_REGISTERS = Kind(
    "dinov2_with_registers",
    ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    registers=True,
)

DINOV2 = tuple(
    _format(dataclasses.replace(kind, apart=apart), kind.model_type + (" in memory" if apart else ""))
    for kind in (_WITH_REGISTERS, _PLAIN)
    for apart in (False, True)
)
