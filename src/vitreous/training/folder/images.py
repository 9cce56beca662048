"""Survey -> `images.safetensors`: 9 bytes per image, by which a run recognizes its images wherever they are now.

An image is known by a hash of its content: a renamed, copied or moved file is recognized, a re-encoded one is not.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vitreous.data.sources import SPLITS, Texts
from vitreous.data.survey.facts import Survey
from vitreous.model.weights import is_native, read_metadata
from vitreous.tensor_file import open_tensor_file, parsing, write_tensor_file
from vitreous.training.folder.run_folder import RunFolder

_WAY_OUT = "delete it; known images are then no longer recognized"


def write_images(path: Path, surveyed: Survey) -> None:
    """Write the first 8 bytes of the content hash of each image of a run, sorted, and its split.

    With 8 bytes, an image is taken for one of a million others with probability 5e-14.

    Raises:
        SaveError: The file could not be written.
    """
    members = [surveyed.indices[split] for split in SPLITS]
    hashes = _short(surveyed.digests[np.concatenate(members)])
    splits = np.repeat(np.arange(len(SPLITS), dtype=np.uint8), [len(indices) for indices in members])
    order = np.lexsort((splits, hashes))  # of several copies, the one that was trained on comes first
    tensors = {"hashes": torch.from_numpy(hashes[order]), "splits": torch.from_numpy(splits[order])}
    write_tensor_file(path, tensors, {"data_fingerprint": surveyed.facts.fingerprint})


def splits_in_run(weights: Path, digests: NDArray[np.uint8]) -> Texts | None:
    """Return the split that images had in a run, an empty string for images that were not in it, `[n]`.

    `weights` is the folder of a finished run, or its model file; `digests` are `digest_of` each image, `[n, 16]`.

    Returns:
        The splits; None if there is no record of the images that these weights were trained with.

    Raises:
        DamagedFileError: A file of the run was altered.
    """
    folder = RunFolder(weights if weights.is_dir() else weights.parent)
    model = folder.model if weights.is_dir() else weights
    if not folder.images.is_file() or not is_native(model):
        return None
    with open_tensor_file(folder.images, way_out=_WAY_OUT) as file, parsing(folder.images, _WAY_OUT):
        if file.metadata.get("data_fingerprint") != read_metadata(model).get("data_fingerprint"):
            return None  # the file of another run
        known, splits = file.read("hashes").numpy(), file.read("splits").numpy()
        found = np.minimum(np.searchsorted(known, _short(digests)), len(known) - 1)
        names = np.array(SPLITS, dtype="<U5")[splits]
        return np.where(known[found] == _short(digests), names[found], "")


def _short(digests: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.ascontiguousarray(digests[:, :8]).view("<i8")[:, 0].astype(np.int64)
