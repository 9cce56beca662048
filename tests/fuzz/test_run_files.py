"""Damaged files of a run and damaged recipes keep the values that were written, or are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.campaign import Campaign, drawing
from tests.fuzz.mutation import mutated
from tests.unit.use.conftest import photos, run, run_on  # noqa: F401

from vitreous.recipe.files import as_yaml, read_config, read_values
from vitreous.training.folder.records import Recorder, read_records
from vitreous.training.folder.run_folder import RunFolder, SeriesFolder
from vitreous.training.series import read_series
from vitreous.use.report.page import write_report
from vitreous.use.run import Run


def test_configurations(campaign: Campaign, run: Run) -> None:  # noqa: F811
    valid = RunFolder(run.path).config.read_bytes()

    def check(path: Path) -> None:
        config = read_config(path)
        path.write_text(as_yaml(config), encoding="utf-8")
        assert read_config(path) == config
        name, values = read_values(path)
        assert (name or path.stem) == config.recipe
        assert values

    campaign.run(lambda draw: mutated(draw, [valid]), check, suffix=".yaml", share=0.4)
    assert campaign.accepted > 0.02 * campaign.rejected


def test_files_of_a_run(campaign: Campaign, run: Run) -> None:  # noqa: F811
    own = Path(shutil.copytree(run.path, campaign.folder / "own"))
    folder = RunFolder(own)
    names = [folder.records.name, folder.predictions.name, folder.model.name]
    valid = {name: (own / name).read_bytes() for name in names}
    draws: list[str] = []

    def make(draw: np.random.Generator) -> bytes:
        draws.append(names[int(draw.integers(len(names)))])
        return mutated(draw, [valid[draws[-1]]])

    def check(path: Path) -> None:
        (own / draws[-1]).write_bytes(path.read_bytes())
        try:
            write_report(folder)
            damaged = Run(own)
            assert damaged.classes
            assert damaged.metrics is not None
            assert damaged.accuracy == pytest.approx(damaged.accuracy, nan_ok=True)
        finally:
            (own / draws[-1]).write_bytes(valid[draws[-1]])

    campaign.run(make, check, share=0.02)  # a report takes half a second
    assert campaign.rejected > 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def test_records(campaign: Campaign) -> None:
    @drawing(0.2)
    @given(st.lists(st.dictionaries(st.text(), VALUES, max_size=3), max_size=4), st.integers(0, 400))
    def draw(records: list[dict[str, object]], cut: int) -> None:
        path = campaign.folder / "records.jsonl"
        path.unlink(missing_ok=True)
        recorder = Recorder(path)
        path.touch()
        fields = [{key: value for key, value in one.items() if key not in ("kind", "time")} for one in records]
        for one in fields:
            recorder.record("kind of record", one)
        with campaign.input():
            found = read_records(path)
            assert [{k: v for k, v in one.items() if k not in ("kind", "time")} for one in found] == fields
            path.write_bytes(path.read_bytes()[: -cut or None])
            assert read_records(path) == found[: len(read_records(path))]

    draw()
    assert campaign.accepted > campaign.rejected


def test_series_files(campaign: Campaign) -> None:
    valid = json.dumps({"data": "photos", "values": {"train.seed": 3}, "folds": 5}).encode()

    def check(path: Path) -> None:
        folder = SeriesFolder(path.parent)
        folder.series.write_bytes(path.read_bytes())
        request = read_series(folder)
        assert request.folds == json.loads(path.read_bytes()).get("folds", 0)

    campaign.run(lambda draw: mutated(draw, [valid]), check, suffix=".txt", share=0.2)
    assert campaign.accepted > 0.02 * campaign.rejected
