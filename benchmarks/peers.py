"""A vitreous model -> the same function of the same weights, as timm, torchvision, transformers or vit-pytorch has it.

Weights travel by `vitreous.model.export_weights`: each peer opens a file in its own names, and refuses one that lacks a
tensor. vit-pytorch has norms around its patch projection and no bias on queries, keys and values: no other library
builds that, so it is compared with a vitreous model of its own kind, `TWIN`.
"""

import dataclasses
import importlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from vitreous.model import ModelConfig, VisionTransformer, export_weights

OURS, TWIN = "vitreous", "vitreous as vit-pytorch"


def same_as(name: str) -> str:
    """Which of our two models computes what this one does."""
    return TWIN if name in (TWIN, "vit-pytorch") else OURS


def as_vit_pytorch(config: ModelConfig) -> ModelConfig:
    """The architecture that vit-pytorch's `ViT` makes of these sizes."""
    return dataclasses.replace(config, stem="normed", qkv_bias=False, norm_eps=1e-5)


def installed_peers() -> dict[str, str]:
    """Version of each peer that can be imported, by its name; says of each other why not."""
    found = {}
    for name in PEERS:
        try:
            importlib.import_module(name.replace("-", "_"))
            found[name] = metadata.version(name)
        except ImportError as error:
            print(f"{name} is left out: {error}")
    return found


def make_peer(name: str, model: VisionTransformer, folder: Path) -> nn.Module:
    """A peer's model with our weights.

    Args:
        name: One of `PEERS`, installed.
        model: That `same_as` says, on the CPU.
        folder: Where a file of weights may lie.
    """
    target, make = PEERS[name]
    path = folder / (target if target == "hf" else f"{target}.safetensors")
    return make(model.config, export_weights(model, path, to=target))


def _filled(model: nn.Module, path: Path) -> nn.Module:
    model.load_state_dict(load_file(path))
    return model


def _timm(config: ModelConfig, path: Path) -> nn.Module:
    from timm.models import VisionTransformer as Theirs

    model: nn.Module = Theirs(
        img_size=config.img_size,
        patch_size=config.patch_size,
        in_chans=config.in_chans,
        num_classes=config.num_classes,
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
    )
    return _filled(model, path)


def _torchvision(config: ModelConfig, path: Path) -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer as Theirs

    sizes = (config.img_size[0], config.patch_size, config.depth, config.num_heads, config.embed_dim, config.mlp_dim)
    model: nn.Module = Theirs(*sizes, num_classes=config.num_classes)
    return _filled(model, path)


def _transformers(config: ModelConfig, path: Path) -> nn.Module:
    from transformers import ViTForImageClassification
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return LogitsAlone(ViTForImageClassification.from_pretrained(path.parent, dtype=torch.float32))


def _vit_pytorch(config: ModelConfig, path: Path) -> nn.Module:
    from vit_pytorch import ViT

    model: nn.Module = ViT(
        image_size=config.img_size,
        patch_size=config.patch_size,
        channels=config.in_chans,
        num_classes=config.num_classes,
        dim=config.embed_dim,
        depth=config.depth,
        heads=config.num_heads,
        dim_head=config.embed_dim // config.num_heads,
        mlp_dim=config.mlp_dim,
    )
    return _filled(model, path)


class LogitsAlone(nn.Module):
    """A model of transformers, which answers with named outputs, as one that answers with logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Its logits."""
        return self.model(images).logits


PEERS: dict[str, tuple[str, Callable[[ModelConfig, Path], nn.Module]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "transformers": ("hf", _transformers),
    "vit-pytorch": ("vit-pytorch", _vit_pytorch),
}
"""What `export_weights` calls a peer's format, and how the peer is made of a file in it."""
