from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vitreous.recipe.key_reference import as_text
from vitreous.recipe.keys import rules


def test_help_keys_lists_every_key_without_data(
    cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("train", "--help-keys")
    assert (said.code, said.out, said.err) == (0, as_text() + "\n", "")
    assert [key for key in rules() if f"\n{key}  (" not in said.out] == []
    assert list(tmp_path.iterdir()) == []


def test_help_of_train_mentions_help_keys(cli: Callable[..., Any]) -> None:
    assert cli("train", "--help").out.count("--help-keys") >= 2


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--weight-decay", "--weight-decay: no such option; did you mean --optim.weight_decay?\n"),
        ("--mixup-alpha", "--mixup-alpha: no such option; did you mean --data.mixup_alpha?\n"),
        ("--accumulate", "--accumulate: no such option; did you mean --train.micro_batches?\n"),
        ("--learning-rate", "--learning-rate: no such option; did you mean --optim.lr?\n"),
    ],
)
def test_option_without_its_room_suggests_the_key(cli: Callable[..., Any], option: str, line: str) -> None:
    said = cli("train", "digits", option, "3")
    assert (said.code, said.out, said.err) == (2, "", line)
