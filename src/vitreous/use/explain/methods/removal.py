"""Model, images, target -> relevance of patches: how the score changes when they are removed or added."""

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from vitreous.errors import ConfigError
from vitreous.seeding import derive, permutation
from vitreous.tensors import Images
from vitreous.use.explain.relevance import Relevance
from vitreous.use.explain.removal.patch_removal import PatchRemoval
from vitreous.use.explain.removal.super_tokens import super_tokens
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


def shapley(
    model: nn.Module,
    images: Images,
    target: Target,
    *,
    num_permutations: int = 16,
    cells: tuple[int, int] | None = None,
    seed: int = 0,
    precision: str = "fp32",
) -> Relevance:
    """Add the patches in random orders, and average by how much each raises the score when it is added.

    The values of an image sum to its score minus the score without any patch; see `PatchRemoval`. The cost grows with
    the number of patches n: about `num_permutations * n / 2` forward passes of a whole image. By default, that is 1,600
    for 14x14 patches and 400 for 7x7.

    `num_permutations` is an even number from 4; four times this number halves the errors. The orders are the same for
    all images, so the values of an image do not depend on the others. With `cells`, rows and columns of super-tokens
    such as (4, 4), patches of a super-token are added together, and it gets the value. `precision` is that of
    `PatchRemoval`.

    Returns:
        Values with their standard errors.

    Raises:
        ConfigError: `num_permutations` is odd or less than 4, or `cells` do not fit into the grid of patches.

    Source:
        Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling. Every second order is the
        previous one reversed (antithetic sampling, Mitchell et al. 2022, 2104.12199), which makes the errors
        smaller; the standard errors are those of independent pairs.
    """
    if num_permutations < 4 or num_permutations % 2:
        raise ConfigError(
            f"num_permutations={num_permutations}: orders come in pairs, at least two; use an even number from 4"
        )
    with evaluating(model) as vit:
        removal = PatchRemoval(vit, images, precision)
        cells = cells or removal.grid_size
        player_of = super_tokens(removal.grid_size, cells)
        ranks = _antithetic_ranks(cells[0] * cells[1], num_permutations, seed)
        fixed, count = removal.fixed(target), ranks.shape[1]
        scores = torch.empty(len(images), num_permutations, count + 1, dtype=torch.float64)
        for size in range(count + 1):  # the sets of one size are computed together
            different = ranks if 0 < size < count else ranks[:1]
            scores[:, :, size] = removal.scores(fixed, (different < size)[:, player_of])
    values = scores.diff(dim=2).gather(2, ranks.expand(len(images), -1, -1))
    pairs = values.unflatten(1, (-1, 2)).mean(dim=2)
    errors = pairs.std(dim=1) / pairs.shape[1] ** 0.5
    return Relevance(*(x.float().view(-1, *cells).to(images.device) for x in (pairs.mean(dim=1), errors)))


def _antithetic_ranks(count: int, num_permutations: int, seed: int) -> Int64[Tensor, "permutations players"]:
    """Return the place of each player in random orders; every second order is the previous one reversed."""
    seeds = (derive(seed, "shapley", number) for number in range(num_permutations // 2))
    ranks = torch.stack([torch.from_numpy(permutation(one, count)) for one in seeds])
    return torch.stack([ranks, count - 1 - ranks], dim=1).flatten(0, 1)
