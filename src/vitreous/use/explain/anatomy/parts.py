"""Model, sample -> the parts of an anatomy: for each a title, what was found, numbers and a figure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL.Image import Image

from vitreous.model.cost.count import count_flops
from vitreous.model.vit import VisionTransformer
from vitreous.training.folder.records import Listener
from vitreous.training.load import progress_to
from vitreous.training.machine.device import autocast, resolve_precision
from vitreous.use.explain.anatomy import figures
from vitreous.use.explain.anatomy.ablation import accuracy_lost, right_without_parts
from vitreous.use.explain.anatomy.space import path_through_depths
from vitreous.use.explain.anatomy.tokens import Observed, cell_distances, norm_outliers, observe
from vitreous.use.explain.anatomy.weights import patch_filters, position_similarity
from vitreous.use.explain.pictures.figure import encoded
from vitreous.use.explain.removal.patch_removal import BATCH_TOKENS
from vitreous.use.explain.sample import Sample
from vitreous.wording import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FLOPS = 2e13
"""Operations for removing parts of the model: about 2 minutes of two CPU cores. It decides the number of images."""
FEWEST_IMAGES = 64
_OF_PATCHES = ("attention", "similarity", "outliers")


@dataclass(frozen=True, eq=False)
class Part:
    """One thing that was looked at.

    The name is that in `model.json` and of the picture. The finding is a sentence on what was found, or on why this
    part does not apply to the model; then `numbers` is None. The figure is None if there is nothing to show.
    """

    name: str
    finding: str
    numbers: Mapping[str, Any] | None = None
    figure: "Figure | Image | None" = None

    def save(self, path: Path) -> None:
        """Save the figure, if there is one, as PNG."""
        if isinstance(self.figure, Image):
            self.figure.save(path, "PNG")
        elif self.figure is not None:
            path.write_bytes(encoded(self.figure))


def of_weights(model: VisionTransformer) -> Iterator[Part]:
    """Yield the parts that need no images."""
    filters = patch_filters(model)
    finding = (
        f"{plural(len(filters.images), 'component')} of {filters.what} explain {filters.shares.sum():.0%} of the "
        f"variance of its {filters.count:,} filters, the first 3 explain {filters.shares[:3].sum():.0%}"
    )
    yield Part("filters", finding, {"shares": filters.shares}, figures.draw_filters(filters))
    similarity = position_similarity(model)
    if isinstance(similarity, str):
        yield Part("positions", similarity)
        return
    rows, columns = similarity.shape[:2]
    distances = cell_distances((rows, columns), 1).round().numpy()
    flat = similarity.reshape(distances.shape)
    by_distance = [flat[distances == distance].mean() for distance in np.unique(distances)]
    finding = (
        f"mean cosine of position embeddings: {by_distance[1]:.2f} between neighbors, {by_distance[-1]:.2f} between "
        "the patches that are farthest apart"
    )
    yield Part("positions", finding, {"by_distance": by_distance}, figures.draw_positions(similarity))


def observe_all(sample: Sample, listener: Listener) -> Observed:
    """Observe the tokens of all images of a sample."""
    show = progress_to(listener, "reading tokens")
    return Observed.joined(sample.in_batches(partial(observe, sample.model), show))


def of_tokens(seen: Observed, sample: Sample) -> Iterator[Part]:
    """Yield the parts that show how tokens change from block to block."""
    if seen.norms[0, 0].size == 1:
        yield from (Part(name, "an image is one patch, so there is nothing to compare") for name in _OF_PATCHES)
    else:
        yield from _of_patches(seen, sample.model.config.patch_size)
    points, shares = path_through_depths(seen.features)
    finding = f"two components explain {shares.sum():.0%} of the variance between images over all depths"
    yield Part("path", finding, {"shares": shares}, figures.draw_path(points, shares, sample.labels, sample.classes))


def _of_patches(seen: Observed, patch_size: int) -> Iterator[Part]:
    mean, uniform = seen.distances.mean(axis=0), float(cell_distances(seen.norms.shape[2:], patch_size).mean())
    finding = (
        f"heads of the first block look {mean[0].min():.1f} to {mean[0].max():.1f} px far, those of the last "
        f"{mean[-1].min():.1f} to {mean[-1].max():.1f} px; equal attention to all patches would be {uniform:.1f} px"
    )
    yield Part("attention", finding, {"px": mean, "uniform_px": uniform}, figures.draw_distances(mean, uniform))
    cosines = seen.similarity.mean(axis=0)
    finding = (
        f"mean cosine between the patches of an image: {cosines[0]:.2f} before the first block, {cosines[-1]:.2f} "
        "after the last"
    )
    yield Part("similarity", finding, {"cosine": cosines}, figures.draw_similarity(seen.similarity))
    outliers = norm_outliers(seen.norms)
    shares = outliers.mean(axis=(0, 2, 3))
    worst = int(shares.argmax())
    numbers = {"share": shares, "median_norm": np.median(seen.norms, axis=(0, 2, 3)),
               "depth": worst, "where": outliers[:, worst].mean(axis=0)}  # fmt: skip
    if not shares.any():
        yield Part("outliers", "no patch has a norm of more than 3 times the median of its depth", numbers)
        return
    finding = (
        f"{f'after block {worst}' if worst else 'before the first block'}, {shares[worst]:.2%} of the patches have a "
        f"norm of more than 3 times the median; after the last block {shares[-1]:.2%}"
    )
    yield Part("outliers", finding, numbers, figures.draw_outliers(outliers))


def of_removal(sample: Sample, listener: Listener) -> Part:
    """Remove each head and each block; `MOST_FLOPS` decides on how many images."""
    model = sample.model
    depth, heads = len(model.encoder.blocks), model.config.num_heads
    per_image = count_flops(model.config) * (heads + 1) * (depth + 1) / 2
    count = min(len(sample), max(FEWEST_IMAGES, int(MOST_FLOPS / per_image)))
    chosen = np.linspace(0, len(sample) - 1, count).round().astype(np.int64)
    device, found, done = next(model.parameters()).device, [], 0
    show = progress_to(listener, "removing heads and blocks")
    thresholds = torch.as_tensor(sample.predictor.logit_thresholds, device=device)
    num_batches = max(20, count * model.config.num_tokens // BATCH_TOKENS)  # at least 20, for the progress
    for positions in np.array_split(chosen, min(count, num_batches)):
        with autocast(device, resolve_precision("auto", device)):
            found.append(right_without_parts(model, sample.images(positions), sample.targets(positions), thresholds))
        done += len(positions)
        show(done, count)
    right, without_head, without_block = (torch.cat(rows).numpy() for rows in zip(*found, strict=True))
    of_heads = accuracy_lost(right, without_head.reshape(-1, depth, heads))
    of_blocks = accuracy_lost(right, without_block)
    worst = int(of_blocks.lost.argmax())
    low, high = of_blocks.intervals[worst]
    finding = (
        f"on {plural(count, 'image')}, {right.mean():.1%} of which are right: removing block {worst + 1} costs most, "
        f"{100 * of_blocks.lost[worst]:.1f} points (95% interval {100 * low:.1f} to {100 * high:.1f}); "
        f"{int((~of_heads.is_clear).sum())} of {plural(of_heads.lost.size, 'head')} can be removed, "
        "one at a time, without a measurable change"
    )
    numbers = {"num_images": count, "accuracy": right.mean(),
               "heads": {"lost": of_heads.lost, "interval_95": of_heads.intervals},
               "blocks": {"lost": of_blocks.lost, "interval_95": of_blocks.intervals}}  # fmt: skip
    return Part("removal", finding, numbers, figures.draw_removal(of_heads, of_blocks))
