"""Run folder, perhaps a new place of its data -> configuration and survey, once the data is known to be the same."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from vitreous.data.config import DataConfig
from vitreous.data.sources import PYTHON_PREFIX, Source, full_name
from vitreous.data.survey.facts import Survey
from vitreous.errors import ConfigError, DataNotFoundError, RunError
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Listener, Recorder, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import survey_again
from vitreous.training.request import TrainRequest
from vitreous.wording import printable_list


def is_moved(request: TrainRequest) -> bool:
    """Return True if a request to resume gives a new place of the data: `data`, or `data.root` for a table."""
    return request.data is not None or "data.root" in request.values


def folder_to_resume(request: TrainRequest) -> Path:
    """Return the folder of a run or series. Raise ConfigError if more than a new place of the data is asked for."""
    others = (request.recipe, request.model, request.out, request.folds, request.seeds)
    if request.resume is None or any(others) or set(request.values) - {"data.root"}:
        raise ConfigError(
            f"resume={request.resume}: a run or series keeps its settings; leave out all options except --data and "
            "--data.root, for data that has moved"
        )
    return request.resume


def reopen_data(folder: RunFolder, request: TrainRequest, listener: Listener) -> tuple[RunConfig, Survey]:
    """Survey the data of a run again, and write its new place into `config.yaml` if it has moved.

    In the request, `data` is the new place of the data, and `source` the data of a run that got it from Python. The
    listener receives `moved` if the data has moved.

    Raises:
        ConfigError: Data from Python for a run that reads it from a file or folder.
        DataNotFoundError: The data is not where it was.
        RunError: The content is not that of the run.
    """
    config = read_config(folder.config)
    config = replace(config, data=with_copy(folder, config.data))
    data, kept = _at_new_place(config.data, request), config.data.source
    if request.source is not None and not kept.startswith(PYTHON_PREFIX):
        raise ConfigError(
            f"resume={folder.path}: reads its data from {kept}, not from Python; give no data with resume, or its "
            "path if it has moved"
        )
    record = _data_record(folder)
    classes = [] if record is None else [str(name) for name in record["classes"]]
    if is_moved(request):
        surveyed = survey_again(data, listener, request.source, classes)
    else:
        surveyed = survey_of_run(folder, data, listener, request.source, classes)
    if record is not None:
        all_kept = " and ".join(filter(None, (kept, data.corrections)))
        way_out = "give the data that it started with" if data != config.data else f"restore {all_kept}"
        _check_content(folder, surveyed, classes, record.get("fingerprint"), way_out)
    if data != config.data:
        config = replace(config, data=data)
        write_config(folder.config, config)
        Recorder(folder.records, listener).record("moved", {"from": kept, "to": data.source, "root": data.root})
    return config, surveyed


def with_copy(folder: RunFolder, data: DataConfig) -> DataConfig:
    """Return the configuration with the copy of the corrections in a run folder, wherever the folder is now."""
    return data if data.corrections is None else replace(data, corrections=str(folder.corrections.resolve()))


def survey_of_run(
    folder: RunFolder, data: DataConfig, listener: Listener, source: Source | None, classes: Sequence[str]
) -> Survey:
    """Repeat the survey of a run as `survey_again` does. Raise DataNotFoundError if its data is no longer there."""
    try:
        return survey_again(with_copy(folder, data), listener, source, classes)
    except DataNotFoundError as error:
        if not Path(data.source).is_absolute():  # the name of a set
            raise
        raise DataNotFoundError(
            f"data.source={data.source}: is no longer there; restore it, or give its new place: `vitreous train "
            f"--resume {quote(str(folder.path))} --data NEW`"
        ) from error


def _data_record(folder: RunFolder) -> dict[str, Any] | None:
    """Return the first record that has the classes and the fingerprint of the data; None if there is none yet."""
    records = read_records(folder.records) if folder.records.is_file() else []
    return next((record for record in records if isinstance(record.get("classes"), list)), None)


def _at_new_place(data: DataConfig, request: TrainRequest) -> DataConfig:
    root = request.values.get("data.root")
    if request.data is not None:
        data = replace(data, source=full_name(request.data), root=None)
    return data if root is None else replace(data, root=full_name(str(root)))


def _check_content(folder: RunFolder, surveyed: Survey, classes: Sequence[str], was: object, way_out: str) -> None:
    """Raise RunError unless class names and fingerprint are those that the run has recorded."""
    facts = surveyed.facts
    now, before = set(facts.classes), set(classes)
    if now != before:
        names = printable_list(now - before) or "none", printable_list(before - now) or "none"
        changed = f"new classes: {names[0]}; missing classes: {names[1]}"
    elif facts.fingerprint != was:
        changed = f"fingerprint {facts.fingerprint}, was {was}"
    else:
        return
    raise RunError(
        f"run={folder.path}: its data has changed since the run started ({changed}); {way_out}, or start a new run"
    )
