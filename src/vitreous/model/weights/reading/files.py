"""Path or `hf://` name -> open weights file of any supported type and layout."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from vitreous.errors import DamagedFileError, NotARunError
from vitreous.model.weights.reading import hub, hub_names
from vitreous.model.weights.reading.kinds import SUFFIXES, WeightFile, open_one, read_json
from vitreous.wording import printable, printable_list

__all__ = ["IN_FOLDER", "SUFFIXES", "WeightFile", "canonical_names", "locate", "open_weights"]

_INDEX = ".index.json"
IN_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""File names to look for in a folder, in order of preference."""


@contextmanager
def open_weights(source: str | Path) -> Iterator[WeightFile]:
    """Open weights for a `with` block; tensors are read when requested, if the type of file allows it.

    `source` is a file, a folder as transformers and timm write it, or `hf://organization/name`.

    Raises:
        NotARunError: The source does not exist.
        DamagedFileError: The file is cut short, holds code, or has no tensors. Damage inside a tensor is found only
            when that tensor is read.
        MissingDependencyError: `hf://` needs huggingface_hub, which is not installed.
    """
    path = locate(source)
    with ExitStack() as stack:
        file = _open_shards(path, stack) if path.name.endswith(_INDEX) else open_one(path, stack)
        yield file


def locate(source: str | Path) -> Path:
    """Return the file of weights that a source means. Raises NotARunError or DamagedFileError, as `open_weights`."""
    if (name := hub_names.name_in(source)) is not None:
        return locate(hub.fetch(name))
    path = Path(source)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # the name is too long, or a folder may not be entered
        raise NotARunError(f"{path}: cannot be opened ({error.strerror}); give a file of weights") from error
    if is_folder:
        return _find_in_folder(path)
    if not is_file:
        raise NotARunError(
            f"{path}: no such file; give a file of weights, a folder with one, or hf://organization/name"
        )
    if not path.name.endswith((*SUFFIXES, _INDEX)):
        raise DamagedFileError(f"{path}: not a type of file that holds weights; use one of {', '.join(SUFFIXES)}")
    return path


def _find_in_folder(folder: Path) -> Path:
    """Find the file that transformers or timm would read, or else the only weights file in the folder."""
    names = [name for name in IN_FOLDER if (folder / name).is_file()]
    names = names or [path.name for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file()]
    if not names:
        raise NotARunError(f"{folder}: the folder has none of {', '.join(IN_FOLDER)}; give the file of weights itself")
    if names[0] not in IN_FOLDER and len(names) > 1:
        raise NotARunError(f"{folder}: the folder has several files of weights ({printable_list(names)}); give one")
    return folder / names[0]


def _open_shards(index: Path, stack: ExitStack) -> WeightFile:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise DamagedFileError(f"{index}: does not say which file holds which tensor; download it again")
    files = {}
    for name in sorted(set(weight_map.values())):
        shard = index.parent / name
        # Only files in the same folder: an index must not make us open other files of the machine.
        if Path(name).name != name or not shard.name.endswith(SUFFIXES) or not shard.is_file():
            raise DamagedFileError(
                f"{index}: names {printable(repr(name))}, but its folder has no such file of weights; download it again"
            )
        files[name] = open_one(shard, stack)
    readers = {name: partial(files[shard].read, name) for name, shard in weight_map.items()}
    absent = [name for name, shard in weight_map.items() if name not in files[shard].shapes]
    if absent:
        raise DamagedFileError(
            f"{index}: lists tensors that its files do not have ({printable_list(absent)}); download it again"
        )
    shapes = {name: files[shard].shapes[name] for name, shard in weight_map.items()}
    return WeightFile(index, readers, shapes)


def canonical_names(names: Iterable[str], renames: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Map the current name of each tensor to its name in the file.

    `renames` are (pattern, replacement), which turn names of older or newer versions into the current ones.
    """
    canonical: dict[str, str] = {}
    for stored in names:
        name = stored
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        canonical[name] = stored
    return canonical
