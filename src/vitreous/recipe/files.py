"""RunConfig <-> YAML: a run restarts from the file that it wrote."""

from pathlib import Path
from typing import Any

import yaml

from vitreous import atomic
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig

_MAX_BYTES = 1 << 20


def read_values(path: Path) -> tuple[str, dict[str, Any]]:
    """The recipe name and the checked keys of a YAML recipe or `config.yaml`; keys may be left out.

    Raises:
        ConfigError: The file is no YAML mapping of rooms to keys, or a value has the wrong type.
        UnknownNameError: A room or key that does not exist.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= _MAX_BYTES else ""
        content = yaml.safe_load(text)
    except FileNotFoundError as error:
        raise ConfigError(f"recipe={path}: no such file; name a shipped recipe or an existing YAML file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"recipe={path}: cannot be read as YAML ({reason}); compare it with a config.yaml") from error
    if size > _MAX_BYTES:
        raise ConfigError(f"recipe={path}: has {size} bytes, at most {_MAX_BYTES} are read; is it a recipe?")
    if not isinstance(content, dict):
        raise ConfigError(f"recipe={path}: holds a {type(content).__name__}, not rooms; compare it with a config.yaml")
    name = str(content.pop("recipe", path.stem))
    for room, section in content.items():
        if room not in keys.ROOMS:
            raise UnknownNameError(f"{path}: room {room}: no such room; {nearest(str(room), keys.ROOMS)}")
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: room {room}={section}: must hold keys; write them indented below it")
    return name, keys.checked(keys.flatten(content))


def read_config(path: Path) -> RunConfig:
    """A complete RunConfig. Raises ConfigError and UnknownNameError as `read_values`, and where keys are missing."""
    return keys.assemble(*read_values(path))


def write_config(path: Path, config: RunConfig) -> None:
    """Write `as_yaml` atomically. Raises SaveError where it cannot."""
    atomic.write_text(path, as_yaml(config))


def as_yaml(config: RunConfig) -> str:
    """All keys, room by room; `read_config` reads them back."""
    sections: dict[str, Any] = {"recipe": config.recipe}
    for key, value in keys.take_apart(config).items():
        room, name = key.split(".")
        sections.setdefault(room, {})[name] = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, allow_unicode=True)
