"""Model, sample -> the parts of an anatomy that show images: a map, similar training images, patches of classes."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vitreous.data.label_sets import LabelArray, count_labels, is_multilabel, memberships
from vitreous.model.parts.tokenizer import ImageTokenizer
from vitreous.seeding import derive, permutation
from vitreous.training.fit.evaluate import are_right
from vitreous.training.folder.records import Listener
from vitreous.training.load import progress_to
from vitreous.use.embed.embeddings import unit
from vitreous.use.explain.anatomy import figures
from vitreous.use.explain.anatomy.parts import Part
from vitreous.use.explain.anatomy.space import principal_map, same_class_share, tsne_map
from vitreous.use.explain.anatomy.tokens import Observed
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures.contact_sheet import Strip, draw_sheet, scaled
from vitreous.use.explain.relevance import positive_shares
from vitreous.use.explain.sample import Positions, Sample
from vitreous.wording import listed, plural, printable

_MOST_CLASSES, _MOST_PATCHES = 20, 8
_NUM_QUERIES, _NUM_NEAREST = 8, 6
_SIDE_PX, _OUTLINE = 120, "#ff2d95"


class ImportantPatch(NamedTuple):
    """The most relevant patch of an image: its row and column, and its share of the relevance, in [0, 1]."""

    image: int
    row: int
    column: int
    share: float

    def crop(self, picture: NDArray[np.uint8], tokenizer: ImageTokenizer, side_px: int) -> Image.Image:
        """Return what the token sees, outlined, with its eight neighbors; white beyond the border of the image."""
        patch_size = tokenizer.patch_size
        margin = round((1.5 - tokenizer.token_center) * patch_size)
        padded = np.pad(picture, ((margin, patch_size), (margin, patch_size), (0, 0)), constant_values=255)
        top, left = self.row * patch_size, self.column * patch_size
        crop = scaled(Image.fromarray(padded[top : top + 3 * patch_size, left : left + 3 * patch_size]), side_px)
        corners = (side_px // 3, side_px // 3, 2 * side_px // 3, 2 * side_px // 3)
        ImageDraw.Draw(crop).rectangle(corners, outline=_OUTLINE, width=2)
        return crop


def of_map(seen: Observed, sample: Sample) -> Part:
    """Lay the images out by their features."""
    features = seen.features[:, -1]
    points, shares = principal_map(features)
    tsne = tsne_map(features)
    maps = {f"principal components ({shares.sum():.0%} of the variance)": points}
    share = same_class_share(features, sample.labels)
    finding = f"for {share:.1%} of {plural(len(sample), 'image')}, the most similar other one has the same label"
    numbers = {"same_class_share": share, "images": sample.paths, "principal_components": points}
    if isinstance(tsne, str):
        finding += f"; {tsne}"
    else:
        maps["t-SNE"] = numbers["tsne"] = tsne
    pictures = sample.pictures(sample.positions)
    return Part("map", finding, numbers, figures.draw_map(maps, pictures, sample.labels, sample.classes))


def of_nearest(seen: Observed, sample: Sample, train: Sample | str, listener: Listener) -> Part:
    """Show the training images that are most similar to some images, first those with the most confident mistakes."""
    if isinstance(train, str):
        return Part("nearest", train)
    queries, predictions = _queries(seen, sample), _predicted(seen, sample)
    with torch.inference_mode():
        pooled = train.in_batches(train.model.pooled, progress_to(listener, "computing features"))
    similarity = unit(seen.features[queries, -1]) @ unit(torch.cat(pooled).float().cpu().numpy()).T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :_NUM_NEAREST]
    cosines = np.take_along_axis(similarity, rows, axis=1)
    strips, numbers = [], []
    for query, near, similar in zip(queries.tolist(), rows, cosines, strict=True):
        true, predicted = (_name(labels, query, sample.classes) for labels in (sample.labels, predictions))
        names = [_name(train.labels, int(row), sample.classes) for row in near]
        pictures = [*sample.pictures(np.array([query])), *train.pictures(near)]
        captions = [
            "held out",
            *(f"{cosine:.2f} {printable(name)}" for cosine, name in zip(similar, names, strict=True)),
        ]
        title = printable(true) if predicted == true else f"{printable(true)}, predicted {printable(predicted)}"
        strips.append(Strip(title, [scaled(Image.fromarray(picture), _SIDE_PX) for picture in pictures], captions))
        numbers.append({"image": sample.paths[query], "true": true, "predicted": predicted, "cosine": similar,
                        "nearest": [train.paths[row] for row in near], "labels": names})  # fmt: skip
    pool = plural(train.total, "training image")
    pool = pool if len(train) == train.total else f"{len(train):,} of {pool}"
    finding = (
        f"the {plural(rows.shape[1], 'most similar image')} among {pool} for each of "
        f"{plural(len(queries), 'held-out image')}, the most confident mistakes first"
    )
    return Part("nearest", finding, {"queries": numbers}, draw_sheet(strips, _SIDE_PX))


def of_classes(sample: Sample, listener: Listener) -> Part:
    """Show, for each class, the most relevant patches over all of its images."""
    found = patches_by_class(sample, most=_MOST_PATCHES, most_images=2 * len(sample), listener=listener)
    if not found:
        return Part("classes", "no image of the sample has a label")
    model, classes = sample.model, sample.classes
    counts = count_labels(sample.labels, len(classes))
    largest = sorted(sorted(found, key=lambda number: -counts[number])[:_MOST_CLASSES])
    strips, numbers = [], {}
    for number in largest:
        patches = found[number]
        pictures = sample.pictures(np.array([patch.image for patch in patches]))
        of_pictures = zip(pictures, patches, strict=True)
        crops = [patch.crop(picture, model.tokenizer, _SIDE_PX) for picture, patch in of_pictures]
        strips.append(Strip(printable(classes[number]), crops, [f"{patch.share:.0%}" for patch in patches]))
        numbers[classes[number]] = [patch._asdict() | {"image": sample.paths[patch.image]} for patch in patches]
    mean = np.mean([patch.share for patches in found.values() for patch in patches])
    finding = (
        f"the patches shown have {mean:.0%} of the relevance of their image on average; an equal share would be "
        f"{1 / model.config.num_patches:.1%}"
    )
    return Part("classes", finding, numbers, draw_sheet(strips, _SIDE_PX))


def important_patches(
    values: Float[np.ndarray, "images rows columns"], images: Positions, most: int
) -> list[ImportantPatch]:
    """Return the most relevant patch of each image, in order of its share of the relevance, at most `most`.

    Relevance of different images cannot be compared, so its share in the image is. Values below 0 do not count.
    """
    shares = positive_shares(values).reshape(len(values), -1)
    best = shares.argmax(axis=1)
    order = np.argsort(-shares.max(axis=1), kind="stable")[:most]
    rows, columns = np.unravel_index(best, values.shape[1:])
    return [
        ImportantPatch(int(images[i]), int(rows[i]), int(columns[i]), float(shares[i, best[i]])) for i in order.tolist()
    ]


def patches_by_class(
    sample: Sample, *, most: int, most_images: int, listener: Listener
) -> dict[int, list[ImportantPatch]]:
    """Explain the score of each class on its images by the default method, and return its most relevant patches.

    An image with several labels is explained for each of them. A class has at most `most` patches. If there are more
    than `most_images` explanations to compute, some are drawn by a seed.
    """
    images, classes = memberships(sample.labels)
    drawn = np.sort(permutation(derive(0, "important"), len(images))[:most_images])
    images, classes = images[drawn], classes[drawn]
    values = sample.explained(METHODS[DEFAULT], classes, images, progress_to(listener, "explaining classes"))
    return {
        int(number): important_patches(values[classes == number], images[classes == number], most)
        for number in np.unique(classes)
    }


def _queries(seen: Observed, sample: Sample) -> Positions:
    """Return the positions of some images: mistakes first, up to half, beginning with the most confident."""
    logits = torch.from_numpy(seen.logits)
    right = are_right(logits - sample.predictor.logit_thresholds, sample.targets(sample.positions).cpu()).numpy()
    confidence = (logits.sigmoid() if is_multilabel(sample.labels) else logits.softmax(dim=1)).amax(dim=1).numpy()
    order = np.argsort(-confidence, kind="stable")
    wrong = order[~right[order]][: _NUM_QUERIES // 2]
    others = np.flatnonzero(right)
    spread = np.linspace(0, len(others) - 1, min(len(others), _NUM_QUERIES - len(wrong))).round().astype(np.int64)
    return np.concatenate([wrong, others[spread]])


def _predicted(seen: Observed, sample: Sample) -> LabelArray:
    if is_multilabel(sample.labels):
        return seen.logits > np.asarray(sample.predictor.logit_thresholds)
    return seen.logits.argmax(axis=1)


def _name(labels: LabelArray, position: int, classes: tuple[str, ...]) -> str:
    if is_multilabel(labels):
        return listed([classes[number] for number in np.flatnonzero(labels[position])]) or "no label"
    return classes[labels[position]]
