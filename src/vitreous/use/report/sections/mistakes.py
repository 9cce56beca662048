"""Report input -> the mistakes as pictures: the worst confusions, the confident mistakes, the least certain images."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import join_labels
from vitreous.use import markup
from vitreous.use.doctor.pictures import data_uri
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural, shortened

_MOST_PAIRS, _PER_PAIR, _PER_GROUP, _MOST_EXPLAINED, _SIDE_PX = 6, 3, 12, 16, 160
_CONFIDENT = 0.9

Positions = NDArray[np.int64]
Values = NDArray[np.float64]
Pair = tuple[str, str, int]


def mistakes_section(report: ReportInput) -> Section | None:
    """Show what the model gets wrong; without stored outputs, only which classes it confuses."""
    found, outputs = report.evaluation, report.held_out
    if found is None:
        return None
    pairs = found.confused_most(_MOST_PAIRS) if isinstance(found, Evaluation) else []
    texts = [f"{shortened(a)} predicted as {shortened(b)}: {plural(count, 'image')}" for a, b, count in pairs]
    numbers: dict[str, Any] = {"confused": [{"true": a, "predicted": b, "images": n} for a, b, n in pairs]}
    if outputs is None or len(outputs) != len(report.names):
        return Section("mistakes", "Mistakes", (markup.sentences(texts) or "<p>None.</p>",), numbers)
    wrong, confidence = _wrong(outputs)
    by_confidence = np.argsort(-confidence, kind="stable")
    worst = by_confidence[wrong[by_confidence]]
    groups = _groups(outputs, worst, confidence, pairs)
    pictures = _pictures(report, outputs, np.unique(np.concatenate([worst[:0], *groups.values()])), worst)
    counted = f"<p>{plural(len(worst), 'mistake')} among {plural(len(outputs), 'image')}.</p>"
    parts = [counted, markup.sentences(texts)]
    if report.overlays is not None and any(len(shown) > 1 for shown in pictures.values()):
        parts.append('<p class="faint">Second picture: red patches raise the score of the predicted class, blue ones '
                     "lower it.</p>")  # fmt: skip
    for title, positions in groups.items():
        items = [_item(report, outputs, int(position), pictures[int(position)]) for position in positions]
        parts.append(f'<h3>{title}</h3><ul class="photos gallery" aria-label="{title}">{"".join(items)}</ul>')
        numbers[title.lower().replace(" ", "_")] = [_as_dict(report, outputs, int(p)) for p in positions]
    return Section(
        "mistakes", "Mistakes", tuple(parts), numbers, tuple(_advice(report, confidence[worst], len(outputs)))
    )


def _wrong(outputs: Outputs) -> tuple[NDArray[np.bool_], Values]:
    """Return which images are wrong, and how confident the model is of its decision, the worst one of several."""
    probabilities = outputs.probabilities
    if outputs.thresholds is None:
        return outputs.predicted != outputs.numbers, probabilities.max(axis=1)
    decided = probabilities >= np.array(outputs.thresholds)
    errors = decided != (outputs.true.numpy() > 0.5)
    return errors.any(axis=1), np.where(errors, np.where(decided, probabilities, 1 - probabilities), 0).max(axis=1)


def _groups(outputs: Outputs, worst: Positions, confidence: Values, pairs: Sequence[Pair]) -> dict[str, Positions]:
    """Return the positions of the images to show, by heading; headings without images are left out.

    Args:
        outputs: What the model gives for all images.
        worst: The positions of the mistakes, the most confident first.
        confidence: Confidence of each decision.
        pairs: The most frequent mistakes.
    """
    groups = {"Confident and wrong": worst[:_PER_GROUP]}
    if outputs.thresholds is None:
        frequent = [worst[:0]]
        for true, predicted, _ in pairs:
            numbers = outputs.classes.index(true), outputs.classes.index(predicted)
            of_pair = (outputs.numbers[worst] == numbers[0]) & (outputs.predicted[worst] == numbers[1])
            frequent.append(worst[of_pair][:_PER_PAIR])
        uncertain = np.argsort(confidence, kind="stable")[:_PER_GROUP]
        groups = {"Most frequent mistakes": np.concatenate(frequent), **groups, "Least certain": uncertain}
    return {title: positions for title, positions in groups.items() if len(positions)}


def _pictures(report: ReportInput, outputs: Outputs, shown: Positions, worst: Positions) -> dict[int, list[str]]:
    """Return the photo of each shown image, and its explanation for some mistakes, as data URIs."""
    found: dict[int, list[str]] = {int(position): [] for position in shown}
    for maker, chosen in ((report.photos, shown), (report.overlays, worst[np.isin(worst, shown)][:_MOST_EXPLAINED])):
        positions = [int(p) for p in chosen if maker is report.photos or found[int(p)]]
        if maker is not None and outputs.indices is not None:
            pictures = maker(outputs.indices[positions].tolist(), _SIDE_PX)
            for position, picture in zip(positions, pictures, strict=True):
                found[position] += [] if picture is None else [data_uri(picture)]
    return found


def _item(report: ReportInput, outputs: Outputs, position: int, pictures: list[str]) -> str:
    row = _as_dict(report, outputs, position)
    alternatives = (f"photo {row['name']}", "what decided the prediction")
    images = "".join(f'<img src="{uri}" alt="{escape(alt)}">' for uri, alt in zip(pictures, alternatives, strict=False))
    shares = ", ".join(f"{markup.class_name(name)} {share:.1%}" for name, share in row["probabilities"].items())
    texts = [f"<bdi>{escape(row['name'])}</bdi>", f"true <b>{markup.class_name(row['true'])}</b>", shares]
    data = f'data-true="{escape(shortened(row["true"]))}" data-predicted="{escape(shortened(row["predicted"]))}"'
    pair = ' class="pair"' if len(pictures) > 1 else ""
    return f"<li {data}{pair}><figure>{images}<figcaption>{'<br>'.join(texts)}</figcaption></figure></li>"


def _as_dict(report: ReportInput, outputs: Outputs, position: int) -> dict[str, Any]:
    """Return what is shown of an image as plain values; of the probabilities, the largest three."""
    row, true = outputs.probabilities[position], outputs.true[position].numpy()
    numbers = [int(true)] if outputs.thresholds is None else np.flatnonzero(true)
    decided = [int(row.argmax())] if outputs.thresholds is None else np.flatnonzero(row >= np.array(outputs.thresholds))
    return {
        "name": report.names[position],
        "true": join_labels(outputs.classes[n] for n in numbers),
        "predicted": join_labels(outputs.classes[n] for n in decided),
        "probabilities": {outputs.classes[n]: float(row[n]) for n in np.argsort(-row, kind="stable")[:3]},
    }


def _advice(report: ReportInput, confidence: Values, num_images: int) -> Iterator[Advice]:
    """Advise to look at the labels of the mistakes with the largest probabilities."""
    count = int((confidence >= _CONFIDENT).sum())
    if count and report.data:
        text = f"{plural(count, 'image is', 'images are')} wrong with a probability of at least {_CONFIDENT:.0%}: "
        text += "look at their labels, which may be wrong."
        yield Advice(text, f"vitreous inspect {report.data} --pretrained {report.run}", count / num_images)
