"""Pretrained model -> the block and the pool whose features suit the images best, and the model that ends there.

The last blocks of a backbone suit what it was trained for, and its class token describes the whole image. For other
images, patches after an earlier block are often better: on 3,068 photos of clothes at 126 px, discriminant analysis on
features of a ViT-S/14 gets 81.5% with the class token and 85.6% with the mean of the patches after block 9 of 12; on
1,477 photos of hand signs, 89.1% and 94.0% with both side by side (`benchmarks/pools.py`).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitreous.data.label_sets import label_pairs
from vitreous.data.loader import Batch
from vitreous.data.survey.folds import family_folds
from vitreous.model.build import build_model
from vitreous.model.config.model_config import PoolKind
from vitreous.model.parts.encoder import Encoder
from vitreous.model.parts.relation import NO_RELATION
from vitreous.model.vit import VisionTransformer
from vitreous.tensors import Features, Images, Tokens
from vitreous.training.machine.device import autocast

SHARES = (5 / 6, 3 / 4, 2 / 3)
"""Shares of the blocks after which features are compared with those of the whole model."""
_MOST_COMPARED = 1_000
"""Views are compared on the first images only; the others go no further than the best view, which takes less time."""
_NUM_FOLDS = 3


@dataclass(frozen=True)
class View:
    """Where features are taken.

    Attributes:
        depth: Number of blocks that run.
        pool: How the tokens after them become a vector.
    """

    depth: int
    pool: PoolKind


def own_view(model: VisionTransformer) -> View:
    """Return the view of the whole model."""
    return View(model.config.depth, model.config.pool)


def views_of(model: VisionTransformer, depths: Iterable[int] | None = None) -> list[View]:
    """Return the views to compare, the model's own first; only that one for a model that cannot end earlier.

    Others end after the blocks that `depths` counts; None selects those of `SHARES`. Merged tokens are not supported.
    """
    config, own = model.config, own_view(model)
    pools: list[PoolKind] = ["mean", "token_mean"] if config.has_class_token else ["mean"]
    if type(model.encoder) is not Encoder or config.distill_token or config.fc_norm or config.pool == "map":
        return [own]
    if depths is None:
        depths = sorted({math.ceil(share * config.depth) for share in SHARES} - {config.depth}, reverse=True)
    return [own, *(View(depth, pool) for depth in depths for pool in pools)]


@torch.no_grad()
def compute_views(
    model: VisionTransformer, images: Images, precision: str, views: Iterable[View]
) -> dict[View, Features]:
    """Return the features of each view, float32, from one pass that ends after the last block that a view needs."""
    views, own = list(views), own_view(model)
    with autocast(images.device, precision):
        if views == [own]:
            return {own: model.pooled(images).float()}
        tokens, relations = model.embed(images)
        tokens, found = model.encoder.norm_pre(tokens), dict[View, Features]()
        for number, block in enumerate(model.encoder.blocks[: max(view.depth for view in views)]):
            tokens = block(tokens, relations[number] if relations else NO_RELATION)
            for view in views:
                if view.depth == number + 1 and view != own:
                    found[view] = pooled(model, tokens, view.pool).float()
        if own in views:
            found[own] = model.fc_norm(model.pool(model.encoder.norm(tokens))).float()
    return {view: found[view] for view in views}


@torch.no_grad()
def compare_views(
    model: VisionTransformer,
    batches: Iterable[Batch],
    precision: str,
    views: Sequence[View],
    families: NDArray[np.int64],
    *,
    keeps_own: bool,
    is_late: Callable[[int], bool],
) -> tuple[dict[View, Features], Tensor]:
    """Return the features of the best view for each image, and of the model's own if `keeps_own`, and the labels.

    Images come in random order, with their `families` as in `Survey.families`, and the model's own view comes first.
    `is_late` takes the number of images seen, and says whether to leave out the rest of them.
    """
    model.eval()
    found: dict[View, list[Tensor]] = {view: [] for view in views}
    labels, num_seen = list[Tensor](), 0
    for batch in batches:
        for view, part in compute_views(model, batch.images, precision, found).items():
            found[view].append(part)
        labels.append(batch.labels)
        num_seen += len(batch.labels)
        if num_seen >= _MOST_COMPARED:
            found = _kept(found, labels, families, keeps_own=keeps_own)
        if is_late(num_seen):
            break
    found = _kept(found, labels, families, keeps_own=keeps_own)
    return {view: torch.cat(parts) for view, parts in found.items()}, torch.cat(labels)


def _kept(
    found: dict[View, list[Tensor]], labels: Sequence[Tensor], families: NDArray[np.int64], *, keeps_own: bool
) -> dict[View, list[Tensor]]:
    """Return the parts of the best view, and of the first one if `keeps_own`."""
    if len(found) <= 1 + keeps_own:
        return found
    own = next(iter(found))
    best = choose_view({view: torch.cat(parts) for view, parts in found.items()}, torch.cat(list(labels)), families)
    return {view: parts for view, parts in found.items() if view == best or (keeps_own and view == own)}


def pooled(model: VisionTransformer, tokens: Tokens, pool: PoolKind) -> Tensor:
    """Return the features for tokens after some block: normalized, then averaged over patches, `[images, features]`."""
    tokens = model.encoder.norm(tokens)
    mean = tokens[:, model.num_prefix_tokens :].mean(dim=1)
    return torch.cat([tokens[:, 0], mean], dim=1) if pool == "token_mean" else mean


def choose_view(features: Mapping[View, Features], labels: Tensor, families: NDArray[np.int64]) -> View:
    """Return the view with the best cross-validated discriminant analysis of up to `_MOST_COMPARED` images.

    The first view is kept unless another one is better. Both side by side have twice the width, which takes four times
    as long, so they are compared only for the number of blocks whose mean is the best.
    """
    own, *others = features
    accuracy = {own: _accuracy(features[own], labels, families)}
    for view in (view for view in others if view.pool == "mean"):
        accuracy[view] = _accuracy(features[view], labels, families)
    best = max(accuracy, key=accuracy.__getitem__)
    both = View(best.depth, "token_mean")
    if both in features and both not in accuracy:
        accuracy[both] = _accuracy(features[both], labels, families)
    return max(accuracy, key=accuracy.__getitem__)


def _accuracy(features: Features, labels: Tensor, families: NDArray[np.int64]) -> float:
    """Return the cross-validated accuracy, from classes with a family for each fold; 0 if there are none."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.model_selection import cross_val_score

    inputs, targets = features[:_MOST_COMPARED].double().cpu().numpy(), labels[:_MOST_COMPARED].cpu().numpy()
    families = families[: len(targets)]
    kept = np.bincount(label_pairs(targets, families)[0])[targets] >= _NUM_FOLDS
    folds = family_folds(targets[kept], families[kept], _NUM_FOLDS)
    classifier = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    return float(cross_val_score(classifier, inputs[kept], targets[kept], cv=folds).mean()) if folds else 0.0


@torch.no_grad()
def ending_at(model: VisionTransformer, view: View) -> VisionTransformer:
    """Return a model of its own that ends at a view, with a new head, in evaluation mode on the same device."""
    config = replace(model.config, depth=view.depth, pool=view.pool, class_token=model.config.has_class_token)
    shorter, state = build_model(config, device=next(model.parameters()).device), model.state_dict()
    for name, tensor in shorter.state_dict().items():
        if not name.startswith("head."):  # tables of relative positions have a row for each block
            tensor.copy_(state[name][: len(tensor)] if name.startswith("relation.") else state[name])
    return shorter.eval()
