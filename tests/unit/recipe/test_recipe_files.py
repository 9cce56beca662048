import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vitreous.errors import ConfigError, UnknownNameError
from vitreous.recipe import keys
from vitreous.recipe.files import as_yaml, read_config, read_values, write_config
from vitreous.recipe.run_config import RunConfig


def refuse(path: Path, text: str | bytes, kind: type[ConfigError] = ConfigError) -> str:
    """Write a file and return the message with which it is refused."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(kind) as caught:
        read_values(path)
    return str(caught.value)


def test_config_file_restores_every_key(tmp_path: Path, config: RunConfig) -> None:
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config
    assert keys.take_apart(read_config(tmp_path / "config.yaml")) == keys.take_apart(config)


def test_file_is_grouped_by_room_and_plain_yaml(config: RunConfig) -> None:
    content = yaml.safe_load(as_yaml(config))
    assert list(content) == ["recipe", *keys.ROOMS]
    assert content["recipe"] == "by-hand"
    assert content["data"]["img_size"] == [24, 36]
    assert {f"{room}.{key}" for room in keys.ROOMS for key in content[room]} == set(keys.rules())


@pytest.mark.parametrize(
    "source", ["yes", "1e3", "null", "a: b", "- x", "#", "C:\\pictures", "\u2028 \x85", "caf\udce9"]
)
def test_folder_names_of_any_kind_are_restored(tmp_path: Path, values: dict[str, Any], source: str) -> None:
    config = keys.assemble("by-hand", values | {"data.source": source})
    write_config(tmp_path / "config.yaml", config)
    assert read_config(tmp_path / "config.yaml") == config


def test_recipe_may_set_a_single_key(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 1e-3}\n")
    assert read_values(path) == (None, {"optim.lr": 0.001})
    path.write_text("recipe: digits\ndata:\n  img_size: 12\n")
    assert read_values(path) == ("digits", {"data.img_size": (12, 12)})


def test_recipe_without_a_name_is_named_after_its_file(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "mine.yaml").write_text(as_yaml(config).replace("recipe: by-hand\n", ""))
    assert read_config(tmp_path / "mine.yaml").recipe == "mine"


def test_incomplete_file_is_refused_as_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("optim: {lr: 1e-3}\n")
    with pytest.raises(ConfigError, match=r"^recipe=mine: does not set data\.img_size, .*; set each"):
        read_config(tmp_path / "mine.yaml")


def test_unknown_key_suggests_the_nearest(tmp_path: Path) -> None:
    message = refuse(tmp_path / "r.yaml", "optim: {learning: 0.1}", UnknownNameError)
    assert message.startswith("optim.learning=0.1: no such key; ")
    message = refuse(tmp_path / "r.yaml", "model: {pach_size: 4}", UnknownNameError)
    assert message == "model.pach_size=4: no such key; did you mean model.patch_size?"


@pytest.mark.parametrize(
    ("text", "name"), [("optimizer: {lr: 1}", "optimizer"), ("1: {lr: 1}", "1"), ("~: {}", "None")]
)
def test_unknown_room_is_refused(tmp_path: Path, text: str, name: str) -> None:
    message = refuse(tmp_path / "r.yaml", text, UnknownNameError)
    assert message.startswith(f"{tmp_path / 'r.yaml'}: section {name}: no such section; ")
    assert message.endswith(
        "did you mean optim?" if name == "optimizer" else "use one of data, model, objective, optim, train"
    )


def test_key_in_place_of_a_room_suggests_the_key(tmp_path: Path) -> None:
    message = refuse(tmp_path / "r.yaml", "lr: 0.1", UnknownNameError)
    assert message == f"{tmp_path / 'r.yaml'}: section lr: no such section; did you mean optim.lr?"


def test_room_without_keys_is_refused(tmp_path: Path) -> None:
    message = refuse(tmp_path / "r.yaml", "optim: 0.5")
    assert message == f"{tmp_path / 'r.yaml'}: section optim=0.5: must contain keys; write them indented below it"


@pytest.mark.parametrize(("text", "what"), [("", "nothing"), ("- 1\n- 2", "a list"), ("just words", "a str")])
def test_file_without_rooms_is_refused(tmp_path: Path, text: str, what: str) -> None:
    message = refuse(tmp_path / "r.yaml", text)
    assert (
        message == f"recipe={tmp_path / 'r.yaml'}: contains {what} instead of sections; compare it with a config.yaml"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optim: {lr: 1", "line 1: expected ',' or '}', but got '<stream end>'"),
        ("optim:\n  lr: 1\n bad", "line 3: expected <block end>"),
        (b"\xff\xfe\x00", "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        ("optim: \x00", "unacceptable character #x0000: special characters are not allowed"),
        ("[" * 5000, "maximum recursion depth exceeded"),
        ("train: {seed: 2001-13-45}", "month must be in 1..12"),
        ('train: {seed: !!int ""}', "string index out of range"),
        ("train: {seed: !!bool maybe}", "'maybe'"),
        ("train: {seed: 0x_}", "invalid literal for int() with base 16: ''"),
        ("? [a]\n: b", "line 1: found unhashable key"),
    ],
)
def test_broken_yaml_is_refused_with_the_reason(tmp_path: Path, text: str | bytes, reason: str) -> None:
    message = refuse(tmp_path / "r.yaml", text)
    assert message.startswith(f"recipe={tmp_path / 'r.yaml'}: cannot be read as YAML ({reason}")
    assert message.endswith("); compare it with a config.yaml")
    assert "\n" not in message


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:subprocess.Popen [['touch', '{}']]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        "!!python/tuple [1, 2]",
        "!unknown 1",
    ],
)
def test_tag_that_would_make_an_object_is_refused(tmp_path: Path, tag: str) -> None:
    message = refuse(tmp_path / "r.yaml", f"train:\n  seed: {tag.replace('{}', str(tmp_path / 'made'))}\n")
    assert "could not determine a constructor for the tag" in message
    assert not (tmp_path / "made").exists()


def test_aliases_that_expand_to_gigabytes_are_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    message = refuse(tmp_path / "r.yaml", "\n".join([*lines, "data: {flip: *a29}"]))
    assert "line 2: aliases are not allowed" in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("optim: {lr: 1}\ntrain: {seed: 3}\noptim: {beta1: 0.5}", "line 3: duplicate key optim"),
        ("optim:\n  lr: 1\n  lr: 2\n", "line 3: duplicate key lr"),
    ],
)
def test_duplicate_key_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert f"cannot be read as YAML ({reason})" in refuse(tmp_path / "r.yaml", text)


def test_large_file_is_not_read(tmp_path: Path) -> None:
    message = refuse(tmp_path / "r.yaml", "#" * (1 << 20) + "\n")
    way_out = "check that it is a recipe"
    assert message == f"recipe={tmp_path / 'r.yaml'}: has 1,048,577 bytes, more than the 1,048,576 allowed; {way_out}"


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"recipe={tmp_path / 'gone.yaml'}: no such file; name a shipped")):
        read_values(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=re.escape(f"recipe={tmp_path}: cannot be read as YAML (Is a directory)")):
        read_values(tmp_path)
