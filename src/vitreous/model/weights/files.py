"""A path -> tensors by name and whatever describes them, from any file that weights come in."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from vitreous.errors import DamagedFileError, MissingDependencyError, NotARunError
from vitreous.model.weights.kinds import SUFFIXES, Lazy, WeightFile, open_one, read_json, reason, settings_beside
from vitreous.model.weights.strict import listed, shown

__all__ = ["IN_FOLDER", "SUFFIXES", "WeightFile", "open_weights", "renamed"]

_INDEX = ".index.json"
IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_WRAPPERS = ("module.", "_orig_mod.", "model.", "backbone.", "student.", "teacher.")
"""Prefixes of wrappers: data parallel, torch.compile, Lightning, DINO. Taken off where every name has them."""


@contextmanager
def open_weights(source: str | Path) -> Iterator[WeightFile]:
    """Open a file, a folder as transformers and timm write them, or `hf://organisation/name`.

    Raises:
        NotARunError: Nothing is there.
        DamagedFileError: It is cut short, holds code, or is no file of tensors; some of it may only show when a tensor
            is asked for.
        MissingDependencyError: `hf://` without huggingface_hub.
    """
    path = _located(source)
    with ExitStack() as stack:
        file = _open_shards(path, stack) if path.name.endswith(_INDEX) else open_one(path, stack)
        yield _unwrapped(file)


def _located(source: str | Path) -> Path:
    if isinstance(source, str) and source.startswith("hf://"):
        return _located(_fetched(source.removeprefix("hf://")))
    path = Path(source)
    try:
        folder, there = path.is_dir(), path.is_file()
    except OSError as error:  # a name too long, a folder that may not be entered
        raise NotARunError(f"{path}: cannot be looked at ({reason(error)}); give a file of weights") from error
    if folder:
        return _in_folder(path)
    if not there:
        raise NotARunError(f"{path}: no such file; give a file of weights, a folder of them, or hf://organisation/name")
    if not path.name.endswith((*SUFFIXES, _INDEX)):
        raise DamagedFileError(f"{path}: no file of weights by its name; one that ends in {', '.join(SUFFIXES)} is")
    return path


def _in_folder(folder: Path) -> Path:
    """The file that transformers or timm would take, or the only one that could be meant."""
    names = [name for name in IN_FOLDER if (folder / name).is_file()]
    names = names or [path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file()]
    if not names:
        raise NotARunError(f"{folder}: a folder without {', '.join(IN_FOLDER)}; give the file of weights itself")
    if names[0] not in IN_FOLDER and len(names) > 1:
        raise NotARunError(f"{folder}: a folder of several files of weights ({listed(names)}); give one of them")
    return folder / names[0]


def _fetched(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise MissingDependencyError(
            f"hf://{name}: needs the package huggingface_hub; pip install huggingface_hub"
        ) from error
    wanted = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise NotARunError(
            f"hf://{name}: cannot be fetched ({reason(error)}); check the name, the network, or log in"
        ) from error


def _open_shards(index: Path, stack: ExitStack) -> WeightFile:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise DamagedFileError(f"{index}: says not which file holds which tensor; fetch it again")
    files = {}
    for name in sorted(set(weight_map.values())):
        beside = index.parent / name
        if Path(name).name != name or not beside.name.endswith(SUFFIXES) or not beside.is_file():
            raise DamagedFileError(
                f"{index}: names {shown(repr(name))}, which is no file of weights beside it; fetch it again"
            )
        files[name] = open_one(beside, stack)
    readers = {name: partial(files[part].tensors.__getitem__, name) for name, part in weight_map.items()}
    absent = [name for name, part in weight_map.items() if name not in files[part].shapes]
    if absent:
        raise DamagedFileError(f"{index}: names tensors that its files lack: {listed(absent)}; fetch it again")
    shapes = {name: files[part].shapes[name] for name, part in weight_map.items()}
    return WeightFile(index, Lazy(index, readers), shapes, settings_beside(index))


def _unwrapped(file: WeightFile) -> WeightFile:
    """Without the prefixes of wrappers, and without the counter that torch's averaged models keep."""
    names = {
        name: name for name in file.shapes if name.removeprefix("module.") != "n_averaged" and name != "n_averaged"
    }
    wrapper: str | None = ""
    while wrapper is not None:
        wrapper = next((prefix for prefix in _WRAPPERS if names and all(n.startswith(prefix) for n in names)), None)
        if wrapper:
            names = {short.removeprefix(wrapper): full for short, full in names.items()}
            file.notes.append(f"took {wrapper!r} off every name")
    readers = {short: partial(file.tensors.__getitem__, full) for short, full in names.items()}
    shapes = {short: file.shapes[full] for short, full in names.items()}
    return WeightFile(file.path, Lazy(file.path, readers), shapes, file.settings, file.metadata, file.notes)


def renamed(names: Mapping[str, Any], renames: Any) -> dict[str, str]:
    """Today's spelling of each name -> the spelling in the file."""
    spelt: dict[str, str] = {}
    for name in names:
        today = name
        for pattern, replacement in renames:
            today = re.sub(pattern, replacement, today)
        spelt[today] = name
    return spelt
