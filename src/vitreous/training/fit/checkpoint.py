"""TrainState <-> files in `checkpoints/`: written atomically, with a checksum; the last two are kept."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from vitreous import atomic
from vitreous.errors import DamagedFileError, RunError
from vitreous.tensor_file import checksum, open_tensor_file
from vitreous.training.machine.distributed import SINGLE, Group
from vitreous.training.machine.parallel import full_tensor
from vitreous.training.step.state import TrainState

KEPT = 2
"""Number of checkpoints to keep: the last one, and the one before it in case the last one is damaged."""

_NAME = re.compile(r"step-(\d+)\.safetensors")
_FALLBACK = "the checkpoint before it is used"


def save_checkpoint(folder: Path, state: TrainState, group: Group = SINGLE) -> Path:
    """Save the state, then remove all but the last two checkpoints; return the path of the new one.

    Checkpoints of later steps are removed too: the run went back to an earlier step because they were damaged. The file
    holds full tensors even if the model is sharded, so any number of processes can resume from it.

    Raises:
        SaveError: The file cannot be written; the earlier checkpoints are not changed.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in state.tensors().items():
        full = full_tensor(tensor.detach())
        if group.is_first:
            tensors[name] = full.cpu().contiguous()
    return group.from_first(lambda: _write(folder, state, tensors))


def _write(folder: Path, state: TrainState, tensors: Mapping[str, Tensor]) -> Path:
    numbers = json.dumps(state.numbers(), sort_keys=True)
    content = save(dict(tensors), {"numbers": numbers, "checksum": checksum(tensors, numbers)})
    path = folder / f"step-{state.step:09d}.safetensors"
    atomic.write_bytes(path, content)
    paths = list_checkpoints(folder)
    last = paths.index(path)
    for other in [*paths[: max(0, last + 1 - KEPT)], *paths[last + 1 :]]:
        other.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path, state: TrainState) -> None:
    """Load a checkpoint into `state`. Raises DamagedFileError if it was changed or belongs to another run."""
    with open_tensor_file(path, way_out=_FALLBACK) as file:
        tensors, metadata = file.read_all(), file.metadata
    if metadata.get("checksum") != checksum(tensors, metadata.get("numbers", "")):
        raise DamagedFileError(f"{path}: the checksum is wrong, so the file was changed or damaged; {_FALLBACK}")
    try:
        state.load(tensors, json.loads(metadata["numbers"]))
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def load_newest(folder: Path, state: TrainState, group: Group = SINGLE) -> tuple[Path | None, list[str]]:
    """Load the newest checkpoint that is not damaged; all processes of a group load the same one.

    Returns:
        Its path, or None if the folder has no checkpoint yet; and what is wrong with each newer one.

    Raises:
        RunError: There are checkpoints, and all of them are damaged.
    """
    damaged = []
    for path in reversed(group.from_first(lambda: list_checkpoints(folder))):
        try:
            load_checkpoint(path, state)
        except DamagedFileError as error:
            damaged.append(str(error))
        else:
            return path, damaged
    if damaged:
        reason, _, way_out = damaged[0].replace(_FALLBACK, "train again with --out").rpartition("; ")
        raise RunError(f"run={folder.parent}: none of its checkpoints can be used ({reason}); {way_out}")
    return None, []


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints by step, oldest first, without temporary files that a crash left."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def step_of(path: Path) -> int:
    """Return the step of a checkpoint, from its name."""
    return int(path.stem.rpartition("-")[2])
