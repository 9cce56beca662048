"""A run on the hub and back: what is sent, when, what is compared, and what is said if that fails."""

import errno
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.hub_server import Hub

from vitreous.errors import ConfigError, DamagedFileError, NotARunError, SaveError
from vitreous.model.weights import read_metadata
from vitreous.training.folder.run_folder import RunFolder
from vitreous.use.export.hub.push import NEW, OTHER, SAME, packed
from vitreous.use.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
"""huggingface_hub calls its HTTP client in an old way."""
REPO = "org/my-model"
NAME = f"hf://{REPO}"


@pytest.fixture(autouse=True)
def _token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


def test_model_comes_back_with_the_same_probabilities(own_run: Run, photos: Path) -> None:
    done = own_run.push(NAME)
    assert sorted(done.sent) == ["README.md", "config.json", "model.safetensors"]
    again, files = Run(NAME), sorted(photos.rglob("*.png"))[::5]
    assert again.classes == own_run.classes
    assert Run(done.source).metrics == own_run.metrics
    for ours, theirs in zip(own_run.predict(files), again.predict(files), strict=True):
        assert theirs.label == ours.label
        np.testing.assert_allclose(theirs.probabilities, ours.probabilities, rtol=0, atol=1e-6)


def test_nothing_is_sent_before_the_upload(own_run: Run, hub: Hub) -> None:
    with packed(own_run.path, NAME) as package:
        assert set(package.states().values()) == {NEW}
        assert sorted(package.sizes) == ["README.md", "config.json", "model.safetensors"]
        assert package.sizes["model.safetensors"] == (package.folder / "model.safetensors").stat().st_size
        assert {"config.yaml", "images.safetensors", "predictions.csv", "example.png", "report.html"} <= {*package.left}
        assert hub.sent() == []
        assert hub.repos == {}


def test_report_is_sent_only_if_requested(own_run: Run, hub: Hub) -> None:
    own_run.push(NAME)
    assert "report.html" not in hub.repos[REPO]
    assert b"report.html" not in hub.repos[REPO]["README.md"]
    own_run.push(NAME, with_report=True)
    assert hub.repos[REPO]["report.html"] == RunFolder(own_run.path).report.read_bytes()
    RunFolder(own_run.path).report.unlink()
    with pytest.raises(ConfigError, match=r"has no report; write it with `vitreous report`$"):
        own_run.push(NAME, with_report=True)


def test_no_byte_of_a_photo_is_sent(own_run: Run, photos: Path, hub: Hub) -> None:
    own_run.push(NAME)
    everything = b"".join(hub.repos[REPO].values())
    for photo in photos.rglob("*.png"):
        assert photo.read_bytes() not in everything
    assert str(photos).encode() not in everything


def test_second_call_sends_only_what_has_changed(own_run: Run, hub: Hub) -> None:
    first = own_run.push(NAME)
    before = len(hub.sent())
    again = own_run.push(NAME)
    assert (again.sent, again.source, again.sha256) == ([], first.source, first.sha256)
    assert [path for path in hub.sent()[before:] if "create" not in path] == []
    card = RunFolder(own_run.path).model_card
    card.write_text(card.read_text("utf-8").replace("license: unknown", "license: mit"), "utf-8")
    assert own_run.push(NAME).sent == ["README.md"]
    assert yaml.safe_load(hub.repos[REPO]["README.md"].decode().split("---")[1])["license"] == "mit"


def test_file_of_another_content_is_shown_before_it_is_replaced(own_run: Run, hub: Hub) -> None:
    hub.repos[REPO] = {"README.md": b"mine"}
    own_run.push(NAME)
    hub.repos[REPO]["README.md"] = b"edited on the hub"
    with packed(own_run.path, NAME) as package:
        assert package.states() == {"README.md": OTHER, "config.json": SAME, "model.safetensors": SAME}


