"""Model <-> `model.safetensors`: the weights, with everything needed to use them in the header."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitreous.errors import ConfigError, DamagedFileError, NotARunError
from vitreous.model.build import build_model, model_from_state
from vitreous.model.change.lora import merge_lora
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.reading.strict import COPY_AGAIN, check_plausible, check_shapes, check_values
from vitreous.tensor_file import TensorFile, checksum, open_tensor_file, write_tensor_file

METADATA_KEY = "vitreous"
"""Key of the safetensors header that marks a file as written by `save_model`."""
_FORMAT = 1
_OWN_KEYS = ("format", "architecture")
_WAY_OUT = f"if it is cut short or altered, {COPY_AGAIN}"


def save_model(path: str | Path, model: VisionTransformer, metadata: Mapping[str, object]) -> None:
    """Write the weights and their description atomically.

    The model may be in any dtype, on any device, compiled or not; its values are kept bit for bit. The metadata are
    values that JSON can hold; `read_metadata` returns them.

    Raises:
        ConfigError: `metadata` has a reserved key, or a value that JSON cannot hold.
        SaveError: The file could not be written; an older file is then untouched.
    """
    for key in _OWN_KEYS:
        if key in metadata:
            raise ConfigError(f"metadata.{key}={metadata[key]!r}: save_model writes this key itself; use another key")
    plain = uncompiled(model)
    try:
        header = json.dumps({"format": _FORMAT, "architecture": plain.config.as_dict(), **metadata}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"metadata={sorted(metadata)}: cannot be written as JSON ({error}); use plain values"
        ) from error
    tensors = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}
    write_tensor_file(Path(path), tensors, {METADATA_KEY: header})


def uncompiled(model: VisionTransformer) -> VisionTransformer:
    """Return the model inside a compiled one, which prefixes every name with `_orig_mod.`, with merged LoRA updates."""
    return merge_lora(getattr(model, "_orig_mod", model))


def fingerprint(model: VisionTransformer) -> str:
    """Return a hash of the weights; it does not depend on the file that holds them."""
    return checksum(model.state_dict())


def load_native(path: str | Path) -> VisionTransformer:
    """Load a model that `save_model` wrote, on the CPU, in evaluation mode.

    Nothing is unpickled or executed. Tensors are read only after the header was found to match its architecture.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, from another library, holds NaN, or does not match its architecture.
    """
    path = Path(path)
    with _opened(path) as file:
        config = _architecture(path, _metadata(path, file))
        _check_tensors(path, config, file.shapes())
        state = file.read_all()
    check_values(path, state)
    return model_from_state(config, state).eval()


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the `metadata` given to `save_model`, with `format` and `architecture` added. Reads no weights.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, or from another library.
    """
    path = Path(path)
    with _opened(path) as file:
        return _metadata(path, file)


def is_native(path: Path) -> bool:
    """Return True if `save_model` wrote the file, judging by its header; False for damaged or foreign files."""
    try:
        with open_tensor_file(path, way_out=_WAY_OUT) as file:
            return METADATA_KEY in file.metadata
    except DamagedFileError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[TensorFile]:
    if not path.is_file():
        fault = "is a folder" if path.is_dir() else "no such file"
        raise NotARunError(f"{path}: {fault}; give a model.safetensors written by vitreous")
    with open_tensor_file(path, way_out=_WAY_OUT) as file:
        yield file


def _metadata(path: Path, file: TensorFile) -> dict[str, Any]:
    text = file.metadata.get(METADATA_KEY)
    if text is None:
        raise DamagedFileError(f"{path}: has no vitreous metadata; give a file written by vitreous")
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path}: its metadata is not valid JSON ({error}); {COPY_AGAIN}") from error
    got = metadata.get("format") if isinstance(metadata, dict) else None
    if got != _FORMAT:
        raise DamagedFileError(
            f"{path}: has format {got!r}, but this version reads only format {_FORMAT}; "
            "use the vitreous version that wrote it"
        )
    return metadata


def _architecture(path: Path, metadata: dict[str, Any]) -> ModelConfig:
    values = metadata.get("architecture")
    if not isinstance(values, dict):
        raise DamagedFileError(f"{path}: its metadata has no architecture; {COPY_AGAIN}")
    try:
        return ModelConfig.from_dict(values)
    except ConfigError as error:
        raise DamagedFileError(f"{path}: its architecture is not valid ({error}); {COPY_AGAIN}") from error


def _check_tensors(path: Path, config: ModelConfig, found: dict[str, tuple[int, ...]]) -> None:
    check_plausible(path, config, found)
    skeleton = build_model(config, device="meta")
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    check_shapes(path, expected=expected, found=found, way_out=COPY_AGAIN)
