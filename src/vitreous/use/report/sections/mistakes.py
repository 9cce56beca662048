"""Report input -> the mistakes as pictures: the most frequent, the most confident, and the least certain images."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitreous.data.label_sets import join_labels
from vitreous.use.evaluate.evaluation import Evaluation
from vitreous.use.evaluate.outputs import Outputs
from vitreous.use.html import markup
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural, shortened

MOST_PAIRS, PER_PAIR, PER_GROUP, MOST_EXPLAINED = 6, 3, 12, 16
CONFIDENT = 0.9

Positions = NDArray[np.int64]
Values = NDArray[np.float64]
Pair = tuple[str, str, int]


def mistakes_section(report: ReportInput) -> Section | None:
    """Show what the model gets wrong; without stored outputs, only which classes it confuses."""
    found, outputs = report.evaluation, report.held_out
    if found is None:
        return None
    pairs = [pair[:3] for pair in found.confused_most(MOST_PAIRS)] if isinstance(found, Evaluation) else []
    texts = [f"{shortened(a)} predicted as {shortened(b)} ({plural(count, 'image')})" for a, b, count in pairs]
    numbers: dict[str, Any] = {"sentence": f"most frequent mistake: {texts[0]}"} if texts else {}
    parts, advice = [markup.sentences(texts)], tuple[Advice, ...]()
    if outputs is not None and len(outputs) == len(report.names):
        worst, confidence = _worst(outputs)
        groups = _groups(outputs, worst, confidence, pairs)
        pictures, wrong = dict[int, list[str]](), set(worst.tolist())
        if report.pictures is not None and outputs.indices is not None:
            for position in dict.fromkeys(p for positions in groups.values() for p in positions.tolist()):
                is_explained = position in wrong and len(pictures) < MOST_EXPLAINED
                pictures[position] = report.pictures.uris(int(outputs.indices[position]), explained=is_explained)
        parts.insert(0, f"<p>{plural(len(worst), 'mistake')} among {plural(len(outputs), 'image')}.</p>")
        if any(len(uris) > 1 for uris in pictures.values()):
            parts.append("<p>Second picture: red raises the score of the predicted class, blue lowers it.</p>")
        for title, positions in groups.items():
            rows = {position: _row(report, outputs, position) for position in positions.tolist()}
            items = [_item(row, pictures.get(position, [])) for position, row in rows.items()]
            parts.append(f"<h3>{title}</h3>{markup.gallery(items, label=title) if items else '<p>None.</p>'}")
            numbers[title.lower().replace(" ", "_")] = list(rows.values())
        advice = tuple(_advice(report, int((confidence[worst] >= CONFIDENT).sum()), outputs))
    return Section("mistakes", "Mistakes", tuple(parts), numbers, advice)


def _groups(outputs: Outputs, worst: Positions, confidence: Values, pairs: Sequence[Pair]) -> dict[str, Positions]:
    """Return the positions of the images to show, by heading."""
    groups = {"Confident and wrong": worst[:PER_GROUP]}
    if outputs.thresholds is not None:
        return groups
    true, predicted = outputs.numbers[worst], outputs.predicted[worst]
    numbers = [(outputs.classes.index(a), outputs.classes.index(b)) for a, b, _ in pairs]
    frequent = [worst[(true == a) & (predicted == b)][:PER_PAIR] for a, b in numbers]
    uncertain = np.argsort(confidence, kind="stable")[:PER_GROUP]
    return {"Most frequent mistakes": np.concatenate([worst[:0], *frequent]), **groups, "Least certain": uncertain}


def _worst(outputs: Outputs) -> tuple[Positions, Values]:
    """Return the positions of mistakes, the most confident first; how confident the model is of each image.

    If images have several labels, that is the confidence of the worst decision.
    """
    confidence = outputs.probabilities.max(axis=1)
    if outputs.thresholds is None:
        wrong = outputs.predicted != outputs.numbers
    else:
        decided = outputs.probabilities >= np.array(outputs.thresholds)
        errors = decided != (outputs.true.numpy() > 0.5)
        of_decision = np.where(decided, outputs.probabilities, 1 - outputs.probabilities)
        wrong, confidence = errors.any(axis=1), np.where(errors, of_decision, 0).max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    return order[wrong[order]], confidence


def _item(row: dict[str, Any], uris: list[str]) -> str:
    shares = ", ".join(f"{markup.class_name(name)} {share:.1%}" for name, share in row["probabilities"].items())
    caption = f"<bdi>{escape(row['name'])}</bdi><br>true <b>{markup.class_name(row['true'])}</b><br>{shares}"
    data = f'data-true="{escape(shortened(row["true"]))}" data-predicted="{escape(shortened(row["predicted"]))}"'
    return markup.photo(zip(uris, (f"photo {row['name']}", "what decided its class"), strict=False), caption, data)


def _row(report: ReportInput, outputs: Outputs, position: int) -> dict[str, Any]:
    """Return what is shown of an image as plain values; of the probabilities, the largest three."""
    row, true, predicted = outputs.probabilities[position], outputs.true[position].numpy(), outputs.predicted[position]
    is_single = outputs.thresholds is None
    decided = [predicted] if is_single else np.flatnonzero(row >= np.array(outputs.thresholds))
    return {
        "name": report.names[position],
        "true": join_labels(outputs.classes[n] for n in ([int(true)] if is_single else np.flatnonzero(true))),
        "predicted": join_labels(outputs.classes[n] for n in decided),
        "probabilities": {outputs.classes[n]: float(row[n]) for n in np.argsort(-row, kind="stable")[:3]},
    }


def _advice(report: ReportInput, count: int, outputs: Outputs) -> Iterator[Advice]:
    if count and report.data and outputs.thresholds is None:
        text = f"{plural(count, 'image is', 'images are')} wrong with a probability of at least {CONFIDENT:.0%}; look "
        text += "at their labels, which may be wrong."
        yield Advice(text, f"vitreous inspect {report.run} --fix corrections.csv", count / len(outputs))
