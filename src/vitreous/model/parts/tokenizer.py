"""Images -> tokens: cut into patches, project each. Dosovitskiy et al. 2021, eq. 1 (2010.11929)."""

from functools import cache

import torch
from einops import rearrange
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vitreous.errors import ConfigError, ShapeError
from vitreous.tensors import Images, Patches, Tokens
from vitreous.wording import plural


class ImageTokenizer(nn.Module):
    """Base class of the tokenizers and stems: one token per square of the image, and checks of the image shape.

    `patch_size` is the side of the square in px. `img_size` is the only height and width to accept, in px; None accepts
    every size that the squares tile.
    """

    def __init__(self, *, patch_size: int, in_chans: int, img_size: tuple[int, int] | None) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.in_chans = in_chans
        self.img_size = img_size

    def grid_size(self, images: Images) -> tuple[int, int]:
        """Return the number of rows and columns of tokens for these images.

        Raises:
            ShapeError: The images are no batch, the number of channels or the size is not accepted, or patches do not
                tile the images.
        """
        if images.dim() != 4:
            shape = "x".join(map(str, images.shape))
            raise ShapeError(f"images of shape {shape}: must be a batch of images; give one image as images[None]")
        _, channels, height, width = images.shape
        if channels != self.in_chans:
            raise ShapeError(
                f"images of {plural(channels, 'channel')}: the model takes {self.in_chans}; convert the images"
            )
        if self.img_size is not None and (height, width) != self.img_size:
            expected = "{}x{}".format(*self.img_size)
            raise ShapeError(
                f"images {height}x{width} px (height x width): the model takes {expected} px; "
                "resize the images, or the model with resize_model"
            )
        if height % self.patch_size or width % self.patch_size:
            raise _untiled(height, width, self.patch_size)
        return height // self.patch_size, width // self.patch_size

    @property
    def token_center(self) -> float:
        """Where the center of what a token sees lies in its square, as a share of the side from the upper left corner.

        0.5 if a token sees its square, and as much on each side of it.
        """
        return 0.5

    def nearest_tokens(self, count: int) -> Int64[Tensor, " pixels"]:
        """Return, for each row of pixels, which of `count` rows of tokens has the nearest center; or for columns."""
        places = (torch.arange(count * self.patch_size) + 0.5) / self.patch_size
        return (places - self.token_center + 0.5).floor().long().clamp(0, count - 1)


class Tokenizer(ImageTokenizer):
    """One token per square patch, row by row: a matrix product over flattened patches.

    On a CPU, this is faster than a convolution whose stride is its kernel size. Forward and backward pass on two Zen 3
    cores (fp32, torch 2.13) take 2.2 to 3.7 instead of 10.9 ms for 128 images of 28x28x1 px with 4 px patches, and 60
    instead of 64 ms for 32 images of 224x224x3 px with 16 px patches and tokens 384 wide. For patch size and image
    size, see `ImageTokenizer`.
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
        self.make_layers(in_chans * patch_size**2, embed_dim, bias=bias)

    def make_layers(self, num_values: int, embed_dim: int, *, bias: bool) -> None:
        """Make the layers that embed the flattened patches, of `num_values` each."""
        # The values of a patch are in the order of a Conv2d kernel, so weights from timm need only .flatten(1).
        self.proj = nn.Linear(num_values, embed_dim, bias=bias)

    def forward(self, images: Images) -> Tokens:
        """Cut the images into patches and project each. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        side = self.patch_size
        return self.proj(rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=side, q=side))


