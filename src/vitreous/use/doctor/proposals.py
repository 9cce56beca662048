"""DataReport -> a file of proposed corrections, for the user to edit and for `data.corrections`."""

from pathlib import Path

from vitreous.data.corrections import ACTIONS, Correction, write_corrections
from vitreous.data.doctor.mislabeled import CONFUSED
from vitreous.data.sources import Source
from vitreous.errors import ConfigError
from vitreous.use.doctor.examiner import DataReport
from vitreous.use.predict.table import check_table_path


def check_fix_path(path: Path) -> None:
    """Raise ConfigError if corrections cannot be written to `path`, before images are decoded for minutes."""
    check_table_path(path, (".csv",), "corrections.csv", "fix")
    if path.exists():
        raise ConfigError(f"fix={path}: exists, and may have been edited; choose another name, or remove it")


def check_correctable(path: Path, source: Source) -> None:
    """Raise ConfigError if the labels of data cannot be corrected in a file, before images are decoded for minutes."""
    if source.is_multilabel:
        raise ConfigError(f"fix={path}: several labels per image cannot be corrected in a file; leave it out")


def write_proposals(path: Path, report: DataReport) -> None:
    """Write the corrections that were applied to the data, then proposals. Raises ConfigError or SaveError."""
    check_fix_path(path)
    source = report.survey.source
    earlier = {row[:2] for row in source.corrections}
    write_corrections(path, [*source.corrections, *(row for row in propose(report) if row[:2] not in earlier)])


def propose(report: DataReport) -> list[Correction]:
    """Return at most one correction per image or class, sorted by action, then the most probable first."""
    source, doubts, found = report.survey.source, report.examination.doubts, dict[str, Correction]()
    given = source.uncorrected or source

    def add(index: int, action: str, to: str, reason: str, confidence: str = "") -> None:
        key, label = source.key(index), given.classes[given.labels[index]]
        found.setdefault(key, Correction(key, label, action, to, reason, confidence))

    indices = report.examination.summaries.indices[doubts.positions].tolist()
    for index, label, probability in zip(indices, doubts.likely_classes, doubts.probabilities, strict=True):
        name = source.classes[label]
        action = "relabel" if name in given.classes else "relabel:new"
        add(index, action, name, f"looks like {name}", f"{probability:.2f}")
    for finding in report.examination.findings:
        for group in finding.samples if finding.kind in ("copies-across-splits", "exact-copies") else ():
            kept, *others = sorted(group, key=lambda sample: sample.split != "train")
            action = "drop" if finding.kind == "exact-copies" else "split:train"
            for sample in (other for other in others if action == "drop" or other.split != "train"):
                add(sample.index, action, "", f"a copy of {source.key(kept.index)}")
    for pair in doubts.confused:
        less, more = (source.classes[label] for label in sorted(pair, key=report.survey.facts.class_counts.__getitem__))
        reason = f"at least {CONFUSED:.0%} of the images of each are predicted as the other"
        found[f"merge {less}"] = Correction("", less, "merge", more, reason)
    return sorted(found.values(), key=lambda row: (ACTIONS.index(row.action), -float(row.confidence or 0)))
