"""Run folder, perhaps a new place of its data -> configuration and survey, once the data are known to be the same."""

from dataclasses import replace
from pathlib import Path

from vitreous.data.config import DataConfig
from vitreous.data.sources import PYTHON_PREFIX, full_name
from vitreous.data.survey.facts import Survey
from vitreous.errors import ConfigError, DataNotFoundError, RunError
from vitreous.printable import printable_list
from vitreous.recipe.files import read_config, write_config
from vitreous.recipe.run_config import RunConfig
from vitreous.training.folder.records import Listener, Recorder, read_records
from vitreous.training.folder.run_folder import RunFolder
from vitreous.training.prepare import survey_again
from vitreous.training.request import TrainRequest


def is_moved(request: TrainRequest) -> bool:
    """Return True if a request to resume gives a new place of the data: `data`, or `data.root` for a table."""
    return request.data is not None or "data.root" in request.values


def folder_to_resume(request: TrainRequest) -> Path:
    """Return the folder of a run or series. Raise ConfigError if more than a new place of the data is asked for."""
    others = (request.recipe, request.model, request.out, request.folds, request.seeds)
    if request.resume is None or any(others) or set(request.values) - {"data.root"}:
        raise ConfigError(
            f"resume={request.resume}: takes no other option than --data and --data.root, for data that have moved, "
            "because a run or series keeps its settings; leave the others out"
        )
    return request.resume


def reopen_data(folder: RunFolder, request: TrainRequest, listener: Listener) -> tuple[RunConfig, Survey]:
    """Survey the data of a run again, and write their new place into `config.yaml` if they have moved.

    Args:
        folder: The run.
        request: Request to resume it; `data` is the new place of the data, and `source` the data of a run that got them
            from Python.
        listener: Called with `moved` if the data have moved.

    Raises:
        ConfigError: Data from Python for a run that reads its data from a place.
        DataNotFoundError: The data are not where they were.
        RunError: The content is not that of the run.
    """
    config = read_config(folder.config)
    data, kept = _at_new_place(config.data, request), config.data.source
    if request.source is not None and not kept.startswith(PYTHON_PREFIX):
        raise ConfigError(
            f"resume={folder.path}: reads its data from {kept}, not from Python; give no data with resume, or their "
            "path if they have moved"
        )
    try:
        surveyed = survey_again(data, listener, request.source)
    except DataNotFoundError as error:
        if is_moved(request) or not Path(kept).is_absolute():
            raise
        raise DataNotFoundError(
            f"data.source={kept}: is no longer there; restore it, or give its new place: `vitreous train --resume "
            f"{folder.path} --data NEW`"
        ) from error
    _check_content(folder, data, surveyed)
    if data != config.data:
        config = replace(config, data=data)
        write_config(folder.config, config)
        Recorder(folder.records, listener).record("moved", {"from": kept, "to": data.source, "root": data.root})
    return config, surveyed


def _at_new_place(data: DataConfig, request: TrainRequest) -> DataConfig:
    root = request.values.get("data.root")
    if request.data is not None:
        data = replace(data, source=full_name(request.data), root=None)
    return data if root is None else replace(data, root=full_name(str(root)))


def _check_content(folder: RunFolder, data: DataConfig, surveyed: Survey) -> None:
    """Raise RunError unless images, labels, splits and class names are those of the records of the run."""
    facts = surveyed.facts
    known = [record for record in read_records(folder.records) if "fingerprint" in record and "classes" in record]
    if not known:
        return
    classes, fingerprint = known[0]["classes"], known[0]["fingerprint"]
    if list(facts.classes) != classes:
        new, gone = set(facts.classes) - set(classes), set(classes) - set(facts.classes)
        raise RunError(
            f"run={folder.path}: the classes of its data have changed since the run started (new: "
            f"{printable_list(new) or 'none'}; gone: {printable_list(gone) or 'none'}); restore {data.source}, or "
            "start a new run"
        )
    if facts.fingerprint != fingerprint:
        raise RunError(
            f"run={folder.path}: its data has changed since the run started (fingerprint {facts.fingerprint}, was "
            f"{fingerprint}); restore {data.source}, or start a new run"
        )
