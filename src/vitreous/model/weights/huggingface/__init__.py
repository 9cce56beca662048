"""transformers' names -> ours: a format for each family, both as `save_pretrained` writes it and as it is in memory."""

from vitreous.model.weights.huggingface.clip import CLIP
from vitreous.model.weights.huggingface.dinov2 import DINOV2
from vitreous.model.weights.huggingface.dinov3 import DINOV3
from vitreous.model.weights.huggingface.siglip import SIGLIP
from vitreous.model.weights.huggingface.vit import DEIT, DEIT_DISTILLED, MAE, VIT
from vitreous.model.weights.table import Format

HUGGINGFACE: tuple[Format, ...] = (*DINOV3, *DINOV2, DEIT_DISTILLED, DEIT, MAE, VIT, *CLIP, *SIGLIP)
"""Asked in this order, those with more marks before those with fewer; of two that hold the same model, the first is
what transformers reads and writes."""
