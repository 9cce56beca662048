"""Images -> tokens by overlapping convolutions, in place of a tokenizer that cuts patches."""

from itertools import pairwise

from einops import rearrange
from torch import nn

from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.tensors import Images, Tokens


class ConvStem(ImageTokenizer):
    """3x3 convolutions that each halve the image, and a 1x1 convolution that projects to tokens: "early convolutions".

    Args:
        patch_size: Pixels of the image per token along a side, the product of the strides: 2, 4, 8, 16 …
        in_chans: Channels of an image.
        embed_dim: Width of a token.
        bias: Whether the last convolution has a bias.
        img_size: The only height and width to accept, in px; None accepts every size that `patch_size` divides.

    Source:
        Xiao et al. 2021, section 4 (2106.14881); channels double up to `embed_dim / 2`. They put BatchNorm after each
        convolution. Here it is a norm over the channels and pixels of each image, `GroupNorm(1)`: the logits of an
        image do not depend on its batch, and a rejected batch leaves no trace in running statistics.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool = True,
        img_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, img_size=img_size)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise([in_chans, *stem_widths(patch_size, embed_dim)]):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, wide), nn.ReLU()]
            in_chans = wide
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(in_chans, embed_dim, 1, bias=bias)

    def forward(self, images: Images) -> Tokens:
        """Embed the images. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        return rearrange(self.proj(self.layers(images)), "b d h w -> b (h w) d")


class CompactStem(ImageTokenizer):
    """3x3 convolutions, each with ReLU and an overlapping max pooling that halves the image: the tokenizer of CCT.

    Args:
        patch_size: Pixels of the image per token along a side: 2 for one layer, 4 for two …
        in_chans: Channels of an image.
        embed_dim: Width of a token; layers before the last are 64 wide.
        bias: Whether the convolutions have a bias; those of CCT have none.
        img_size: The only height and width to accept, in px; None accepts every size that `patch_size` divides.

    Source:
        Hassani et al. 2021, section 3.2 (2104.05704), with kernel 3, stride 1, pooling 3 and stride 2 as in CCT-7/3xN.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool = False,
        img_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, img_size=img_size)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise([in_chans, *compact_widths(patch_size, embed_dim)]):
            layers += [
                nn.Conv2d(narrow, wide, 3, padding=1, bias=bias),
                nn.ReLU(),
                nn.MaxPool2d(3, stride=2, padding=1),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Images) -> Tokens:
        """Embed the images. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        return rearrange(self.layers(images), "b d h w -> b (h w) d")


def stem_widths(patch_size: int, embed_dim: int) -> list[int]:
    """Return the channels after each halving convolution of `ConvStem`, at least 8."""
    num_layers = patch_size.bit_length() - 1
    return [max(8, embed_dim // 2 ** (num_layers - layer)) for layer in range(num_layers)]


def compact_widths(patch_size: int, embed_dim: int) -> list[int]:
    """Return the channels after each layer of `CompactStem`."""
    return [64] * (patch_size.bit_length() - 2) + [embed_dim]
