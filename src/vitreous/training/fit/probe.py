"""Model, images -> Familiarity: what training images look like, and the score that recognizes outliers best."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.label_sets import is_multilabel, set_numbers
from vitreous.data.loader import EvalLoader
from vitreous.data.pixels.store import MemoryStore, Store
from vitreous.model.vit import VisionTransformer
from vitreous.recipe.pace import LEAST_FAMILIAR, MOST_FAMILIAR
from vitreous.seeding import derive, permutation
from vitreous.tensors import Features, Logits, Pixels
from vitreous.training.fit.familiarity import FLAGGED, SCORES, Familiarity, head_inputs, unit_length

MOST_BYTES = 5_000_000
"""Size of the stored features; above a width of 1,250, it allows fewer training images."""
LEAST_IN_GROUP = 5
"""Training images that a class needs for a mean of its own; all smaller classes share one."""


def fit_familiarity(
    model: VisionTransformer,
    preprocess: Preprocess,
    stores: Mapping[str, Store],
    classes: Sequence[str],
    seed: int,
    share: float = 1.0,
) -> tuple[Familiarity, dict[str, Any]] | None:
    """Describe the training images, and choose the score whose worst AUROC against a kind of outliers is the best.

    `stores` are the images by split: `train`, and perhaps `val` and `test`. There is time for a `share` of them; see
    `recipe.pace.TimeLimit`.

    Returns:
        What `predict` needs, and a record for the report. None if there are fewer than `LEAST_FAMILIAR` validation
        images, or time for fewer.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    most = MOST_FAMILIAR | {"train": min(MOST_FAMILIAR["train"], MOST_BYTES // (2 * model.num_features))}
    counts = {split: int(share * min(len(store), most[split])) for split, store in stores.items()}
    if counts.get("val", 0) < LEAST_FAMILIAR:
        return None

    def see(store: Store, positions: NDArray[np.int64] | None = None) -> tuple[Features, Logits]:
        return head_inputs(model, (batch.images for batch in EvalLoader(store, preprocess, 256, chosen=positions)))

    drawn = {split: _drawn(store, counts[split], derive(seed, "familiar", split)) for split, store in stores.items()}
    seen = {split: see(store, drawn[split]) for split, store in stores.items()}
    labels, val = stores["train"].labels.cpu().numpy()[drawn["train"]], stores["val"]
    found = Familiarity(unit_length(seen["train"][0]).half(), _groups(labels), is_multilabel(labels))
    found = replace(found, shrinkage=float(ledoit_wolf_shrinkage(found.centered[0].numpy(), assume_centered=True)))
    some = val.take(_drawn(val, min(64, counts["val"]), derive(seed, "outliers"))).cpu()
    outliers = {
        kind: see(MemoryStore(pixels.to(val.device), val.labels[: len(pixels)]))
        for kind, pixels in make_outliers(some, classes, derive(seed, "outliers")).items()
    }
    known = {name: found.scores(name, *seen["val"]) for name in SCORES}
    auroc = {
        name: {kind: _auroc(known[name], found.scores(name, *o)) for kind, o in outliers.items()} for name in SCORES
    }
    best = max(SCORES, key=lambda name: (min(auroc[name].values()), sum(auroc[name].values())))
    found = replace(found, score=best, known=known[best])
    split = "test" if "test" in stores else "val"
    percentiles = found.unfamiliar(*seen[split])
    least = found.scores(best, *seen[split]).argsort(descending=True, stable=True)[:12].numpy()
    numbers = stores[split].source_indices[drawn[split][least]]
    return found, {
        "text": f"images unlike the training images are flagged by {SCORES[best]}: AUROC at least "
        f"{min(auroc[best].values()):.2f} against each of {len(outliers)} kinds of simple outliers",
        "score": best, "auroc": auroc, "split": split, "num_images": len(percentiles),
        "num_flagged": int((percentiles >= FLAGGED).sum()),
        "least_familiar": list(zip(numbers.tolist(), percentiles[least].tolist(), strict=True)),
    }  # fmt: skip


def _auroc(familiar: Tensor, unfamiliar: Tensor) -> float:
    from sklearn.metrics import roc_auc_score

    truth = [0] * len(familiar) + [1] * len(unfamiliar)
    return round(float(roc_auc_score(truth, torch.cat([familiar, unfamiliar]))), 4)


def _drawn(store: Store, num: int, seed: int) -> NDArray[np.int64]:
    """Return the positions of `num` images (2 at the least), each class or set of labels with its share of them."""
    order, num = permutation(seed, len(store)), min(len(store), max(2, num))
    order = order[np.argsort(set_numbers(store.labels.cpu().numpy())[order], kind="stable")]
    return np.sort(order[np.arange(num) * len(store) // num])


def _groups(labels: NDArray[Any]) -> Tensor:
    """Return the number of each image's class or set of labels, and -1 for those with few images."""
    _, numbers, counts = np.unique(set_numbers(labels), return_inverse=True, return_counts=True)
    return torch.from_numpy(np.where(counts[numbers] < LEAST_IN_GROUP, -1, numbers))


def make_outliers(familiar: Pixels, classes: Sequence[str], seed: int) -> dict[str, Pixels]:
    """Return kinds of outliers by name: of each kind the same number, size and channels as `familiar`.

    The familiar images, which are on the CPU, are blurred and shuffled for this. If the name of a class is a number,
    digits may be familiar, so they are left out.
    """
    from sklearn.datasets import load_digits, load_sample_images

    random, side, (num, channels, height, width) = np.random.default_rng(seed), 128, familiar.shape
    colors = torch.from_numpy(random.integers(256, size=(num, channels, 1, 1), dtype=np.uint8))
    order = torch.from_numpy(random.random((num, 1, height * width)).argsort(axis=2)).expand(-1, channels, -1)
    photos = torch.from_numpy(np.stack(load_sample_images().images)).movedim(3, 1)
    corners = random.integers(np.array(photos.shape[2:]) - side, size=(num, 2))
    squares = [photos[n % 2, :, y : y + side, x : x + side] for n, (y, x) in enumerate(corners.tolist())]
    digits = load_digits().images
    drawn = torch.from_numpy(digits[random.integers(len(digits), size=num)])[:, None] * (255 / digits.max())
    return {
        "noise": torch.from_numpy(random.integers(256, size=familiar.shape, dtype=np.uint8)),
        "plain colors": colors.expand(familiar.shape).contiguous(),
        "blurred images": _fitted(F.adaptive_avg_pool2d(familiar.float(), 4), familiar),
        "shuffled pixels": familiar.flatten(2).gather(2, order).view(familiar.shape),
        "photos of a temple and a flower": _fitted(torch.stack(squares), familiar),
    } | ({} if any(map(str.isdecimal, classes)) else {"handwritten digits": _fitted(drawn, familiar)})


def _fitted(images: Tensor, like: Pixels) -> Pixels:
    """Return images resized to the size and channels of others; gray for one channel, else channels are repeated."""
    channels, *size = like.shape[1:]
    resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    if channels == 1:
        resized = resized.mean(dim=1, keepdim=True)
    return resized[:, torch.arange(channels) % resized.shape[1]].round().clamp(0, 255).to(torch.uint8)
