"""timm's tensor names <-> ours, and those of Meta's DINOv2 and DINOv3, which have nearly the same names."""

from vitreous.model.weights.table import Format
from vitreous.model.weights.timm.meta_dinov2 import META_DINOV2
from vitreous.model.weights.timm.meta_dinov3 import META_DINOV3
from vitreous.model.weights.timm.names import TIMM

META: tuple[Format, ...] = (META_DINOV2, META_DINOV3)
"""Tried before `TIMM`, whose names their files have too."""

__all__ = ["META", "TIMM"]
