"""`vitreous benchmark`: the table, the JSON document, and invalid requests."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_table_compares_with_the_first_row(run: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    copied = shutil.copy(run / "model.safetensors", tmp_path / "copy.safetensors")
    said = cli("benchmark", run, copied, "--data", photos, "--batch-size", "2")
    assert (said.code, said.err) == (0, "")
    heading, first, second, last = said.out.splitlines()[-4:]
    assert heading.split()[:4] == ["ms", "for", "1", "photo"]
    assert "photos/s in batches of 2" in heading
    assert first.startswith(f"{run} ")
    assert second.startswith(f"{copied} ")
    assert second.rstrip().endswith(" 0")  # the largest difference
    assert last.startswith("median times on 61 photos (")


def test_result_is_one_json_document_if_requested(run: Path, photos: Path, cli: Cli) -> None:
    said = cli("benchmark", run, "--data", photos, "--json")
    found = json.loads(said.out)
    assert (said.code, found["num_images"], found["batch_size"]) == (0, 61, 32)
    assert set(found["models"][str(run)]) == {
        "num_same", "largest_difference", "worst", "latency_ms", "images_per_s", "size_bytes"
    }  # fmt: skip
    assert found["hardware"]["device"] == "cpu"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "MODELS: missing argument of `vitreous benchmark`"),
        (("x.pt2", "--batch-size", "0"), "batch_size=0: must be in [1, 4096]"),
        (("x.pt2", "--batch-size", "1.5"), "--batch-size=1.5: must be a whole number"),
        (("none",), "run=none: does not exist"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: tuple[str, ...], line: str, cli: Cli) -> None:
    said = cli("benchmark", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
