"""Run folder -> `report.html`, one page with all sections; `report.json` with the same numbers; the model card."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from math import inf
from pathlib import Path

from vitreous import atomic
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.data.sources import Source
from vitreous.model.weights import read_metadata
from vitreous.recipe.files import read_config
from vitreous.tensor_file import parsing
from vitreous.training.folder.records import read_records
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.use.evaluate.evaluation import scored_split
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.evaluate.stored import stored_evaluation
from vitreous.use.html import markup
from vitreous.use.predict.classes import check_has_classes
from vitreous.use.report.model_card import write_model_card
from vitreous.use.report.photos import Pictures, find_images
from vitreous.use.report.section import ReportInput, Section, SectionOf, advice_list
from vitreous.use.report.sections.calibration import calibration_section
from vitreous.use.report.sections.classes import classes_section
from vitreous.use.report.sections.corrections import corrections_section
from vitreous.use.report.sections.data import data_section
from vitreous.use.report.sections.exported import exported_section
from vitreous.use.report.sections.looks import looks_section
from vitreous.use.report.sections.mistakes import mistakes_section
from vitreous.use.report.sections.reproduce import reproduce_section
from vitreous.use.report.sections.robustness import robustness_section
from vitreous.use.report.sections.sets import rejecting_section, sets_section
from vitreous.use.report.sections.shortcuts import shortcuts_section
from vitreous.use.report.sections.slices import slices_section
from vitreous.use.report.sections.training import training_section
from vitreous.use.report.sections.try_it import try_it_section
from vitreous.use.report.sections.unfamiliar import unfamiliar_section
from vitreous.use.report.sections.verdict import verdict_section
from vitreous.use.series.page import write_summary
from vitreous.wording import plural

SECTIONS: tuple[SectionOf, ...] = (
    mistakes_section,
    classes_section,
    calibration_section,
    sets_section,
    rejecting_section,
    unfamiliar_section,
    robustness_section,
    slices_section,
    looks_section,
    shortcuts_section,
    try_it_section,
    exported_section,
    training_section,
    data_section,
    corrections_section,
    reproduce_section,
)
"""In the order of the page, after the verdict, which needs all others."""
MOST_BYTES = 5_000_000
"""Size of a page; pictures are left out before it becomes larger."""
_PICTURE_BYTES = 1_500_000
"""Size of all pictures together; explanations are made until it is reached."""
_MEASURED_S = 2.0
"""Seconds that one measurement may take at the end of a run with a time budget."""
_PICTURE = re.compile('<img src="data:[^>]*>')


def write_report(
    folder: RunFolder,
    *,
    source: Source | None = None,
    no_photos: bool | None = None,
    out: Path | None = None,
    ends_training: bool = False,
) -> None:
    """Write the report of a finished run, its numbers next to it, and the model card.

    Args:
        folder: The run.
        source: Its data, if the caller has it; None opens the data again.
        no_photos: Leave out photos; None: if they were left out of the present report.
        out: Where to write the page; None for `report.html` in the run folder, with the model card.
        ends_training: The time budget of the run applies, if it has one, so what takes long is measured in part.

    Raises:
        NotARunError: The run is not finished.
        DamagedFileError: A file of the run was altered.
        SaveError: The report could not be written.
    """
    if ends_training and "pretraining" in read_metadata(folder.model):
        return  # there are no classes to report on
    page_file = out or folder.report
    no_photos = _has_no_photos(folder) if no_photos is None else no_photos
    with parsing(folder.records, "restore the file, or train again"):
        report = _read(folder, source, no_photos=no_photos, ends_training=ends_training)
        sections = [section for make in SECTIONS if (section := make(report)) is not None]
        sections = [verdict_section(report, sections), *sections]
        page = _page(report, sections)
        if (excess := len(page.encode()) - MOST_BYTES) > 0:
            page = _page(report, *_without_pictures(sections, excess))
    numbers = atomic.plain({section.name: section.numbers for section in sections})
    content = {"version": 1, "run": folder.path.resolve().name, "no_photos": no_photos, "sections": numbers}
    atomic.write_json(page_file.with_suffix(".json"), content)
    atomic.write_text(page_file, page)
    if page_file == folder.report:
        write_model_card(report, sections[0])


def complete(run: RunFolder, source: Source | None = None) -> None:
    """Write the report of a finished run of a series if it is missing, and update the summary of the series."""
    if not run.report.exists():
        write_report(run, source=source, ends_training=True)
    write_summary(SeriesFolder(run.path.parent))


def _has_no_photos(folder: RunFolder) -> bool:
    """Return True if photos were left out of the present report, so that an update does not add them."""
    numbers = folder.report.with_suffix(".json")
    with parsing(numbers, "delete it, and repeat `vitreous report`"):
        return numbers.is_file() and bool(json.loads(numbers.read_text("utf-8"))["no_photos"])


def _read(folder: RunFolder, source: Source | None, *, no_photos: bool, ends_training: bool) -> ReportInput:
    metadata, config, records = read_metadata(folder.model), read_config(folder.config), read_records(folder.records)
    check_has_classes(metadata, folder.model)
    split, outputs = scored_split(metadata["metrics"]), outputs_of_run(folder)
    evaluation = None if split is None else stored_evaluation(folder, metadata, split)
    images = "they were left out" if no_photos else find_images(folder, config.data, outputs, source)
    pictures, reason = None, str(images)
    if not isinstance(images, str):
        scale = Preprocess.from_dict(metadata["preprocess"]).scale
        pictures, reason = Pictures(folder, images, scale, _PICTURE_BYTES), ""
    limit_s = _MEASURED_S if ends_training and config.train.budget_s else inf
    return ReportInput(folder, config, metadata, records, evaluation, outputs, pictures, reason, limit_s=limit_s)


def _without_pictures(sections: Sequence[Section], excess: int) -> tuple[list[Section], int]:
    """Drop pictures of at least `excess` bytes, always the last one of the section with the most bytes; count them."""
    texts = ["".join(section.parts) for section in sections]
    found = [_PICTURE.findall(text) for text in texts]
    count = sum(map(len, found))
    while excess > 0 and any(found):
        largest = max(range(len(found)), key=lambda number: sum(map(len, found[number])))
        picture = found[largest].pop()
        before, _, after = texts[largest].rpartition(picture)
        texts[largest], excess = before + after, excess - len(picture.encode())
    smaller = [replace(section, parts=(text,)) for section, text in zip(sections, texts, strict=True)]
    return smaller, count - sum(map(len, found))


def _page(report: ReportInput, sections: Sequence[Section], num_dropped: int = 0) -> str:
    count = sum(len(_PICTURE.findall(part)) for section in sections for part in section.parts)
    text = f"This page contains {plural(count, 'small picture')} of the photos and their names; "
    text += f"`vitreous report {report.run} --no-photos` leaves the pictures out."
    if num_dropped:
        text += f" Left out to keep the page below {MOST_BYTES / 1e6:g} MB: {plural(num_dropped, 'picture')}."
    if report.pictures is None:
        text = f"This page contains no photos: {report.no_photos}."
    parts = [
        f'<section id="{each.name}" aria-label="{escape(each.title)}"><h2>{escape(each.title)}</h2>'
        f"{''.join(each.parts)}{advice_list(each.advice)}</section>"
        for each in sections
    ]
    return markup.page(
        report.folder.path.resolve().name,
        [*parts, f'<p class="faint">{escape(text)} It loads nothing from the network.</p>'],
        "".join(section.style for section in sections),
        script="".join(section.script for section in sections),
        links=[(section.name, section.title) for section in sections],
    )
