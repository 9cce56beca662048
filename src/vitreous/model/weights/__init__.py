"""Weights file <-> model: our own format, and a table of tensor names for every other library."""

from vitreous.model.weights.convert import export_weights
from vitreous.model.weights.formats import TARGETS
from vitreous.model.weights.native import is_native, read_metadata, save_model
from vitreous.model.weights.open import load_model

__all__ = ["TARGETS", "export_weights", "is_native", "load_model", "read_metadata", "save_model"]
