"""transformers' tensor names <-> ours: one format per model family, for names on disk and in memory."""

from vitreous.model.weights.huggingface.clip import CLIP
from vitreous.model.weights.huggingface.dinov2 import DINOV2
from vitreous.model.weights.huggingface.dinov3 import DINOV3
from vitreous.model.weights.huggingface.siglip import SIGLIP
from vitreous.model.weights.huggingface.vit import DEIT, DEIT_DISTILLED, MAE, VIT
from vitreous.model.weights.table import Format

HUGGINGFACE: tuple[Format, ...] = (*DINOV3, *DINOV2, DEIT_DISTILLED, DEIT, MAE, VIT, *CLIP, *SIGLIP)
"""Tried in this order, more specific formats first. Of two formats that can hold the same model, the first one is what
transformers reads and writes."""
