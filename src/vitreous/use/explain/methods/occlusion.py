"""Model, images, target -> relevance of patches: how much the score falls when patches are removed."""

import torch
from torch import nn

from vitreous.errors import ConfigError
from vitreous.tensors import Images
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.target import Target
from vitreous.use.explain.trace import evaluating


def occlusion(
    model: nn.Module, images: Images, target: Target, *, window: int = 1, precision: str = "fp32"
) -> Relevance:
    """Compare the score of all patches with the score without a square of patches, for each place of the square.

    It takes one forward pass for each place of the square. If several patches show the same evidence, the score hardly
    falls when only one of them is removed; `shapley` does not have this problem.

    The square has `window` rows and columns. With more than 1, the squares overlap, and the value of a patch is the
    mean over the squares that contain it. `precision` is that of `PatchRemoval`; `bf16` rounds small differences of
    scores.

    Returns:
        Differences of scores; negative if the score rises without the patch.

    Raises:
        ConfigError: The square is larger than the grid of patches.

    Source:
        Zeiler & Fergus 2014, section 4.2 (1311.2901), who gray out a square of pixels. Here its tokens are removed; see
        `PatchRemoval`.
    """
    with evaluating(model) as vit:
        removal = PatchRemoval(vit, images, precision)
        rows, columns = removal.grid_size
        if not 1 <= window <= min(rows, columns):
            raise ConfigError(
                f"window={window}: the model has {rows}x{columns} patches; use a number from 1 to {min(rows, columns)}"
            )
        patches = torch.arange(removal.num_patches).view(rows, columns)
        inside = patches.unfold(0, window, 1).unfold(1, window, 1).reshape(-1, window**2)
        removed = torch.zeros(len(inside), patches.numel(), dtype=torch.bool).scatter(1, inside, True)
        kept = torch.cat([torch.ones_like(removed[:1]), ~removed])
        scores = removal.scores(removal.fixed(target), kept)
    falls = scores[:, :1] - scores[:, 1:]
    values = falls @ removed.double() / removed.sum(dim=0)
    return Relevance(values.float().view(-1, rows, columns).to(images.device))
