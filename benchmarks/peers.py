"""A vitreous model -> the same model with the same weights in timm, torchvision, transformers or vit-pytorch.

Weights are exported with `vitreous.model.export_weights`: each library opens a file with its own names, and rejects one
with a missing tensor. vit-pytorch has norms around its patch projection and no bias on queries, keys and values. The
other libraries do not, so vit-pytorch is compared with a vitreous model of that architecture, the `TWIN`.
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
    """Return which of our two models has the architecture of this one."""
    return TWIN if name in (TWIN, "vit-pytorch") else OURS


def as_vit_pytorch(config: ModelConfig) -> ModelConfig:
    """Return the architecture of vit-pytorch's `ViT` with these sizes."""
    return dataclasses.replace(config, stem="normed", qkv_bias=False, norm_eps=1e-5)


def installed_peers() -> dict[str, str]:
    """Return the version of each library that can be imported, and print why the others cannot."""
    found = {}
    for name in PEERS:
        try:
            importlib.import_module(name.replace("-", "_"))
            found[name] = metadata.version(name)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
    return found


def make_peer(name: str, model: VisionTransformer, folder: Path) -> nn.Module:
    """Build the model of another library with our weights.

    Args:
        name: One of `PEERS`, installed.
        model: Our model with the same architecture, see `same_as`; on the CPU.
        folder: Where to write the file of weights.
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
    return OnlyLogits(ViTForImageClassification.from_pretrained(path.parent, dtype=torch.float32))


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


class OnlyLogits(nn.Module):
    """A model of transformers, which returns named outputs, that returns only its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.model(images).logits


PEERS: dict[str, tuple[str, Callable[[ModelConfig, Path], nn.Module]]] = {
    "timm": ("timm", _timm),
    "torchvision": ("torchvision", _torchvision),
    "transformers": ("hf", _transformers),
    "vit-pytorch": ("vit-pytorch", _vit_pytorch),
}
"""Library -> its format in `export_weights`, and a function that builds its model from such a file."""
