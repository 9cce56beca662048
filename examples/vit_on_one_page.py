"""The Vision Transformer on one page: images -> logits. Dosovitskiy et al. 2021 (2010.11929).

The same function as `vitreous.create_model("vit_small_patch16_224")` computes, without its options; a test compares the
two. Shapes: B images, C channels, N patches, D width of a token, H heads, P side of a patch in px.
"""

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention: every token reads from every token."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.num_heads)
        x = F.scaled_dot_product_attention(q, k, v)  # softmax(QKᵀ/√d)V, [B, H, N, D/H]
        return self.proj(rearrange(x, "b h n d -> b n (h d)"))


class Mlp(nn.Module):
    """Two linear layers, applied to each token by itself."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden_dim), nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Attention and MLP, each behind a norm on a residual branch."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, num_heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """Patches, class token, positions, blocks, head."""

    def __init__(
        self, *, img_size: int, patch_size: int, in_chans: int, num_classes: int, dim: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = nn.Linear(in_chans * patch_size**2, dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (img_size // patch_size) ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:  # [B, C, height, width] -> [B, num_classes]
        p = self.patch_size
        x = self.patch_embed(rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p))  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed  # [B, 1 + N, D]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


if __name__ == "__main__":
    model = VisionTransformer(
        img_size=224, patch_size=16, in_chans=3, num_classes=1000, dim=384, depth=12, num_heads=6
    )  # ViT-S/16
    logits = model(torch.zeros(2, 3, 224, 224))
    print(f"{tuple(logits.shape)} logits, {sum(p.numel() for p in model.parameters()):,} parameters")
