import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vitreous.errors import SaveError
from vitreous.training.folder.records import Recorder, ignore, read_records


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def strip(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def test_record_is_one_json_line_with_kind_and_time(path: Path) -> None:
    recorder = Recorder(path)
    recorder.record("step", {"loss": 0.5, "shape": (2, 3)})
    recorder.record("end", {})
    first, second, rest = path.read_text().split("\n")
    assert rest == ""
    assert json.loads(first).keys() == {"kind", "time", "loss", "shape"}
    assert strip(read_records(path)) == [{"kind": "step", "loss": 0.5, "shape": [2, 3]}, {"kind": "end"}]
    assert json.loads(second)["time"] >= json.loads(first)["time"] > 1.7e9


def test_listener_gets_records_and_progress_but_progress_is_not_written(path: Path) -> None:
    events: list[tuple[str, Any]] = []
    recorder = Recorder(path, lambda kind, fields: events.append((kind, dict(fields))))
    recorder.record("step", {"loss": float("inf")})
    recorder.show("progress", {"loss": 0.25})
    assert events == [("step", {"loss": float("inf")}), ("progress", {"loss": 0.25})]
    assert [record["kind"] for record in read_records(path)] == ["step"]
    ignore("step", {})


def test_nan_and_infinity_become_valid_json_at_any_depth(path: Path) -> None:
    fields = {"loss": float("nan"), "all": [1.0, float("inf"), {"low": float("-inf")}], "pair": (float("nan"), 2)}
    Recorder(path).record("refused", fields)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not valid JSON")

    record = json.loads(path.read_text(), parse_constant=refuse)
    del record["time"]
    assert record == {"kind": "refused", "loss": "nan", "all": [1.0, "inf", {"low": "-inf"}], "pair": ["nan", 2]}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_line_that_a_crash_cut_short_is_skipped_and_the_next_record_starts_a_new_line(path: Path, cut: int) -> None:
    Recorder(path).record("first", {"n": 1})
    Recorder(path).record("second", {"text": "x" * 50})
    path.write_bytes(path.read_bytes()[:-cut])
    Recorder(path).record("third", {"n": 3})
    assert strip(read_records(path))[0] == {"kind": "first", "n": 1}
    assert strip(read_records(path))[-1] == {"kind": "third", "n": 3}
    is_complete = cut == 1  # only the line break was lost
    assert len(read_records(path)) == 2 + is_complete


def test_file_that_ends_inside_a_character_can_be_read(path: Path) -> None:
    Recorder(path).record("first", {"n": 1})
    Recorder(path).record("second", {"text": "ü"})
    path.write_bytes(path.read_bytes()[:-4])
    assert strip(read_records(path)) == [{"kind": "first", "n": 1}]


def test_lines_that_are_not_records_are_skipped(path: Path) -> None:
    path.write_text('[1, 2]\n"text"\n{"no": "kind"}\nnot json\n\n{"kind": "step"}\n')
    assert read_records(path) == [{"kind": "step"}]


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_back_unchanged(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    Recorder(path).record("data", {"name": text})
    assert strip(read_records(path)) == [{"kind": "data", "name": text}]


@pytest.mark.parametrize("name", ["caf\udce9", "a\u2028b\u2029c\x85d\x1ce", "\x00\n\r"])
def test_any_file_name_is_read_back_unchanged(path: Path, name: str) -> None:
    Recorder(path).record("data", {"skipped": [[name, "empty"]]})
    assert strip(read_records(path)) == [{"kind": "data", "skipped": [[name, "empty"]]}]


def test_line_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "gone" / "records.jsonl")
    with pytest.raises(SaveError) as caught:
        recorder.record("step", {})
    assert str(caught.value) == (
        f"{tmp_path / 'gone' / 'records.jsonl'}: could not be written (No such file or directory); free some space"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_an_error() -> None:
    with pytest.raises(SaveError) as caught:
        Recorder(Path("/dev/full")).record("step", {})
    assert str(caught.value) == "/dev/full: could not be written (No space left on device); free some space"
