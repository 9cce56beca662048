"""Tensor names of transformers' DINOv2, without and with registers <-> ours."""

import dataclasses
from dataclasses import dataclass

import torch

from vitreous.model.config.model_config import ModelConfig
from vitreous.model.weights.huggingface.blocks import ATTENTION_RENAMES, attention, positions, write_only
from vitreous.model.weights.huggingface.settings import Settings, describe, rates, refuse_unless_square, sizes
from vitreous.model.weights.shapes import count_blocks, resolve
from vitreous.model.weights.table import BATCHED, VECTOR, Format, Hints, Row, Shapes, kernel, layer, row, stacked


@dataclass(frozen=True)
class Family:
    """Differences between the model families.

    Attributes:
        model_type: `model_type` in `config.json`, and prefix of all tensor names.
        classes: Names of the bare class, and of the class with a classifier.
        registers: True if the model may have registers.
        separate_gate: True if gate and value of a gated MLP are separate tensors, as in memory; on disk they are one.
    """

    model_type: str
    classes: tuple[str, str]
    registers: bool = False
    separate_gate: bool = False

    def read_config(self, shapes: Shapes, hints: Hints) -> ModelConfig:
        """Read the configuration from `config.json` and the shapes."""
        settings = Settings(hints)
        embeddings, block = f"{self.model_type}.embeddings", f"{self.model_type}.encoder.layer"
        is_gated = f"{block}.0.mlp.fc1.weight" not in shapes
        output = "fc2" if not is_gated else "down_proj" if self.separate_gate else "weights_out"
        values = settings.sizes(
            shapes[f"{embeddings}.patch_embeddings.projection.weight"],
            depth=count_blocks(shapes, rf"^{self.model_type}\.encoder\.layer\.(\d+)\."),
            hidden=shapes[f"{block}.0.mlp.{output}.weight"][1],
            num_patches=shapes[f"{embeddings}.position_embeddings"][1] - 1,
            heads=12,
            act="gelu",
            eps=1e-6,
        )
        gated, width = settings.truth("use_swiglu_ffn", is_gated), values["embed_dim"]
        if (ratio := settings.number("mlp_ratio")) is not None:
            values["mlp_ratio"] = _hidden(width, ratio, gated) / width
        registers = shapes[f"{embeddings}.register_tokens"][1] if self.registers else 0
        num_classes = settings.num_classes(shapes, "classifier.weight")
        is_classifier = num_classes or settings.is_architecture(self.classes[1])
        values |= {
            "num_classes": num_classes,
            "pool": "token_mean" if is_classifier else "token",
            "num_registers": settings.get("num_register_tokens", registers) if self.registers else 0,
            "mlp": "gated" if gated else "plain",
            "act": "silu" if gated else values["act"],
            "head_dim": settings.get("head_dim", None),
            "qkv_bias": settings.get("qkv_bias", f"{block}.0.attention.attention.query.bias" in shapes),
            # The initial value; the trained one is among the weights.
            "layer_scale": settings.get("layerscale_value", 1.0) or 1.0,
            # Only the model with registers uses antialiasing, as timm does.
            "position_resize": "timm" if self.registers else "huggingface",
            "dynamic_img_size": True,
            "pos_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "proj_drop_rate": settings.get("hidden_dropout_prob", 0.0),
            "attn_drop_rate": settings.get("attention_probs_dropout_prob", 0.0),
            "drop_path_rate": settings.get("drop_path_rate", 0.0),
            "drop_path_schedule": "constant",
        }
        return resolve(values, hints)

    def rows(self, config: ModelConfig) -> list[Row]:
        """Build the table of tensor names."""
        embeddings = f"{self.model_type}.embeddings"
        table = [
            *layer("tokenizer.proj", f"{embeddings}.patch_embeddings.projection", kernel(config)),
            row("prefix.class_token", f"{embeddings}.cls_token", VECTOR),
            write_only(f"{embeddings}.mask_token", lambda: torch.zeros(1, config.embed_dim)),
            positions(config, f"{embeddings}.position_embeddings"),
            *layer("encoder.norm", f"{self.model_type}.layernorm"),
        ]
        table += [row("prefix.registers", f"{embeddings}.register_tokens", BATCHED)] if config.num_registers else []
        for number in range(config.depth):
            our, their = f"encoder.blocks.{number}", f"{self.model_type}.encoder.layer.{number}"
            projections = [f"{their}.attention.attention.{name}" for name in ("query", "key", "value")]
            table += [
                *layer(f"{our}.norm1", f"{their}.norm1"),
                *attention(f"{our}.attn", projections, f"{their}.attention.output.dense", config),
                row(f"{our}.ls1.gamma", f"{their}.layer_scale1.lambda1"),
                *layer(f"{our}.norm2", f"{their}.norm2"),
                *self._mlp(config, f"{our}.mlp", f"{their}.mlp"),
                row(f"{our}.ls2.gamma", f"{their}.layer_scale2.lambda1"),
            ]
        return table + (layer("head", "classifier") if config.num_classes else [])

    def describe(self, config: ModelConfig) -> dict[str, str]:
        """Return the text of `config.json`, by file name."""
        values = {"model_type": self.model_type, **sizes(config), **rates(config)}
        values |= {
            "mlp_ratio": _whole_ratio(config),
            "use_swiglu_ffn": config.mlp == "gated",
            "qkv_bias": config.qkv_bias,
            "layerscale_value": float(config.layer_scale),
            "drop_path_rate": config.drop_path_rate,
        }
        values |= {"num_register_tokens": config.num_registers} if self.registers else {}
        values |= {} if config.head_dim is None else {"head_dim": config.head_dim}
        return describe(config, self.classes[config.pool == "token_mean"], values)

    def _mlp(self, config: ModelConfig, our: str, their: str) -> list[Row]:
        if config.mlp == "plain":
            return [*layer(f"{our}.fc1", f"{their}.fc1"), *layer(f"{our}.fc2", f"{their}.fc2")]
        if not self.separate_gate:
            return [*layer(f"{our}.fc1", f"{their}.weights_in"), *layer(f"{our}.fc2", f"{their}.weights_out")]
        fc1 = stacked(f"{our}.fc1", [f"{their}.gate_proj", f"{their}.up_proj"])
        return [*fc1, *layer(f"{our}.fc2", f"{their}.down_proj")]