class ShiftedTokenizer(Tokenizer):
    """A tokenizer in which a patch also sees its neighborhood: four shifted copies of the image are added as channels.

    The arguments are those of `Tokenizer`.

    Source:
        Lee et al. 2021, section 3.1 (2112.13492). The copies are shifted diagonally by half a patch and padded with
        zeros. A norm comes before the projection.
    """

    def make_layers(self, num_values: int, embed_dim: int, *, bias: bool) -> None:
        """Make the projection and the norm of the values of the patch and of four shifted ones."""
        super().make_layers(5 * num_values, embed_dim, bias=bias)
        self.norm = nn.LayerNorm(5 * num_values)

    def forward(self, images: Images) -> Tokens:
        """Embed patches with their neighborhood. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        half = self.patch_size // 2
        # A negative number crops: padding one side and cropping the opposite one shifts the image.
        shifted = [nn.functional.pad(images, (x, -x, y, -y)) for y in (half, -half) for x in (half, -half)]
        return self.proj(self.norm(patchify(torch.cat([images, *shifted], dim=1), self.patch_size)))


class NormedTokenizer(Tokenizer):
    """A tokenizer with a norm before and after the projection.

    The arguments are those of `Tokenizer`.

    Source:
        Kumar et al. 2023, dual PatchNorm (2302.01327), as in vit-pytorch.
    """

    def make_layers(self, num_values: int, embed_dim: int, *, bias: bool) -> None:
        """Make the projection and the two norms."""
        super().make_layers(num_values, embed_dim, bias=bias)
        self.norm = nn.LayerNorm(num_values)
        self.norm_after = nn.LayerNorm(embed_dim)

    def forward(self, images: Images) -> Tokens:
        """Embed the patches between two norms. Raises ShapeError for images that `grid_size` refuses."""
        self.grid_size(images)
        return self.norm_after(self.proj(self.norm(patchify(images, self.patch_size))))


class FlexibleTokenizer(ImageTokenizer):
    """A tokenizer with a patch size that is drawn at each step of training and can be set for inference.

    It learns only the projection of the base tokenizer. `resize_projection` resizes it to the patch size in use, and
    gradients flow through the resize. The model must be built with `dynamic_img_size`, so that its positions follow the
    grid size.

    Attributes:
        patch_size: Side of a patch in px. In evaluation mode it can be set; in training mode it is the side that the
            last forward pass drew.

    Args:
        tokenizer: The base tokenizer; its projection is shared.
        patch_sizes: Sides in px to draw from. A draw skips sides that do not tile the images.

    Raises:
        ConfigError: `patch_sizes` is empty or contains a number below 1.

    Source:
        Beyer et al. 2023, FlexiViT (2212.08013), algorithm 1 and section 3.3.
    """

    def __init__(self, tokenizer: Tokenizer, patch_sizes: tuple[int, ...]) -> None:
        if not patch_sizes or min(patch_sizes) < 1:
            raise ConfigError(f"patch_sizes={patch_sizes}: must be sides in px, at least one; use e.g. (8, 12, 16)")
        super().__init__(patch_size=tokenizer.patch_size, in_chans=tokenizer.in_chans, img_size=tokenizer.img_size)
        self.drawn_patch_size = tokenizer.patch_size
        self.patch_sizes = patch_sizes
        self.proj = tokenizer.proj

    @property
    def patch_size(self) -> int:
        """Side in px of the patches in use."""
        return self.drawn_patch_size if self.training else self.chosen_patch_size

    @patch_size.setter
    def patch_size(self, side: int) -> None:
        self.chosen_patch_size = side

    def draw(self, images: Images) -> None:
        """Draw one of the `patch_sizes` that tile these images, with torch's global generator."""
        height, width = images.shape[-2:]
        fitting = [side for side in self.patch_sizes if height % side == 0 and width % side == 0]
        drawn = fitting[int(torch.randint(len(fitting), ()))] if fitting else self.chosen_patch_size
        self.drawn_patch_size = drawn

    def forward(self, images: Images) -> Tokens:
        """Draw the patch size if in training mode, and embed the patches. Raises ShapeError as `grid_size` does."""
        if self.training:
            self.draw(images)
        self.grid_size(images)
        weight = resize_projection(self.proj.weight, self.in_chans, self.patch_size)
        return nn.functional.linear(patchify(images, self.patch_size), weight, self.proj.bias)


def patchify(images: Images, patch_size: int) -> Patches:
    """Cut images into square patches, row by row, and flatten each.

    Returns:
        `[batch, patches, channels * patch_size**2]`.

    Raises:
        ShapeError: Patches do not tile the image exactly.
    """
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise _untiled(height, width, patch_size)
    return rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=patch_size, q=patch_size)


def resize_projection(weight: Float[Tensor, "embed_dim values"], in_chans: int, patch_size: int) -> Tensor:
    """Resize a patch projection so that resized patches give nearly the same tokens.

    The weight is `[embed_dim, in_chans * old * old]`; `patch_size` is the side of the new patches in px.

    Returns:
        `[embed_dim, in_chans * patch_size**2]` in the dtype of the weight; the same tensor if it has this size already.

    Source:
        Beyer et al. 2023, eq. 4 (2212.08013). Bilinear, antialiased resizing of a patch is a product with a matrix B.
        The weights are multiplied by the pseudo-inverse of its transpose, so that an enlarged patch gives exactly the
        token of the original patch.
    """
    old = round((weight.shape[1] / in_chans) ** 0.5)
    if old == patch_size:
        return weight
    channels = rearrange(weight, "d (c v) -> d c v", c=in_chans)
    return rearrange(channels @ _resizing(old, patch_size).to(weight), "d c v -> d (c v)")


@cache  # a flexible model uses the same few matrices at every step
@torch.inference_mode(False)  # a later call may need a gradient through the cached tensor
def _resizing(old: int, new: int) -> Tensor:
    """Return the pseudo-inverse of Bᵀ, `[old², new²]`, in float64."""
    basis = torch.eye(old**2, dtype=torch.float64, device="cpu").reshape(old**2, 1, old, old)
    resized = nn.functional.interpolate(basis, size=(new, new), mode="bilinear", antialias=True)
    return torch.linalg.pinv(resized.flatten(1)).T


def _untiled(height: int, width: int, patch_size: int) -> ShapeError:
    return ShapeError(f"images {height}x{width} px: not tiled by {patch_size} px patches; resize or pad them")
