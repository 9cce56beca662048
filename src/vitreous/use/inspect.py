"""Run, weights, data set or name of a model -> Inspection: what it is, as text and as JSON."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch

from vitreous.data.doctor.findings import Finding
from vitreous.data.sources import known_sets, open_source
from vitreous.data.sources.annotations import is_export_name
from vitreous.data.sources.huggingface import DATA_PREFIX
from vitreous.data.sources.image_files import is_image_name
from vitreous.data.sources.rows import is_table_name
from vitreous.data.sources.shards.files import is_shards
from vitreous.errors import ConfigError, DamagedFileError, OpenQuestionError, UnknownNameError, nearest
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.config.presets import SIZES, config_for
from vitreous.model.config.published import PUBLISHED
from vitreous.model.cost.count import count_flops, count_parameters, count_parts
from vitreous.model.weights import is_native, read_metadata
from vitreous.model.weights.open import identify
from vitreous.model.weights.reading import hub_names
from vitreous.model.weights.reading.files import IN_FOLDER, SUFFIXES, locate, open_weights
from vitreous.model.weights.table import Hints
from vitreous.paths import expanded
from vitreous.training.folder.records import Listener, ignore
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.use.doctor.examiner import examine_data, examine_run
from vitreous.use.doctor.page import check_page_path, write_page
from vitreous.use.doctor.proposals import check_correctable, check_fix_path, write_proposals
from vitreous.use.embed.embedder import Embedder
from vitreous.use.evaluate.headline import accuracy_text, baseline_text, never_predicted_text
from vitreous.use.predict.predictor import find_model
from vitreous.wording import listed, plural, printable, printable_list

_MOST_ROWS = 200
_NUMBER = re.compile(r"(?<=[._/])\d+(?=[._/])|(?<=_)\d+(?=[./])")
"""Matches the number of a block in the name of a tensor."""


@dataclass(frozen=True)
class Inspection:
    """Description of a run, weights, a model or data.

    Attributes:
        kind: `run`, `weights`, `model` or `data`.
        title: Its path or name.
        facts: (name, value) pairs, most important first.
        table: Rows of text below a row of headings.
        notes: Warnings, and what is open about a file of weights, one sentence each.
        details: Everything that is known, as plain values for JSON.
        findings: Problems of the data, worst first; empty for anything else.
        histograms: Number of images per bin for each histogram of the data; empty for anything else.
    """

    kind: str
    title: str
    facts: tuple[tuple[str, str], ...]
    table: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    details: dict[str, Any]
    findings: tuple[Finding, ...] = ()
    histograms: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataOptions:
    """Options for inspecting data.

    Attributes:
        root: The folder of the images of a table or an export.
        pretrained: A run, or weights in any format, whose features judge the labels and find outliers; None judges the
            labels by thumbnails.
        html: Path of a page with pictures to write; None writes no page.
        fix: Path of a table of proposed corrections to write; None writes none.
        labels: Check the images of a run or series, whose predictions judge the labels; so do `html` and `fix`.
        device: Where that model computes.
    """

    root: str | None = None
    pretrained: str | None = None
    html: Path | None = None
    fix: Path | None = None
    labels: bool = False
    device: torch.device | str = "cpu"


def inspect(
    thing: str, listener: Listener = ignore, options: DataOptions | None = None, weights: Hints | None = None
) -> Inspection:
    """Describe a run folder, a weights file of any library, a data set, or a model by name.

    `thing` is a path, `hf://organization/name`, the name of a set, or the name of a model that `create_model` builds.
    `options` are for data, and `weights` for a file of weights; for anything else they are an error.

    Raises:
        UnknownNameError: There is no such path, data set or model.
        ConfigError: It is a single image, or an option does not apply to it.
        VitreousError: It cannot be read.
    """
    path, options, hints = expanded(thing), options or DataOptions(), weights or Hints()
    for given, check in ((options.html, check_page_path), (options.fix, check_fix_path)):
        if given is not None:
            check(given)
    folder = RunFolder(path)
    is_table = path.is_file() and (is_table_name(path.name) or is_export_name(path.name))
    if thing in known_sets() or thing.startswith(DATA_PREFIX) or is_table or is_shards(thing):
        return _inspect_data(thing, listener, options, hints)
    if path.is_file() and is_image_name(path.name):
        raise ConfigError(f"inspect={thing}: is a single image; give a folder of class folders, a run or a model")
    is_hub = hub_names.name_in(thing) is not None
    is_foreign = not is_native(locate(thing)) if is_hub else _is_foreign(path, folder)
    if hints != Hints() and not is_foreign and options.pretrained is None:
        raise ConfigError(
            f"inspect={thing}: is not a file of weights of another library; leave out --architecture and --weights"
        )
    judges = options.pretrained is None and (options.labels or options.html or options.fix)
    if options.root is None and (SeriesFolder(path).series.is_file() or (judges and folder.config.is_file())):
        return _inspect_data(str(path), listener, options, None)
    is_run = is_hub or path.is_file() or folder.config.is_file() or folder.model.is_file()
    if path.is_dir() and not is_foreign and not is_run:
        return _inspect_data(thing, listener, options, hints)
    for name in ("root", "html", "fix", "pretrained"):
        if (value := getattr(options, name)) is not None:
            raise ConfigError(f"{name}={value}: applies only to data, and {thing} is not a data set; leave it out")
    if is_foreign:
        return _inspect_weights(thing, hints)
    if is_run:
        return _inspect_run(path)
    try:
        config = config_for(thing)
    except UnknownNameError as error:
        raise UnknownNameError(f"inspect={thing}: not a path, data set or model; {_way_out(thing, path)}") from error
    return _inspect_model(thing, config)


def _way_out(thing: str, path: Path) -> str:
    """Suggest the nearest name or path in the same folder, or say what is accepted."""
    models = [*(f"vit_{size}_patch16_224" for size in SIZES), *PUBLISHED]
    entries = list(path.parent.iterdir()) if path.parent.is_dir() else []
    # The names are compared, since long paths of one folder are always similar.
    similar = get_close_matches(path.name, [entry.name for entry in entries if not is_image_name(entry.name)])
    siblings = [str(path.parent / name) for name in similar]
    suggestion = nearest(thing, [*known_sets(), *models, *siblings])
    if suggestion.startswith("did you mean"):
        return suggestion
    return f"give an existing path, {', '.join(known_sets())}, or a model such as vit_base_patch16_224"


def _inspect_model(title: str, config: ModelConfig) -> Inspection:
    parts = count_parts(config)
    rows = [(part.part, part.shape, f"{part.parameters:,}", _mega(part.flops)) for part in parts]
    facts = {
        "parameters": f"{count_parameters(config):,}",
        "MFLOPs per image": f"{_mega(count_flops(config))} (a multiply-add counts as two)",
        "image": f"{config.in_chans} x {config.img_size[0]} x {config.img_size[1]} px, "
        f"{plural(config.num_classes, 'class', 'classes')}",
        "tokens": f"{config.num_tokens}, including {plural(config.num_prefix_tokens, 'prefix token')}",
    }
    details = {"architecture": config.as_dict(), "parameters": count_parameters(config), "flops": count_flops(config),
               "parts": [asdict(part) for part in parts]}  # fmt: skip
    table = (("part", "shape", "parameters", "MFLOP"), *rows)
    return Inspection("model", title, tuple(facts.items()), table, (), details)


def _is_foreign(path: Path, folder: RunFolder) -> bool:
    """Return True if the path holds weights of another library."""
    if path.is_dir():
        weights = [path / name for name in IN_FOLDER if (path / name).is_file()]
        return bool(weights) and not folder.config.is_file() and not is_native(weights[0])
    return path.is_file() and path.suffix in SUFFIXES and not is_native(path)


def _inspect_weights(source: str, hints: Hints) -> Inspection:
    """Describe a file of another library, also if it leaves something open or holds no model that is known."""
    with open_weights(source) as file:
        hints, notes = replace(hints, settings=file.settings), []
        found, problems = None, []
        while found is None:
            try:
                found = identify(file, hints)
            except OpenQuestionError as question:
                problems.append(f"open: {question}")
                if question.guess is None or question.key in hints.architecture:
                    break
                hints = replace(hints, architecture={**hints.architecture, question.key: question.guess})
            except (ConfigError, DamagedFileError) as error:
                problems.append(f"cannot be opened: {str(error).removeprefix(f'{file.path}: ')}")
                break
        groups = _groups(file.shapes)
        if file.objects:
            kinds = (f"{printable(name) or 'the file'} ({printable(kind)})" for name, kind in file.objects.items())
            notes.append(f"objects that were not built: {printable_list(kinds)}")
        facts: dict[str, str] = {"format": "unknown", "tensors": f"{len(file.shapes):,}"}
        details: dict[str, Any] = {"shapes": file.shapes}
        if found is not None:
            shape = _inspect_model(source, found.config)
            notes += [*found.notes, *(f"skipped {name}: {reason}" for name, reason in found.left_out.items())]
            notes += [f"not read: {printable_list(found.other_parts)}"] if found.other_parts else []
            facts |= {"format": found.format_.name}
            if not problems:  # otherwise the numbers would depend on guesses
                facts |= dict(shape.facts)
                details |= shape.details
        details |= {"format": facts["format"], "notes": [*problems, *notes], "open": problems}
        details |= {"assumed": {} if found is None else found.assumed}
    table = (("tensors", "shape", "count"), *groups)
    return Inspection("weights", source, tuple(facts.items()), table, (*problems, *notes), details)


def _groups(shapes: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str, str]]:
    """Return rows (name, shape, count) for the tensors of a file; those that differ only in their block share a row."""
    names: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, shape in shapes.items():
        names.setdefault((_NUMBER.sub("*", name, count=1), shape), []).append(name)
    rows = [
        (printable(name if len(alike) > 1 else alike[0]), "x".join(map(str, shape)) or "scalar", f"{len(alike):,}")
        for (name, shape), alike in names.items()
    ]
    return rows[:_MOST_ROWS] + ([(f"… and {len(rows) - _MOST_ROWS:,} more", "", "")] if len(rows) > _MOST_ROWS else [])


def _inspect_run(path: Path) -> Inspection:
    file = find_model(path, or_best=True)
    metadata, familiarity = read_metadata(file), RunFolder(file.parent).familiarity
    config = ModelConfig.from_dict(metadata["architecture"])
    shape = _inspect_model(hub_names.shown(path), config)
    classes, metrics = metadata.get("classes", ()), metadata.get("metrics", {})
    state = [("state", "not finished: this is its best model so far")] if metadata.get("is_preliminary") else []
    facts = [
        *state,
        ("data", str(metadata.get("data", "unknown"))),
        ("classes", f"{len(classes)}: {listed(classes, 8)}" if classes else "none: pretrained without labels"),
        *(fact for split, found in metrics.items() for fact in _accuracy(split, found)),
        ("recipe", str(metadata.get("recipe", "unknown"))),
        ("steps", f"{metadata.get('steps', 0):,}"),
        ("unfamiliar images", "flagged" if familiarity.is_file() else f"not flagged without {familiarity}"),
        *shape.facts,
    ]
    unused = {split: never_predicted_text(found) for split, found in metrics.items()}
    notes = tuple(f"{split}: {text}" for split, text in unused.items() if text)
    return Inspection("run", hub_names.shown(path), tuple(facts), shape.table, notes, metadata)


def _inspect_data(name: str, listener: Listener, options: DataOptions, hints: Hints | None) -> Inspection:
    """Describe a data set, or without hints the images of a run or series."""
    if options.fix is not None and hints is not None:
        check_correctable(options.fix, open_source(name, options.root))
    embedder, basis = None, f"the features of {options.pretrained}"
    if options.pretrained is not None:
        embedder = Embedder.load(options.pretrained, hints=hints, device=options.device)
    if hints is None:
        report = examine_run(Path(name), listener, options.device)
    else:
        report = examine_data(name, listener, root=options.root, embedder=embedder, basis=basis)
    if options.fix is not None:
        write_proposals(options.fix, report)
    if options.html is not None:
        write_page(options.html, report)
    return Inspection(
        kind="data",
        title=report.survey.facts.title,
        facts=report.facts,
        table=report.class_rows,
        notes=() if embedder is None else tuple(f"{options.pretrained} {note}" for note in embedder.notes),
        details=report.details,
        findings=report.examination.findings,
        histograms=report.histograms,
    )


def _mega(count: int) -> str:
    """Format a count in millions, with one decimal, or with two significant digits below one million."""
    return f"{count / 1e6:,.1f}" if count >= 1e6 or count == 0 else f"{count / 1e6:.2g}"


def _accuracy(split: str, found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{split} accuracy", accuracy_text(found)
    if baseline := baseline_text(found):
        yield f"{split} baseline", baseline
