"""Configuration keys -> `docs/keys.md`: the page is up to date and describes every key.

`python -m tests.contract.test_keys_doc` (or `make docs-keys`) writes it again.
"""

import pytest
from tests.contract.sources import ROOT

from vitreous.recipe import key_reference
from vitreous.recipe.keys import ROOMS, rules

FILE = ROOT / "docs" / "keys.md"
ROWS = {row.key: row for room in ROOMS for row in key_reference.rows(room)}


def test_page_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == key_reference.as_markdown(), "run `make docs-keys`"


@pytest.mark.parametrize("key", rules())
def test_key_is_described(key: str) -> None:
    meaning = ROWS[key].meaning
    assert meaning.endswith("."), "the `Attributes:` section of its config class has no sentence about it"
    assert "|" not in "".join(vars(ROWS[key]).values()), "it would end the cell of the table"


@pytest.mark.parametrize("key", rules())
def test_error_message_says_what_to_do(key: str) -> None:
    assert rules()[key].hint or not rules()[key].is_required, "a key without a default needs a hint next to its range"


@pytest.mark.parametrize("room", ROOMS)
def test_room_describes_no_key_that_does_not_exist(room: str) -> None:
    described = set(key_reference.attributes(ROOMS[room]))
    assert described == set(ROOMS[room].__dataclass_fields__)


def test_text_for_the_terminal_has_the_same_content() -> None:
    words = key_reference.as_text(width=80)
    assert max(map(len, words.splitlines())) <= 80
    flat = " ".join(words.split())
    for row in ROWS.values():
        assert row.key in flat
        assert " ".join(row.meaning.split()) in flat


if __name__ == "__main__":
    FILE.write_text(key_reference.as_markdown(), encoding="utf-8")
