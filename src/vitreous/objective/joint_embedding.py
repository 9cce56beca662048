"""Model, augmented views of images -> loss of their embeddings: LeJEPA."""

import torch
from einops import rearrange
from torch import Tensor, nn

from vitreous.objective.task import UnlabeledTask, at_least_float32
from vitreous.tensors import Features, Images, Labels, Loss, Probabilities

NUM_DIRECTIONS = 256
"""Random directions along which the distribution of embeddings is compared with a normal one in each step."""
NUM_KNOTS, LAST_KNOT = 17, 3.0
"""Points from 0 at which the characteristic functions are compared; both are symmetric."""


class JointEmbedding(UnlabeledTask):
    """LeJEPA: views of an image get the same embedding, and all embeddings together a normal distribution.

    The loss is (1 - w) times the mean squared distance of an embedding from the mean of its image, plus w times
    `normality_gap`, averaged over the views. The second term prevents a collapse. It depends on the whole batch: with
    several processes or micro-batches, it is that of their own images.

    Args:
        num_views: Number of views of each image; they follow one another in a batch, as `data.repeats` makes them.
        regularity_weight: The weight w, in (0, 1).

    Source:
        Balestriero & LeCun 2025, SIGReg and LeJEPA (2511.08544). All views are of the same size here.
    """

    def __init__(self, *, num_views: int, regularity_weight: float) -> None:
        super().__init__()
        self.num_views = num_views
        self.regularity_weight = regularity_weight

    def forward(
        self, model: nn.Module, images: Images, targets: Labels | Probabilities, total: Tensor | None = None
    ) -> tuple[Loss, Features]:
        """Embed all views and compute the loss. Arguments are those of `Task.forward`."""
        embeddings = model(images)
        views = rearrange(at_least_float32(embeddings), "(b v) d -> v b d", v=self.num_views)
        with torch.autocast(images.device.type, enabled=False):  # the statistic needs full precision
            distance = (views - views.mean(dim=0)).square().mean()
            directions = torch.randn(views.shape[2], NUM_DIRECTIONS, device=views.device, dtype=views.dtype)
            gap = torch.stack([normality_gap(view, directions) for view in views]).mean()
        loss = (1 - self.regularity_weight) * distance + self.regularity_weight * gap
        return loss if total is None else loss * len(images) / total, embeddings


def normality_gap(embeddings: Features, directions: Tensor) -> Loss:
    """Return the Epps-Pulley statistic of embeddings along some directions, averaged over the directions.

    It compares the characteristic function of n projections with that of a standard normal distribution: n times the
    integral of |φ(t) − exp(−t²/2)|² · exp(−t²/2), by the trapezoidal rule over [-3, 3].

    Args:
        embeddings: `[n, width]`.
        directions: `[width, directions]`, of any length above 0.
    """
    knots = torch.linspace(0, LAST_KNOT, NUM_KNOTS, device=embeddings.device, dtype=embeddings.dtype)
    normal = (-knots.square() / 2).exp()
    weights = 2 * normal * LAST_KNOT / (NUM_KNOTS - 1)  # twice, for the points below 0
    weights[[0, -1]] /= 2
    angles = (embeddings @ (directions / directions.norm(dim=0))).unsqueeze(-1) * knots  # [n, directions, knots]
    differences = (angles.cos().mean(dim=0) - normal).square() + angles.sin().mean(dim=0).square()
    return len(embeddings) * (differences @ weights).mean()
