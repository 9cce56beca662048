"""Run, perhaps on corrected data -> the section on what was corrected and what that changed, or on labels to check."""

from collections import Counter
from pathlib import Path
from typing import Any

from vitreous.data.corrections import ACTIONS, merges, read_corrections
from vitreous.data.doctor.mislabeled import find_doubtful_labels
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.paired import paired_interval
from vitreous.use.html import markup
from vitreous.use.predict.table import read_held_out
from vitreous.use.report.section import Advice, ReportInput, Section
from vitreous.wording import plural


def corrections_section(report: ReportInput) -> Section | None:
    """Show the corrections and their effect on the same test images; without any, advise to check doubtful labels."""
    held_out, file = report.held_out, report.folder.corrections
    said, numbers, advice = list[str](), dict[str, Any](), list[Advice]()
    if file.is_file():
        rows = read_corrections(file).values()
        numbers["rows"] = counts = Counter(row.action for row in rows)
        said = [f"{action}: {plural(counts[action], 'row')}" for action in ACTIONS if counts[action]]
        pretrained = report.config.train.pretrained
        earlier = RunFolder(Path(pretrained or ""))
        is_run = pretrained is not None and earlier.config.is_file() and earlier.predictions.is_file()
        is_other = is_run and not earlier.corrections.is_file()
        before = {row.path: row.predicted for row in read_held_out(earlier.predictions)} if is_other else {}
        after = [row for row in read_held_out(report.folder.predictions) if row.path in before] if before else []
        merged = merges(rows)
        change = [(r.predicted == r.true) - (merged.get(before[r.path], before[r.path]) == r.true) for r in after]
        if change:
            difference, (low, high) = sum(change) / len(change), paired_interval(change)
            numbers |= {"earlier": str(earlier.path), "difference": difference, "interval_95": (low, high)}
            points = f"{100 * difference:+.1f} points (95% interval {100 * low:+.1f} to {100 * high:+.1f})"
            images = f"{plural(len(change), 'test image')} of {earlier.path}"
            said.append(f"Accuracy on the {images}, with the corrected labels: {points}")
        else:
            text = "Compare with a run on the data as it was, on the same images."
            advice.append(Advice(text, f"vitreous compare OLD {report.run}", 0.0))
    elif held_out is not None and held_out.thresholds is None:
        doubts = find_doubtful_labels(held_out.probabilities, held_out.numbers, are_probabilities=True)
        gain = len(doubts.positions) / len(held_out)
        text = f"Check the labels: {len(doubts.positions):,} of {plural(len(held_out), 'image')} may be mislabeled."
        advice += [Advice(text, f"vitreous inspect {report.run} --fix corrections.csv", gain)] if gain else []
    found = Section("corrections", "Corrections of the data", (markup.sentences(said),), numbers, tuple(advice))
    return found if said or advice else None
