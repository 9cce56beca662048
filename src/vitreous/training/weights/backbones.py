"""Name -> a published backbone: where it is, its size, its license, and what it is good at.

Licenses and files are those on the pages of the repositories; what a backbone was trained on is in their model cards.
Parameters, size and input are computed from the architecture; the sizes agree with the pages.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vitreous.errors import UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import config_for
from vitreous.model.cost.count import count_parameters
from vitreous.model.weights.reading import hub

_APACHE = "Apache-2.0"


@dataclass(frozen=True)
class Backbone:
    """A published backbone.

    Its name is for `--pretrained`, `repo` is its repository on the hub, and `architecture` its published name. `terms`
    is the address of the terms that using it means to accept; empty for a permissive license.
    """

    name: str
    repo: str
    architecture: str
    license: str
    strengths: str
    terms: str = ""

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return config_for(self.architecture)

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return count_parameters(self.config)

    @property
    def num_bytes(self) -> int:
        """Size of the file; its header and what is not part of the architecture add less than 1%."""
        return 4 * self.num_parameters

    @property
    def label(self) -> str:
        """Name, size of the download and license, in one line."""
        terms = f", with terms at {self.terms}" if self.terms else ""
        return f"{self.name} ({self.num_bytes / 1e6:,.0f} MB, {self.license}{terms})"

    def stored(self) -> hub.Stored | None:
        """Return the record of its download; None if it is not in the cache."""
        found = hub.stored(self.repo)
        return found if found is not None and found.is_complete else None


_AUGREG = "supervised: ImageNet-21k, then ImageNet-1k"
_DEIT3 = "supervised: ImageNet-22k, then ImageNet-1k"
_DINOV2 = "self-supervised: LVD-142M; for most photos, {} on ImageNet-1k with a linear head"

_ROWS = (
    # facebookresearch/dinov2 MODEL_CARD.md; page of facebook/dinov2-small (88.2 MB)
    Backbone("dinov2-small", "facebook/dinov2-small", "vit_small_patch14_dinov2", _APACHE, _DINOV2.format("81.1%")),
    # page of facebook/dinov2-base (346 MB)
    Backbone("dinov2-base", "facebook/dinov2-base", "vit_base_patch14_dinov2", _APACHE, _DINOV2.format("84.5%")),
    # page of timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k (22.9 MB)
    Backbone(
        "augreg-tiny",
        "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        "vit_tiny_patch16_224",
        _APACHE,
        f"{_AUGREG}; the smallest and fastest",
    ),
    # page of timm/vit_small_patch16_224.augreg_in21k_ft_in1k
    Backbone(
        "augreg-small",
        "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
        "vit_small_patch16_224",
        _APACHE,
        _AUGREG,
    ),
    # page of timm/vit_base_patch16_224.augreg_in21k_ft_in1k (346 MB)
    Backbone("augreg-base", "timm/vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_base_patch16_224", _APACHE, _AUGREG),
    # page of timm/deit3_small_patch16_224.fb_in22k_ft_in1k (88.3 MB)
    Backbone(
        "deit3-small", "timm/deit3_small_patch16_224.fb_in22k_ft_in1k", "deit3_small_patch16_224", _APACHE, _DEIT3
    ),
    # page of timm/deit3_base_patch16_224.fb_in22k_ft_in1k (346 MB)
    Backbone("deit3-base", "timm/deit3_base_patch16_224.fb_in22k_ft_in1k", "deit3_base_patch16_224", _APACHE, _DEIT3),
    # page of timm/vit_small_patch16_dinov3.lvd1689m (86.4 MB, dinov3-license, with LICENSE.md)
    Backbone(
        "dinov3-small",
        "timm/vit_small_patch16_dinov3.lvd1689m",
        "vit_small_patch16_dinov3",
        "DINOv3 License",
        "self-supervised: distilled from DINOv3 ViT-7B on LVD-1689M",
        "https://ai.meta.com/resources/models-and-libraries/dinov3-license",
    ),
)

BACKBONES: Mapping[str, Backbone] = {backbone.name: backbone for backbone in _ROWS}
"""All backbones by name."""


def backbone_named(name: str) -> Backbone:
    """Return a backbone by its short name or its repository. Raise UnknownNameError, with the nearest name, if none."""
    for backbone in BACKBONES.values():
        if name.removeprefix(hub.PREFIX) in (backbone.name, backbone.repo):
            return backbone
    raise UnknownNameError(f"backbone={name}: no such backbone; {nearest(name, BACKBONES)}")
