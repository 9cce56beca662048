"""TrainState <-> files in `checkpoints/`: written whole, with a checksum, the last two kept."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from vitreous import atomic
from vitreous.errors import DamagedFileError, RunError
from vitreous.tensor_file import open_tensor_file
from vitreous.training.machine.distributed import ALONE, Group
from vitreous.training.machine.parallel import whole
from vitreous.training.step.state import TrainState

KEPT = 2
"""Checkpoints that stay: the last one, and the one before in case the last one is damaged."""

_NAME = re.compile(r"step-(\d+)\.safetensors")


def save_checkpoint(folder: Path, state: TrainState, group: Group = ALONE) -> Path:
    """Write the state, then remove all but the last two. Raises SaveError; the checkpoints there stay whole.

    Checkpoints of later steps go too: the run went back behind them because they were damaged. A file holds whole
    tensors, however many processes trained and however they divided the model: so any other number can go on.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.tensors().items():
        complete = whole(tensor.detach())
        if group.is_first:
            tensors[name] = complete.cpu().contiguous()
    return group.first(lambda: _write(folder, state, tensors))


def _write(folder: Path, state: TrainState, tensors: Mapping[str, Tensor]) -> Path:
    numbers = json.dumps(state.numbers(), sort_keys=True)
    content = save(dict(tensors), {"numbers": numbers, "checksum": checksum(tensors, numbers)})
    path = folder / f"step-{state.step:09d}.safetensors"
    atomic.write_bytes(path, content)
    found = list_checkpoints(folder)
    last = found.index(path)
    for other in [*found[: max(0, last + 1 - KEPT)], *found[last + 1 :]]:
        other.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path, state: TrainState) -> None:
    """Put a saved state into `state`.

    Raises:
        DamagedFileError: The file is cut short, altered, or of another run.
    """
    tensors, metadata = _read(path)
    if metadata.get("checksum") != checksum(tensors, metadata.get("numbers", "")):
        raise DamagedFileError(f"{path}: checksum differs, the file was altered or damaged; use the one before")
    try:
        state.load(tensors, json.loads(metadata["numbers"]))
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def load_newest(folder: Path, state: TrainState, group: Group = ALONE) -> tuple[Path | None, list[str]]:
    """Load the newest checkpoint that is whole; all processes of a group the same one.

    Returns:
        Its path, or None where the folder holds no checkpoint yet; and what was wrong with newer ones.

    Raises:
        RunError: There are checkpoints and all are damaged.
    """
    damaged = []
    for path in reversed(group.first(lambda: list_checkpoints(folder))):
        try:
            load_checkpoint(path, state)
        except DamagedFileError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    if damaged:
        reason = damaged[0].rpartition(";")[0]
        raise RunError(f"run={folder.parent}: none of its checkpoints can be used ({reason}); train anew with --out")
    return None, []


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints by step, oldest first; temporary files of a crash are not among them."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def _read(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    with open_tensor_file(path, way_out="use the previous checkpoint") as file:
        return file.read_all(), file.metadata


def checksum(tensors: Mapping[str, Tensor], numbers: str = "") -> str:
    """A hash of tensors on the CPU, by name, and of a text."""
    digest = hashlib.blake2b(numbers.encode(), digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
