"""The code of docs/models.md runs."""

import re

import pytest
from tests.contract.sources import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", [n for n, text in enumerate(BLOCKS) if not text.startswith("# doctest: skip")])
def test_block_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"docs/models.md, block {number}", "exec"), {})


def test_only_the_block_that_needs_timm_is_skipped() -> None:
    assert [text for text in BLOCKS if text.startswith("# doctest: skip")] == [BLOCKS[-1]]
    compile(BLOCKS[-1], "docs/models.md", "exec")
