"""`vitreous report`: the report of a run, and a page that compares several."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.cli.conftest import Said

Cli = Callable[..., Said]


@pytest.fixture
def own(run: Path, tmp_path: Path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(run, tmp_path / "own run"))


def test_report_is_written_again(own: Path, cli: Cli) -> None:
    (own / "report.html").unlink()
    said = cli("report", own)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{own}/report.html (")
    assert said.out.endswith(f"MB), numbers in {own}/report.json\n")
    assert 'src="data:image/jpeg' in (own / "report.html").read_text(encoding="utf-8")


def test_no_photos_leaves_them_out(own: Path, cli: Cli) -> None:
    assert cli("report", own, "--no-photos").code == 0
    assert "data:image/jpeg" not in (own / "report.html").read_text(encoding="utf-8")
    assert json.loads((own / "report.json").read_text(encoding="utf-8"))["no_photos"] is True


def test_out_writes_elsewhere_and_changes_nothing_in_the_run(own: Path, cli: Cli, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in own.iterdir() if path.is_file()}
    assert cli("report", own, "--no-photos", "--out", tmp_path / "mine.html").code == 0
    assert {path: path.read_bytes() for path in own.iterdir() if path.is_file()} == before
    assert (tmp_path / "mine.html").is_file()
    assert json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))["run"] == "own run"


def test_numbers_of_someone_else_are_not_replaced(own: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "photos.json").write_text("annotations", encoding="utf-8")
    said = cli("report", own, "--no-photos", "--out", tmp_path / "photos.html")
    rule = f"its numbers would replace {tmp_path / 'photos.json'}; choose another name"
    assert (said.code, said.err) == (2, f"out={tmp_path / 'photos.html'}: {rule}\n")
    assert (tmp_path / "photos.json").read_text(encoding="utf-8") == "annotations"
    for _ in range(2):  # numbers of an earlier report are replaced
        assert cli("report", own, "--no-photos", "--out", tmp_path / "mine.html").code == 0


def test_several_runs_are_compared(
    run: Path, own: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("report", run, own)
    assert (said.code, said.err) == (0, "")
    assert "not distinguishable" in Path("comparison.html").read_text(encoding="utf-8")
    assert cli("report", run, own, "--out", "other.html").code == 0
    assert Path("other.json").is_file()


@pytest.mark.parametrize(("words", "line"), [
    ([], "RUN: missing argument of `vitreous report`; see `vitreous report --help`"),
    (["nowhere"], "run=nowhere: does not exist; "),
    (["RUN", "--out", "x.pdf"], "out=x.pdf: ends in .pdf; use one of .html, .htm"),
    (["RUN", "--out", "none/x.html"], "out=none/x.html: the folder none does not exist; create it first"),
    (["RUN", "RUN"], "runs=2: too many for a page, or one of them twice; give 2 to 12 runs"),
])  # fmt: skip
def test_invalid_request_is_reported_in_one_line(
    words: list[str], line: str, run: Path, own: Path, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("report", *({"RUN": str(run)}.get(word, word) for word in words))
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(line)
    assert said.err.count("\n") == 1


def test_unfinished_run_is_reported_with_the_command_that_finishes_it(own: Path, cli: Cli) -> None:
    (own / "model.safetensors").unlink()
    said = cli("report", own)
    assert said.code == 2
    assert f"is not finished; continue it with `vitreous train --resume '{own}'`" in said.err
