"""The code of docs/models.md runs."""

import re

import pytest
from tests.contract.sources import ROOT

PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", [n for n, text in enumerate(BLOCKS) if not text.startswith("# doctest: skip")])
def test_block_runs(number: int) -> None:
    exec(compile(BLOCKS[number], f"docs/models.md, block {number}", "exec"), {})


def test_blocks_that_need_other_files_or_packages_are_at_least_valid() -> None:
    skipped = [text for text in BLOCKS if text.startswith("# doctest: skip")]
    assert [text.splitlines()[0] for text in skipped] == [
        "# doctest: skip (needs checkpoints)",
        "# doctest: skip (needs timm)",
    ]
    for text in skipped:
        compile(text, "docs/models.md", "exec")
