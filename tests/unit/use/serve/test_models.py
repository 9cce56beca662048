"""Models: their names, and new files at the same path, which replace them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.use.serve.conftest import encoded

from vitreous.errors import ConfigError, DamagedFileError, NotARunError
from vitreous.model.weights import load_model, read_metadata, save_model
from vitreous.use.run import Run


@pytest.fixture
def made() -> Callable[..., Any]:
    """Make Models of paths."""
    pytest.importorskip("fastapi")
    from vitreous.use.serve.models import Models, named

    return lambda *paths, **options: Models(named(paths), **options)


def retrain(file: Path) -> None:
    """Replace a model file by one with another head, as a run that ends does."""
    model, metadata = load_model(file), read_metadata(file)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.add_(0.3)
    save_model(file, model, {key: value for key, value in metadata.items() if key not in ("format", "architecture")})


@pytest.fixture
def own_model(own_run: Run) -> Path:
    """The model file of a run, without what belongs to its weights."""
    (own_run.path / "familiarity.safetensors").unlink(missing_ok=True)
    return own_run.path / "model.safetensors"


def test_models_are_called_like_their_runs_or_files(made: Callable[..., Any], run: Run, lone_model: Path) -> None:
    assert list(made(run.path, lone_model).versions) == ["tiny run", "moved"]
    assert list(made(run.path / "model.safetensors").versions) == ["tiny run"]


def test_two_runs_of_one_name_are_refused(made: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "tiny run"
    shutil.copytree(run.path, copy)
    with pytest.raises(ConfigError) as error:
        made(run.path, copy)
    assert str(error.value) == f"run={copy}: {run.path} is called tiny run too; rename one of the folders"
    copy = copy.rename(tmp_path / "other")  # the advice works
    assert list(made(run.path, copy).versions) == ["tiny run", "other"]


def test_path_without_a_model_is_refused(made: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match="contains no model"):
        made(tmp_path)


def test_coverage_is_that_of_predict(made: Callable[..., Any], run: Run, blind_run: Run) -> None:
    served = made(run.path, coverage=0.5).versions["tiny run"][0]
    (found,) = served.classify([served.read(("image 0", encoded()))])
    assert found == run.predict(encoded(), coverage=0.5)[0]
    assert made(blind_run.path).versions["blind"][0].without_sets
    with pytest.raises(NotARunError):
        made(blind_run.path, coverage=0.5)


def test_new_file_replaces_the_model(made: Callable[..., Any], own_run: Run, own_model: Path) -> None:
    models = made(own_run.path)
    old = models.versions["own"][0]
    assert list(models.renew()) == []
    retrain(own_model)
    (event,) = models.renew()
    new = models.versions["own"][0]
    assert event == {"event": "replaced", "model": "own", "version": new.version}
    assert new.version != old.version
    image = encoded()
    (found,) = new.classify([new.read(("image 0", image))])
    assert found.probabilities == Run(own_run.path).predict(image)[0].probabilities
    (before,) = old.classify([old.read(("image 0", image))])
    assert before.probabilities != found.probabilities
    assert list(models.renew()) == []


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_newest_versions_are_kept(keep: int, made: Callable[..., Any], own_run: Run, own_model: Path) -> None:
    models, contents = made(own_run.path, keep_versions=keep), [own_model.read_bytes()]
    versions = [models.versions["own"][0].version]
    for _ in range(2):
        retrain(own_model)
        contents.append(own_model.read_bytes())
        list(models.renew())
        versions.insert(0, models.versions["own"][0].version)
    assert len(set(versions)) == 3
    assert [served.version for served in models.versions["own"]] == versions[:keep]
    own_model.write_bytes(contents[0])  # an old version comes back, and is not served twice
    list(models.renew())
    expected = [versions[2], versions[0], versions[1]]
    assert [served.version for served in models.versions["own"]] == expected[:keep]


def test_file_with_the_same_content_is_not_announced(made: Callable[..., Any], own_run: Run, own_model: Path) -> None:
    models = made(own_run.path)
    os.utime(own_model, (1, 1))
    assert list(models.renew()) == []


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_file_keeps_the_old_model_until_it_is_repaired(
    damage: str, made: Callable[..., Any], own_run: Run, own_model: Path
) -> None:
    models = made(own_run.path)
    old, content = models.versions["own"][0], own_model.read_bytes()
    own_model.unlink() if damage == "gone" else own_model.write_bytes(content[:-8])
    (event,) = models.renew()
    assert (event["event"], event["version"]) == ("kept", old.version)
    assert event["reason"]
    assert list(models.renew()) == []  # said once
    assert models.versions["own"][0] is old
    own_model.write_bytes(content)
    retrain(own_model)
    assert [event["event"] for event in models.renew()] == ["replaced"]


def test_model_on_the_hub_is_not_looked_up_again(
    made: Callable[..., Any], own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(name: str) -> Path:
        asked.append(name)
        return own_run.path

    monkeypatch.setattr("vitreous.model.weights.reading.hub.fetch", fetch)
    models = made(Path("hf://organization/name"))
    assert list(models.versions) == ["name"]
    assert set(asked) == {"organization/name"}
    asked.clear()
    assert list(models.renew()) == []
    assert asked == []


def test_familiarity_of_other_weights_is_refused_before_it_answers(made: Callable[..., Any], own_run: Run) -> None:
    if not (own_run.path / "familiarity.safetensors").is_file():
        pytest.skip("the run has too few validation images")
    models = made(own_run.path)
    retrain(own_run.path / "model.safetensors")
    (event,) = models.renew()
    assert event["event"] == "kept"
    assert "belongs to other weights" in event["reason"]
    with pytest.raises(DamagedFileError):
        made(own_run.path)
