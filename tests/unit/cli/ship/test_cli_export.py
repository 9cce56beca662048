"""`vitreous export`: the table, the sentence, the program, and the section of the report."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]


@pytest.fixture
def trained(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may modify."""
    return Path(shutil.copytree(run, tmp_path / "my run"))


def test_page_is_written_and_shown_in_the_report(trained: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "page.html"
    said = cli("export", trained, "--to", "html", "--out", out)
    assert (said.code, said.err) == (0, "")
    begun, heading, python, rounded, sentence, last = said.out.splitlines()
    assert begun == "writing page.html, which may take a minute"
    assert heading.split()[:4] == ["same", "answer", "largest", "difference"]
    assert python.startswith("Python ")
    assert rounded.startswith("int8 ")
    assert sentence.startswith(f"{out}: int8, predicts the same as Python for ")
    assert last == f"open it in a browser, on a computer or a phone; it has {out.stat().st_size / 1e6:.1f} MB"
    report = json.loads((trained / "report.json").read_text("utf-8"))
    assert report["sections"]["exported"]["page.html"]["variant"] == "int8"
    assert "page.html</h3>" in (trained / "report.html").read_text("utf-8")


def test_result_is_one_json_document_if_requested(trained: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "model.pt2"
    said = cli("export", trained, "--to=torch", "--out", out, "--json")
    assert said.code == 0
    found = json.loads(said.out)
    assert (found["path"], found["variant"]) == (str(out), "float32")
    assert "torch.export.load" in found["snippets"]["python"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "--to: missing argument"),
        (("--to", "onnxx"), "to=onnxx: no such format; did you mean onnx?"),
        (("--to", "html", "--int8"), "int8=True: is for --to onnx and openvino, not html; "),
        (("--to", "torch", "--snippet", "csharp"), "snippet=csharp: is for --to onnx, not torch; "),
        (
            ("--to", "html", "--runtime", "nowhere"),
            "runtime=nowhere: has no ort.wasm.bundle.min.mjs; run `npm install ",
        ),
        (("--to", "torch", "--max-drop", "x"), "--max-drop=x: must be a number; see `vitreous export --help`"),
    ],
)
def test_invalid_request_is_reported_in_one_line(words: tuple[str, ...], line: str, trained: Path, cli: Cli) -> None:
    said = cli("export", trained, *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1
