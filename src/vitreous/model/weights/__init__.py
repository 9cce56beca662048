"""A file -> a model, and back: our own format, and a table of names for each library whose weights the field has."""

from vitreous.model.weights.convert import export_weights
from vitreous.model.weights.formats import TARGETS
from vitreous.model.weights.native import is_native, read_metadata, save_model
from vitreous.model.weights.open import load_model

__all__ = ["TARGETS", "export_weights", "is_native", "load_model", "read_metadata", "save_model"]