def _hidden(width: int, ratio: float, gated: bool) -> int:
    """Return the width of the MLP; a gated one has two thirds of `width * ratio`, rounded up to a multiple of 8."""
    hidden = int(width * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def _whole_ratio(config: ModelConfig) -> int | None:
    """Return the whole number that gives this MLP as `mlp_ratio`, as their class requires; None if there is none."""
    gated = config.mlp == "gated"
    near = int(config.mlp_ratio * (1.5 if gated else 1))
    return next(
        (ratio for ratio in (near, near + 1) if _hidden(config.embed_dim, ratio, gated) == config.mlp_dim), None
    )


def _refuses(config: ModelConfig) -> list[str]:
    refused = refuse_unless_square(config)
    # Their classifier reads the class token and the mean of the patches. Without the classifier, the model returns only
    # the class token.
    if config.pool == "token" and config.num_classes:
        refused.append(f"model.pool=token with model.num_classes={config.num_classes}")
    if config.mlp == "gated" and config.act != "silu":
        refused.append(f"model.act={config.act} with model.mlp=gated")
    return refused if _whole_ratio(config) else [*refused, f"model.mlp_ratio={config.mlp_ratio}"]


def _format(family: Family) -> Format:
    prefix = family.model_type
    marks = {f"{prefix}.encoder.layer.0.layer_scale1.lambda1", f"{prefix}.embeddings.position_embeddings"}
    marks |= {f"{prefix}.embeddings.register_tokens"} if family.registers else set()
    return Format(
        name=f"transformers {prefix}" + (" in memory" if family.separate_gate else ""),
        recognizes=lambda names: (
            names >= marks and (f"{prefix}.encoder.layer.0.mlp.gate_proj.weight" in names) == family.separate_gate
        ),
        read_config=family.read_config,
        rows=family.rows,
        allowed={
            "layer_scale": (1.0,),
            "num_registers": None if family.registers else (0,),
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
            *ATTENTION_RENAMES,
        ),
        skipped={r"\.embeddings\.mask_token$": "replaces hidden patches in pre-training"},
        describe=family.describe,
        refuses=lambda config: (
            _refuses(config) + (["model.num_registers=0"] if family.registers and not config.num_registers else [])
        ),
    )


_PLAIN = Family("dinov2", ("Dinov2Model", "Dinov2ForImageClassification"))
_WITH_REGISTERS = Family(
    "dinov2_with_registers",
    ("Dinov2WithRegistersModel", "Dinov2WithRegistersForImageClassification"),
    registers=True,
)

DINOV2 = tuple(
    _format(dataclasses.replace(family, separate_gate=separate_gate))
    for family in (_WITH_REGISTERS, _PLAIN)
    for separate_gate in (False, True)
)
