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


def test_listener_hears_records_and_shows_but_shows_are_not_written(path: Path) -> None:
    heard: list[tuple[str, Any]] = []
    recorder = Recorder(path, lambda kind, fields: heard.append((kind, dict(fields))))
    recorder.record("step", {"loss": float("inf")})
    recorder.show("progress", {"loss": 0.25})
    assert heard == [("step", {"loss": float("inf")}), ("progress", {"loss": 0.25})]
    assert [record["kind"] for record in read_records(path)] == ["step"]
    ignore("step", {})


def test_nan_and_infinity_become_valid_json_at_any_depth(path: Path) -> None:
    fields = {"loss": float("nan"), "all": [1.0, float("inf"), {"low": float("-inf")}], "pair": (float("nan"), 2)}
    Recorder(path).record("refused", fields)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    del found["time"]
    assert found == {"kind": "refused", "loss": "nan", "all": [1.0, "inf", {"low": "-inf"}], "pair": ["nan", 2]}


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_line_that_a_crash_cut_short_is_skipped_and_the_next_one_stands_alone(path: Path, cut: int) -> None:
    Recorder(path).record("first", {"n": 1})
    Recorder(path).record("second", {"text": "x" * 50})
    path.write_bytes(path.read_bytes()[:-cut])
    Recorder(path).record("third", {"n": 3})
    assert strip(read_records(path))[0] == {"kind": "first", "n": 1}
    assert strip(read_records(path))[-1] == {"kind": "third", "n": 3}
    whole = cut == 1  # only the line's end was lost
    assert len(read_records(path)) == 2 + whole


def test_file_cut_within_a_character_is_read(path: Path) -> None:
    Recorder(path).record("first", {"n": 1})
    Recorder(path).record("second", {"text": "ü"})
    path.write_bytes(path.read_bytes()[:-4])
    assert strip(read_records(path)) == [{"kind": "first", "n": 1}]


def test_lines_that_are_no_records_are_skipped(path: Path) -> None:
    path.write_text('[1, 2]\n"text"\n{"no": "kind"}\nnot json\n\n{"kind": "step"}\n')
    assert read_records(path) == [{"kind": "step"}]


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    Recorder(path).record("data", {"name": text})
    assert strip(read_records(path)) == [{"kind": "data", "name": text}]


@pytest.mark.parametrize("name", ["caf\udce9", "a\u2028b\u2029c\x85d\x1ce", "\x00\n\r"])
def test_name_of_any_file_comes_back(path: Path, name: str) -> None:
    Recorder(path).record("data", {"skipped": [[name, "empty"]]})
    assert strip(read_records(path)) == [{"kind": "data", "skipped": [[name, "empty"]]}]


def test_line_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "gone" / "records.jsonl")
    with pytest.raises(SaveError) as caught:
        recorder.record("step", {})
    assert str(caught.value) == (
        f"{tmp_path / 'gone' / 'records.jsonl'}: could not be written (No such file or directory); free some space"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_disk_is_told() -> None:
    with pytest.raises(SaveError) as caught:
        Recorder(Path("/dev/full")).record("step", {})
    assert str(caught.value) == "/dev/full: could not be written (No space left on device); free some space"
