"""RunConfig <-> YAML: a run can be repeated from the file that it wrote."""

from pathlib import Path
from typing import Any

import yaml

from vitreous import atomic
from vitreous.errors import ConfigError, UnknownNameError, nearest
from vitreous.recipe import keys
from vitreous.recipe.run_config import RunConfig
from vitreous.wording import printable_error

_MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """A YAML loader without features that are unsafe in untrusted recipes or that would silently lose a value.

    Tags cannot create objects. Aliases are rejected, since a few lines of them can expand to gigabytes. Duplicate keys
    are rejected, since only one of them would count.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key.value}", key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_values(path: Path) -> tuple[str | None, dict[str, Any]]:
    """Read the recipe name and the checked keys of a YAML recipe or `config.yaml`. The file may leave out both.

    Raises:
        ConfigError: The file is not a YAML mapping of sections to keys, or a value has the wrong type or is out of
            range.
        UnknownNameError: A section or key does not exist.
    """
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= _MAX_BYTES else ""
        content = yaml.load(text, Loader=_Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"recipe={path}: no such file; name a shipped recipe or an existing YAML file") from error
    except Exception as error:  # PyYAML raises many other types, e.g. IndexError or OverflowError for odd scalars.
        reason = _reason(error)
        raise ConfigError(f"recipe={path}: cannot be read as YAML ({reason}); compare it with a config.yaml") from error
    if size > _MAX_BYTES:
        raise ConfigError(
            f"recipe={path}: has {size:,} bytes, more than the {_MAX_BYTES:,} allowed; check that it is a recipe"
        )
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"recipe={path}: contains {found} instead of sections; compare it with a config.yaml")
    name = content.pop("recipe", None)
    for room, section in content.items():
        if room not in keys.ROOMS:
            named = [] if isinstance(section, dict) else keys.keys_named(str(room))
            way_out = f"did you mean {' or '.join(named)}?" if named else nearest(str(room), keys.ROOMS)
            raise UnknownNameError(f"{path}: section {room}: no such section; {way_out}")
        if not isinstance(section, dict):
            raise ConfigError(f"{path}: section {room}={section}: must contain keys; write them indented below it")
    return None if name is None else str(name), keys.checked(keys.renamed(keys.flatten(content)))


def read_config(path: Path) -> RunConfig:
    """Read a complete RunConfig. Raises the errors of `read_values`, and ConfigError if keys are missing."""
    name, values = read_values(path)
    return keys.assemble(name or path.stem, {"data.task": "single", **values})  # older runs know no other task


def write_config(path: Path, config: RunConfig) -> None:
    """Write `as_yaml` atomically. Raises SaveError if the file cannot be written."""
    atomic.write_text(path, as_yaml(config))


def as_yaml(config: RunConfig) -> str:
    """Return all keys as YAML, section by section; `read_config` reads them back."""
    sections: dict[str, Any] = {"recipe": config.recipe}
    for key, value in keys.take_apart(config).items():
        room, name = key.split(".")
        sections.setdefault(room, {})[name] = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(sections, sort_keys=False, default_flow_style=None, allow_unicode=True)


def _reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable_error(error)
