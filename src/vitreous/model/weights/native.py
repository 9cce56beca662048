"""A model -> `model.safetensors` -> the same model: weights, and in the header all that is needed to use them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vitreous import atomic
from vitreous.errors import ConfigError, DamagedFileError, NotARunError
from vitreous.model.build import build_model, model_from_state
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.strict import AGAIN, check_plausible, check_shapes, check_values

METADATA_KEY = "vitreous"
"""Of the text in a safetensors header that makes a file ours."""
_FORMAT = 1
_OWN_KEYS = ("format", "architecture")


def save_model(path: str | Path, model: VisionTransformer, metadata: Mapping[str, object]) -> None:
    """Write the weights and what describes them; complete or not at all.

    Args:
        path: The file; its folder must exist.
        model: In any dtype, on any device, compiled or not; its values are kept bit for bit.
        metadata: Anything that JSON can hold: classes, preprocessing, metrics …; `read_metadata` returns it.

    Raises:
        ConfigError: `metadata` has one of our own keys, or a value that JSON cannot hold.
        SaveError: The file could not be written; one that stood there before is untouched.
    """
    for key in _OWN_KEYS:
        if key in metadata:
            raise ConfigError(f"metadata.{key}={metadata[key]!r}: is written by save_model itself; choose another key")
    # torch.compile wraps the model, and the wrapper prefixes every name with `_orig_mod.`.
    plain = getattr(model, "_orig_mod", model)
    try:
        header = json.dumps({"format": _FORMAT, "architecture": plain.config.as_dict(), **metadata}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"metadata={sorted(metadata)}: cannot be written as JSON ({error}); use plain values"
        ) from error
    tensors = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}

    def fill(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata={METADATA_KEY: header})
        except SafetensorError as error:  # how safetensors reports a full disk
            raise OSError(str(error)) from error

    atomic.write(Path(path), fill)


def load_native(path: str | Path) -> VisionTransformer:
    """The model that `save_model` wrote, on the CPU, in evaluation mode.

    Nothing is unpickled or executed, and weights are read only once the file's header fits the model it describes.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, not ours, holds NaN, or its tensors are not exactly the model's.
    """
    path = Path(path)
    with _opened(path) as file:
        config = _architecture(path, _metadata(path, file))
        _check_tensors(path, config, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        # A clone, because the file is memory-mapped: a model must not change with a file that is overwritten in place.
        state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    check_values(path, state)
    return model_from_state(config, state).eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_model` was given as `metadata`, with `format` and `architecture`; reads no weights.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, or not ours.
    """
    path = Path(path)
    with _opened(path) as file:
        return _metadata(path, file)


def is_native(path: Path) -> bool:
    """Whether a file is ours by its header; a damaged or foreign one is not."""
    try:
        with safe_open(path, framework="pt") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "no such file"
        raise NotARunError(f"{path}: {what}; give a model.safetensors that vitreous wrote")
    try:
        # safe_open checks that the header's offsets fill the file exactly before anything is allocated.
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(
            f"{path}: cannot be read as safetensors ({error}); if it was cut short or altered, copy or train it again"
        ) from error


def _metadata(path: Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(METADATA_KEY)
    if text is None:
        raise DamagedFileError(f"{path}: safetensors without vitreous metadata; give a file that vitreous wrote")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its metadata is not JSON ({error}); copy or train it again") from error
    got = metadata.get("format") if isinstance(metadata, dict) else None
    if got != _FORMAT:
        raise DamagedFileError(
            f"{path}: has format {got!r}, this version reads {_FORMAT}; use the vitreous version that wrote it"
        )
    return metadata


def _architecture(path: Path, metadata: dict[str, Any]) -> ModelConfig:
    values = metadata.get("architecture")
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: its metadata says no architecture; copy or train it again")
    try:
        return ModelConfig.from_dict(values)
    except ConfigError as error:
        raise DamagedFileError(f"{path}: its architecture is not valid ({error}); copy or train it again") from error


def _check_tensors(path: Path, config: ModelConfig, found: dict[str, tuple[int, ...]]) -> None:
    check_plausible(path, config, found)
    skeleton = build_model(config, device="meta")
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    check_shapes(path, expected=expected, found=found, way_out=AGAIN)
