"""The section on exported files: what was measured of each, and hostile names."""

import json

import pytest

from vitreous.errors import DamagedFileError
from vitreous.recipe.files import read_config
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.evaluate.outputs import outputs_of_run
from vitreous.use.report.section import ReportInput
from vitreous.use.report.sections.exported import exported_section
from vitreous.use.run import Run

PROOF = {
    "num_images": 200, "num_same": 198, "largest_difference": 0.0123, "worst": "a.png", "accuracy": 0.75,
    "interval_95": [0.68, 0.81], "drop": [0.01, -0.002, 0.022], "latency_ms": [3.21, 4.56], "images_per_s": 1234.5,
    "size_bytes": 2_345_678,
}  # fmt: skip


@pytest.fixture
def report(own_run: Run) -> ReportInput:
    folder = RunFolder(own_run.path)
    config = read_config(folder.config)
    return ReportInput(folder, config, own_run.metadata, [], None, outputs_of_run(folder))


def stored(report: ReportInput, name: str, **changes: object) -> None:
    python = {**PROOF, "num_same": 200, "largest_difference": 0.0, "size_bytes": 0}
    tried = {"Python": python, "int8-static": {**PROOF, **changes}}
    entry = {"to": "onnx", "data": "<photos>, test split", "variant": "int8-static", "tried": tried}
    report.folder.exports.write_text(json.dumps({name: entry}), encoding="utf-8")


def test_run_that_was_not_exported_has_no_section(report: ReportInput) -> None:
    assert exported_section(report) is None


def test_files_are_listed_with_what_was_measured(report: ReportInput) -> None:
    stored(report, "<b>.onnx")
    found = exported_section(report)
    assert found is not None
    text = "".join(found.parts)
    assert "<h3>&lt;b&gt;.onnx</h3>" in text
    assert "<photos>" not in text
    for cell in (
        "198 of 200",
        "0.012",
        "75.0% (68.0% to 81.0%)",
        "1.0 (-0.2 to 2.2)",
        "3.2, 95% below 4.6",
        "1,234",
        "2.3",
    ):
        assert f">{cell}</td>" in text
    assert "int8-static, predicts the same as Python for 198 of 200 photos" in text
    assert found.numbers["<b>.onnx"]["tried"]["int8-static"]["size_bytes"] == 2_345_678


@pytest.mark.parametrize("content", ["{", '{"a": {"tried": 3}}', "[1]"])
def test_altered_file_is_named(content: str, report: ReportInput) -> None:
    report.folder.exports.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"export\.json.*; delete it, and export again"):
        exported_section(report)
