"""Images -> tokens -> features -> logits.

One part a file, in the order of the forward: tokenizer, position, prefix, relation, encoder, pool, head; `vit.py` shows
them together. Configuration stops at the door: `config.py` says what is wanted, `build.py` picks the parts.
"""

from vitreous.model.build import build_model, create_model
from vitreous.model.change.reshape import make_flexible, resize_model
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
    "read_metadata",
    "resize_model",
    "save_model",
]
