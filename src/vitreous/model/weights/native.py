"""Model <-> `model.safetensors`: the weights, with everything needed to use them in the header."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vitreous.errors import ConfigError, DamagedFileError, NotARunError
from vitreous.model.build import build_model, model_from_state
from vitreous.model.change.lora import merge_lora
from vitreous.model.config.model_config import ModelConfig
from vitreous.model.vit import VisionTransformer
from vitreous.model.weights.formats import FORMATS
from vitreous.model.weights.reading.strict import COPY_AGAIN, check_plausible, check_shapes, check_values
from vitreous.model.weights.table import Row, Shapes, expected_shapes, read_tensors, refusals
from vitreous.tensor_file import TensorFile, checksum, open_tensor_file, write_tensor_file
from vitreous.wording import printable_value

METADATA_KEY = "vitreous"
"""Key of the safetensors header that marks a file as written by `save_model`."""
_FORMAT = 1
_OWN_KEYS = ("format", "architecture", "layout")
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
    tensors = {name: tensor.detach().contiguous() for name, tensor in plain.state_dict().items()}
    write_tensor_file(Path(path), tensors, header_of(plain.config, metadata))


def header_of(config: ModelConfig, metadata: Mapping[str, object], layout: str | None = None) -> dict[str, str]:
    """Return the entry of a safetensors header that describes a model, by its key.

    `layout` names the format that the tensor names follow, such as `timm`; None for our own. Values in `metadata` that
    the entry itself determines are left out, so `read_metadata` of another file may be given.

    Raises:
        ConfigError: `metadata` has a value that JSON cannot hold.
    """
    own = {"format": _FORMAT, "architecture": config.as_dict()} | ({} if layout is None else {"layout": layout})
    given = {key: value for key, value in metadata.items() if key not in _OWN_KEYS}
    try:
        return {METADATA_KEY: json.dumps(own | given, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"metadata={sorted(metadata)}: cannot be written as JSON ({error}); use plain values"
        ) from error


def uncompiled(model: VisionTransformer) -> VisionTransformer:
    """Return the model inside a compiled one, which prefixes every name with `_orig_mod.`, with merged LoRA updates."""
    return merge_lora(getattr(model, "_orig_mod", model))


def fingerprint(model: VisionTransformer) -> str:
    """Return a hash of the weights; it does not depend on the file that holds them."""
    return checksum(model.state_dict())


def load_native(path: str | Path) -> VisionTransformer:
    """Load a model from a file that has our header, on the CPU, in evaluation mode.

    Its tensors have our names, or those of the library that its header names as the layout. Nothing is unpickled or
    executed. Tensors are read only after the header was found to match its architecture.

    Raises:
        NotARunError: There is no such file.
        DamagedFileError: It is cut short, altered, from another library, holds NaN, or does not match its architecture.
    """
    path = Path(path)
    with _opened(path) as file:
        metadata, found = _metadata(path, file), file.shapes()
        config = _architecture(path, metadata)
        check_plausible(path, config, found)
        expected, rows, counters = _expected(path, config, metadata.get("layout"))
        unread = {name for row in rows if not row.ours for name in row.theirs}
        found = {name: shape for name, shape in found.items() if name not in unread}
        check_shapes(path, expected=expected, found=found, way_out=COPY_AGAIN)
        state = {name: file.read(name) for name in found}
    check_values(path, {name: tensor for name, tensor in state.items() if tensor.dtype != counters.get(name)})
    return model_from_state(config, read_tensors(rows, state) if rows else state).eval()


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


def _expected(path: Path, config: ModelConfig, layout: object) -> tuple[Shapes, list[Row], Mapping[str, torch.dtype]]:
    """Return shapes by name of the tensors in a file, the table of their names, and the types of whole numbers by name.

    The table is empty if the names are ours. An extension may have whole numbers, such as the counter of a BatchNorm.
    """
    if layout is None:
        skeleton = build_model(config, device="meta").state_dict()
        counters = {name: tensor.dtype for name, tensor in skeleton.items() if not tensor.is_floating_point()}
        return {name: tuple(tensor.shape) for name, tensor in skeleton.items()}, [], counters
    format_ = next((each for each in FORMATS if each.name == layout), None)
    if format_ is None or refusals(format_, config):
        raise DamagedFileError(f"{path}: no model has the layout {printable_value(layout)}; {COPY_AGAIN}")
    return expected_shapes(format_, config), format_.rows(config), {}
