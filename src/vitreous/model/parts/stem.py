"""Images -> tokens, computed by overlapping convolutions instead of from separate patches."""

from collections.abc import Iterable
from itertools import pairwise

from einops import rearrange
from torch import nn

from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.tensors import Images, Tokens


class Stem(ImageTokenizer):
    """Base class of the stems. `layers` are convolutions and poolings, so a token also sees neighboring squares."""

    layers: nn.Sequential

    @property
    def token_center(self) -> float:
        """See `ImageTokenizer.token_center`; here it is near 0, so tokens see the corner between four squares."""
        return center_seen(self.layers) / self.patch_size


class ConvStem(Stem):
    """3x3 convolutions that each halve the image, and a 1x1 convolution that projects to tokens: "early convolutions".

    `patch_size` is the product of the strides, a power of two. Channels double from layer to layer, up to `ratio` times
    `embed_dim`. `bias` is for the last convolution.

    Source:
        Xiao et al. 2021, section 4 (2106.14881). They put BatchNorm after each convolution. Here it is `GroupNorm(1)`,
        a norm over the channels and pixels of one image, so that the logits of an image do not depend on the other
        images of its batch.
    """

    def __init__(
        self,
        *,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        ratio: float = 0.5,
        bias: bool = True,
        img_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, img_size=img_size)
        layers: list[nn.Module] = []
        for narrow, wide in pairwise([in_chans, *stem_widths(patch_size, embed_dim, ratio)]):
            layers += [nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.GroupNorm(1, wide), nn.ReLU()]
            in_chans = wide
        self.layers = nn.Sequential(*layers)
        self.proj = nn.Conv2d(in_chans, embed_dim, 1, bias=bias)

    def forward(self, images: Images) -> Tokens:
        """Embed the images. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        return rearrange(self.proj(self.layers(images)), "b d h w -> b (h w) d")


class CompactStem(Stem):
    """3x3 convolutions, each with ReLU and an overlapping max pooling that halves the image: the tokenizer of CCT.

    `patch_size` is 2 for one layer, 4 for two, 8 for three and so on. Layers before the last are 64 wide. The
    convolutions of CCT have no bias.

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


def center_seen(layers: Iterable[nn.Module]) -> float:
    """Return the center, in px from the border, of what the first output of convolutions and poolings sees.

    The first pixel reaches from 0 to 1. Padding moves the center towards the border: with a kernel of 3, a stride of 2
    and a padding of 1, the first output sees the pixels -1 to 1, and their center is 0.5.
    """
    center = 0.5  # of the first output, in its own px
    for layer in reversed(list(layers)):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (_side(size) for size in (layer.kernel_size, layer.stride, layer.padding))
            center = (center - 0.5) * stride + kernel / 2 - padding
    return center


def _side(size: str | int | tuple[int, ...]) -> int:
    """Return the height of a size, which is one number if height and width are equal."""
    return size[0] if isinstance(size, tuple) else int(size)


def stem_widths(patch_size: int, embed_dim: int, ratio: float = 0.5) -> list[int]:
    """Return the number of channels after each 3x3 convolution of `ConvStem`, at least 8."""
    halvings = range(patch_size.bit_length() - 2, -1, -1)
    return [max(8, int(ratio * embed_dim) // 2**halving) for halving in halvings]


def compact_widths(patch_size: int, embed_dim: int) -> list[int]:
    """Return the number of channels after each layer of `CompactStem`."""
    return [64] * (patch_size.bit_length() - 2) + [embed_dim]
