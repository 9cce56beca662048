"""A file -> a model, and back."""

from vitreous.model.weights.native import load_model, read_metadata, save_model

__all__ = ["load_model", "read_metadata", "save_model"]
