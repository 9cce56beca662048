"""Images -> tokens -> features -> logits.

`vit.py` shows the whole forward pass; `parts/` has one part per file. Parts take plain arguments: `config/` describes a
model, and `build_parts.py` chooses its parts.
"""

from vitreous.model.build import build_model, create_model
from vitreous.model.change.merge import merge_tokens
from vitreous.model.change.reshape import make_flexible, resize_model
from vitreous.model.change.trim import trim_last_block
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights import export_weights, load_model, read_metadata, save_model

__all__ = [
    "ModelConfig",
    "VisionTransformer",
    "build_model",
    "create_model",
    "export_weights",
    "load_model",
    "make_flexible",
    "merge_tokens",
    "read_metadata",
    "resize_model",
    "save_model",
    "trim_last_block",
]
