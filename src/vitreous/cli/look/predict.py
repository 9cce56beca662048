"""`vitreous predict` -> the predicted classes of images, printed or written to a file."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Count
from vitreous.cli.screen import Screen, print_json
from vitreous.data.sources.shards.files import is_address
from vitreous.errors import ConfigError, DecodeError
from vitreous.ranges import Interval, check_value, rule_of
from vitreous.training.machine.device import resolve_device
from vitreous.use.batch.cluster import import_ray
from vitreous.use.batch.job import Job
from vitreous.use.batch.part_folder import MANIFEST
from vitreous.use.batch.write import Engine, write_parts
from vitreous.use.evaluate.sets.decide import decisions
from vitreous.use.predict.annotations import SUFFIX, Format, check_annotations, write_annotations
from vitreous.use.predict.inputs import unreadable_text
from vitreous.use.predict.listing import Listing, list_data
from vitreous.use.predict.predictor import Prediction, Predictor
from vitreous.use.predict.table import SUFFIXES, check_table_path, import_pyarrow, join_names, write_table
from vitreous.wording import plural

_LOG_EVERY_S = 60
"""Time between lines on progress where no terminal shows it, as in the log of a job."""


@Parameter(name="*")
@dataclass(frozen=True)
class PredictOptions:
    """Options of `vitreous predict`.

    Attributes:
        out: Write a .csv, .jsonl or .parquet file instead of printing one line per image; a .json file for a labeling
            tool; or a folder, which gets one table per part of the images. If that is interrupted, the same command
            continues it.
        format: Tables in a folder: csv (default), jsonl or parquet. A .json file: label-studio or fiftyone.
        engine: What computes a folder: local (default; all cores or GPUs of this machine), or ray (a Ray cluster).
        workers: Processes that share the work for a folder; default: one per GPU, or per core without GPUs.
        address: Address of the Ray cluster; default: the one in RAY_ADDRESS, or else this machine.
        tta: Average over this many views of each image (test-time augmentation); 2 views take twice the time.
        coverage: Add a set of classes that contains the true one with this probability, e.g. 0.95.
        sets: How sets are made: lac (default; the smallest), aps or raps (larger for difficult images); lac-per-class,
            aps-per-class or raps-per-class have the coverage for each class.
        reject: Mark uncertain predictions such that the others have this accuracy, e.g. 0.9.
        device: auto, cpu, cuda, cuda:1 or mps.
        as_json: Print one JSON document instead of lines.
    """

    out: Path | None = None
    format: str | None = None
    engine: str | None = None
    workers: Count | None = None
    address: str | None = None
    tta: Count = 1
    coverage: float | None = None
    sets: str | None = None
    reject: float | None = None
    device: str = "auto"
    as_json: AsJson = False


def predict(
    run: Path,
    images: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    options: PredictOptions = PredictOptions(),
) -> None:
    """Classify images with a trained model.

    Args:
        run: Run folder, a model.safetensors file, or hf://organization/name.
        images: Image files, folders of them, tables with a column of paths, exports of labeling tools, or tar files;
            also at addresses such as s3://bucket/photos.
        options: All other options.
    """
    out, as_json = options.out, options.as_json
    engine = _engine(options)
    is_json = engine is None and out is not None and out.suffix.lower() == SUFFIX
    if out is not None and engine is None and not is_json:
        check_table_path(out)
    device = resolve_device(options.device if engine is None else "cpu")
    predictor = Predictor.load(run, device).with_views(options.tta)
    decide = decisions(run, predictor, options.coverage, options.sets, options.reject)
    listing = list_data(images)
    if is_json and out is not None:
        check_annotations(out, options.format, listing)
    predictions: list[Prediction] = []
    with Screen(stderr=as_json) as screen:
        screen.say_notes(listing.notes)
        if engine is not None and out is not None:
            job = Job.of(predictor, decide, f".{options.format or 'csv'}")
            _write_folder(out, listing, job, options, engine, screen)
            return
        for prediction in map(decide, predictor.stream_named(listing)):
            predictions.append(prediction)
            screen.listen("reading", {"what": "predicting", "done": len(predictions), "total": len(listing)})
            if out is None and not as_json and not prediction.error:
                mark = "; unlike the training images" if prediction.is_unfamiliar else ""
                screen.say(f"{prediction.image}: {labels_line(prediction, predictor)}{mark}")
    predictor.preprocess.scale.warn_of_clipped()
    if out is not None:
        how = _write(out, options.format, predictions, predictor)
        screen.say(f"{plural(len(predictions), 'prediction')} in {out}{how}")
    if as_json:
        print_json([prediction.as_dict(predictor.classes) for prediction in predictions])
    unreadable = [prediction.error for prediction in predictions if prediction.error]
    if unreadable:
        raise DecodeError(unreadable_text(unreadable, len(predictions), "classified"))


def _engine(options: PredictOptions) -> Engine | None:
    """Return what computes a folder; None if `out` is not a folder. Raises ConfigError if options contradict it."""
    out, given = options.out, {}
    for name, rule in {"engine": Literal["local", "ray"], "format": Literal["csv", "jsonl", "parquet", Format],
                       "workers": Annotated[int, Interval("[1, 2**16)")], "address": str}.items():  # fmt: skip
        value = getattr(options, name)
        if value is not None:
            check_value(name, value, rule_of(rule))
            given[name] = value
    is_table = out is not None and out.suffix.lower() in (*SUFFIXES, SUFFIX) and not out.is_dir()
    if options.format in get_args(Format):
        if out is None or not is_table or out.suffix.lower() != SUFFIX:
            raise ConfigError(f"format={options.format}: is a single .json file; add --out labels.json")
        del given["format"]
    if given and (out is None or is_table):
        name, value = next(iter(given.items()))
        raise ConfigError(f"{name}={value}: only applies to a folder of tables, but out={out}; add --out FOLDER")
    if out is None or is_table or not (given or out.is_dir() or not out.suffix):
        return None
    if options.address is not None and options.engine != "ray":
        raise ConfigError(f"address={options.address}: only applies to a Ray cluster; add --engine ray")
    if options.format == "parquet":
        import_pyarrow()
    if is_address(str(out).replace(":/", "://", 1)):
        raise ConfigError(f"out={out}: is an address; name a folder of this machine, and copy it afterwards")
    if options.engine == "ray":
        import_ray()
    else:
        resolve_device(options.device)  # the processes of the folder use it
    return Engine(options.engine or "local", options.device, options.workers, options.address)


def _write_folder(
    out: Path, listing: Listing, job: Job, options: PredictOptions, engine: Engine, screen: Screen
) -> None:
    """Write a folder of tables. Raises DecodeError if images could not be read."""
    asked = {"tta": options.tta, "coverage": options.coverage, "sets": options.sets, "reject": options.reject}
    shown = time.monotonic()

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        nonlocal shown
        screen.listen(kind, fields)
        if kind == "reading" and not screen.console.is_terminal and time.monotonic() > shown + _LOG_EVERY_S:
            shown = time.monotonic()
            screen.say(f"{fields['done']:,} of {plural(fields['total'], 'image')}")

    folder = write_parts(out, listing, job, asked, engine, listen)
    if options.as_json:
        print_json(folder.manifest)
    count = plural(folder.num_parts, "table")
    screen.say(f"{plural(len(listing), 'prediction')} in {out}: {count} and {MANIFEST}")
    num_unreadable, reasons = folder.unreadable()
    if num_unreadable:
        raise DecodeError(unreadable_text(reasons, len(listing), "classified", num_unreadable))


def _write(out: Path, format_: str | None, predictions: Sequence[Prediction], predictor: Predictor) -> str:
    """Write a file with all predictions, and return how a message about it ends."""
    if format_ is None:
        write_table(out, predictions, predictor.classes)
        return ""
    is_multilabel = predictor.thresholds is not None
    return f"; {write_annotations(out, format_, predictions, predictor.classes, is_multilabel=is_multilabel)}"


def labels_line(prediction: Prediction, predictor: Predictor) -> str:
    """Return the predicted labels with their probabilities, e.g. `cat (93.1%)`, and what else was asked for."""
    by_name = dict(zip(predictor.classes, prediction.probabilities, strict=True))
    found = [f"{label} ({by_name[label]:.1%})" for label in prediction.labels]
    best = max(by_name, key=by_name.__getitem__)
    label = ", ".join(found) or f"no label (the most probable is {best}, {by_name[best]:.1%})"
    chosen = "" if prediction.set is None else f", set: {join_names(prediction.set)}"
    return f"{label}{chosen}{', rejected' if prediction.rejected else ''}"