@pytest.mark.parametrize("full", ["README.md", "config.json"])
def test_full_disk_is_explained_without_an_option_that_push_does_not_have(
    full: str, own_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def write_unless_full(path: Path, content: bytes) -> int:
        if path.name.startswith(f".{full}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_unless_full)
    with pytest.raises(SaveError) as caught:
        own_run.push(NAME)
    place, _, rest = str(caught.value).partition(": ")
    assert place.startswith(os.path.join(tempfile.gettempdir(), "vitreous-push-"))  # noqa: PTH118
    assert place.endswith(full)
    reason = "could not be written (No space left on device)"
    assert rest == f"{reason}; free some space, or set TMPDIR to another folder"


def test_dropped_connection_is_taken_up_again(own_run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    hub.drops_uploads = 100
    with pytest.raises(SaveError, match=rf"^{NAME}: cannot be uploaded \(.*\); the same command continues$"):
        own_run.push(NAME)
    assert hub.repos[REPO] == {}
    hub.drops_uploads = 1
    assert "model.safetensors" in own_run.push(NAME).sent
    assert Run(NAME).classes == own_run.classes


def test_large_file_that_the_hub_has_is_not_sent_again(own_run: Run, hub: Hub) -> None:
    own_run.push(NAME)
    hub.repos[REPO].clear()  # as if the connection had been lost before the commit
    before = len(hub.requests)
    assert "model.safetensors" in own_run.push(NAME).sent
    assert [path for method, path, _ in hub.requests[before:] if method == "PUT"] == []
    assert sorted(hub.repos[REPO]) == ["README.md", "config.json", "model.safetensors"]


def test_file_that_arrives_damaged_is_noticed(own_run: Run, hub: Hub) -> None:
    hub.spoils = True
    with pytest.raises(DamagedFileError, match=r"its model\.safetensors is not the file that was sent; push again$"):
        own_run.push(NAME)


def test_token_is_required_and_may_not_suffice(own_run: Run, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.denies = True
    with pytest.raises(ConfigError) as caught:
        own_run.push(NAME)
    assert str(caught.value) == (
        f"{NAME}: the token may not write there (403); run `hf auth login` with one that has write access"
    )
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    with pytest.raises(ConfigError) as caught:
        own_run.push(NAME)
    assert str(caught.value) == f"{NAME}: there is no token for the hub; run `hf auth login`, or set HF_TOKEN"
    assert hub.requests == []


def test_private_model_never_becomes_public(own_run: Run, hub: Hub) -> None:
    own_run.push("hf://org/secret", private=True)
    assert hub.private == {"org/secret"}
    own_run.push(NAME)
    before = dict(hub.repos[REPO])
    with pytest.raises(ConfigError, match=rf"^private=True: {NAME} exists and is public; make it private on its page"):
        own_run.push(NAME, private=True)
    assert hub.repos[REPO] == before


@pytest.mark.parametrize(
    "name", ["org/my-model", "hf://my-model", "hf://org/my-model@main", "hf://a/b/c", "hf://", "x"]
)
def test_only_a_repository_is_written_to(name: str, own_run: Run, hub: Hub) -> None:
    with pytest.raises(NotARunError, match=r"is not the name of a repository; write hf://organization/name$"):
        own_run.push(name)
    assert hub.requests == []


def test_card_has_what_hubs_read(own_run: Run, hub: Hub) -> None:
    own_run.push(NAME)
    text = hub.repos[REPO]["README.md"].decode()
    header = yaml.safe_load(text.split("---")[1])
    assert (header["license"], header["library_name"]) == ("unknown", "timm")
    assert header["pipeline_tag"] == "image-classification"
    assert {"vitreous", "vision-transformer"} <= {*header["tags"]}
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == own_run.accuracy
    assert "hf-hub:org/my-model" in text
    assert f"vitreous predict {NAME} photo.jpg" in text
    assert "<!--" not in text


def test_model_of_no_other_library_is_sent_as_it_is(own_run: Run, photos: Path, hub: Hub) -> None:
    folder = RunFolder(own_run.path)
    other = Run(_with_stem(folder))
    assert sorted(other.push(NAME).sent) == ["README.md", "model.safetensors"]
    assert hub.repos[REPO]["model.safetensors"] == folder.model.read_bytes()
    assert "library_name: vitreous" in hub.repos[REPO]["README.md"].decode()
    photo = sorted(photos.rglob("*.png"))[3]
    assert Run(NAME).predict(photo)[0].probabilities == other.predict(photo)[0].probabilities
    hub.repos[REPO]["config.json"] = b"{}"
    with pytest.raises(ConfigError, match=r"its config\.json describes a model of another kind; delete it there, or"):
        other.push(NAME)


def _with_stem(folder: RunFolder) -> Path:
    """Replace the model of a run by one that no other library has, with new weights."""
    import torch

    from vitreous.model import ModelConfig, build_model, save_model

    metadata = read_metadata(folder.model)
    config = ModelConfig.from_dict(metadata.pop("architecture") | {"stem": "conv"})
    del metadata["format"]
    save_model(folder.model, build_model(config, generator=torch.Generator().manual_seed(1)), metadata)
    folder.familiarity.unlink()
    return folder.path


def test_header_says_nothing_about_this_machine(own_run: Run, hub: Hub, tmp_path: Path) -> None:
    own_run.push(NAME)
    file = tmp_path / "model.safetensors"
    file.write_bytes(hub.repos[REPO]["model.safetensors"])
    text = json.dumps(read_metadata(file))
    assert str(Path.home()) not in text
    assert str(own_run.path.parent) not in text


def test_model_file_without_a_run_is_sent_with_a_short_card(lone_model: Path, hub: Hub) -> None:
    Run(lone_model).push(NAME)
    assert "library_name: timm" in hub.repos[REPO]["README.md"].decode()
    shutil.rmtree(lone_model.parent / "hf", ignore_errors=True)
    assert Run(NAME).classes == Run(lone_model).classes
