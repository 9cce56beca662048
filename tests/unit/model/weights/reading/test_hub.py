"""Weights from the hub: what is downloaded, resumed, recorded, compared and refused."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import hf_hub_download
from tests.hub_server import REVISION, Hub

from vitreous.errors import DamagedFileError, NotARunError
from vitreous.model.weights.reading.hub import fetch, stored
from vitreous.model.weights.reading.hub_names import last_part, name_in, shown

NAME = "org/tiny"
WEIGHTS = np.random.default_rng(3).bytes(40_000)
FILES = {
    "config.json": b'{"model_type": "dinov2"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"a pickle",
    "README.md": b"# tiny",
}


@pytest.fixture(autouse=True)
def _files(hub: Hub) -> None:
    hub.repos[NAME] = dict(FILES)


def refused(error: type[Exception], name: str = NAME, *, answer_s: float = 5.0) -> str:
    with pytest.raises(error) as caught:
        fetch(name, answer_s=answer_s)
    return str(caught.value)


def downloads(hub: Hub) -> list[str]:
    return [path.rpartition("/")[2] for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]


def test_descriptions_and_safetensors_are_downloaded_and_no_pickle(hub: Hub) -> None:
    folder = fetch(NAME)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        name: FILES[name] for name in ("config.json", "model.safetensors")
    }
    assert sorted(downloads(hub)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", [NAME, f"{NAME}@{REVISION}"])
def test_second_time_sends_no_request(hub: Hub, name: str) -> None:
    folder = fetch(NAME)
    hub.requests.clear()
    assert fetch(name) == folder
    assert hub.requests == []


def test_record_has_the_commit_and_names_it(hub: Hub) -> None:
    assert stored(NAME) is None
    fetch(NAME)
    found = stored(NAME)
    assert found is not None
    assert (found.source, found.is_complete) == (f"hf://{NAME}@{REVISION}", True)
    assert stored(f"{NAME}@{'0' * 40}") is None


def test_dropped_connection_is_resumed_where_it_broke_off(hub: Hub) -> None:
    hub.drops = 1
    seen: list[tuple[float, float]] = []
    folder = fetch(NAME, report=lambda done, total: seen.append((done, total)))
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    (resumed,) = [where for _, _, where in hub.requests if where]
    assert int(resumed.removeprefix("bytes=").removesuffix("-")) in range(15_000, 20_001)
    assert seen[-1] == (40_000, 40_000)


def test_wrong_bytes_of_the_first_download_are_refused_and_not_kept(hub: Hub) -> None:
    hub.lies.add("model.safetensors")
    said = refused(DamagedFileError)
    assert said.startswith("org/tiny/model.safetensors: has SHA-256 ")
    assert said.endswith("…; download again")
    assert stored(NAME) is None
    hub.lies.clear()
    assert (fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"?", WEIGHTS[:1000]])
def test_file_that_changed_later_is_refused_until_it_is_downloaded_again(content: bytes) -> None:
    path = fetch(NAME) / "model.safetensors"
    path.resolve().write_bytes(content)
    assert refused(DamagedFileError) == (
        f"{path}: has changed since it was downloaded; run `vitreous models get {NAME}` to replace it"
    )
    assert (fetch(NAME, renew=True) / "model.safetensors").read_bytes() == WEIGHTS
    assert fetch(NAME).is_dir()


def test_changed_file_is_refused_also_by_the_name_of_a_branch(hub: Hub) -> None:
    path = fetch(NAME) / "config.json"
    path.resolve().write_bytes(b"{}")
    assert "but the first download of this commit had" in refused(DamagedFileError, f"{NAME}@main")


def test_other_files_under_the_same_commit_are_refused(hub: Hub, tmp_path: Path) -> None:
    fetch(NAME)
    shutil.rmtree(tmp_path / "hf")
    hub.repos[NAME]["model.safetensors"] = WEIGHTS[::-1]
    said = refused(DamagedFileError)
    record = tmp_path / "v" / "hub" / "org--tiny.json"
    assert "but the first download of this commit had" in said
    assert said.endswith(f"; if you trust the new file, remove {record}")
    record.unlink()
    assert (fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS[::-1]


def test_interrupted_download_does_not_count(hub: Hub) -> None:
    def stop(done: float, total: float) -> None:
        if total > 1000 and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, report=stop)
    assert stored(NAME) is None
    assert (fetch(NAME) / "model.safetensors").read_bytes() == WEIGHTS


def test_hub_that_does_not_answer_is_given_up_in_time(hub: Hub) -> None:
    hub.stalls = True
    began = time.monotonic()
    assert refused(NotARunError, answer_s=0.3) == (
        "hf://org/tiny: cannot be downloaded (no answer within 0.3 s); check the name and the network, or log in"
    )
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("stall", ["stalls_within", "stalls_heads"])
def test_download_that_gets_stuck_is_given_up_in_time(hub: Hub, stall: str) -> None:
    setattr(hub, stall, True)
    began = time.monotonic()
    with pytest.raises(NotARunError, match=r"^hf://org/tiny: cannot be downloaded \(no answer within 0.4 s\); "):
        fetch(NAME, patience_s=0.4, report=lambda done, total: None)
    assert time.monotonic() - began < 3
    assert stored(NAME) is None


def test_files_of_other_programs_are_used_without_a_network(hub: Hub) -> None:
    paths = [hf_hub_download(NAME, name) for name in ("config.json", "model.safetensors")]
    hub.stalls = True
    assert fetch(NAME, answer_s=0.3) == Path(paths[0]).parent
    assert stored(NAME) is not None


def test_unknown_repository_is_one_line(hub: Hub) -> None:
    said = refused(NotARunError, "org/missing")
    assert said.startswith("hf://org/missing: cannot be downloaded (")
    assert "\n" not in said


def test_repository_without_safetensors_is_refused(hub: Hub) -> None:
    del hub.repos[NAME]["model.safetensors"]
    assert refused(NotARunError) == "hf://org/tiny: the repository has no .safetensors file; give one that has"


@pytest.mark.parametrize(
    "name", ["", "a b", "../../etc/passwd", "org/tiny/", "org//tiny", "x" * 300, "org/tiny@", "é/x"]
)
def test_names_that_are_none_reach_no_file_and_no_hub(hub: Hub, name: str) -> None:
    assert refused(NotARunError, name) == (
        f"hf://{name}: is not the name of a repository; write hf://organization/name"
    )
    assert hub.requests == []


def test_file_names_of_a_hub_stay_in_the_folder(hub: Hub) -> None:
    hub.repos[NAME]["../escaped.safetensors"] = b"x"
    assert sorted(path.name for path in fetch(NAME).iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("text", ["[", "[{}]", '{"revision": 3}', '[{"revision": "r", "folder": 3, "sha256": {}}]'])
def test_altered_record_is_one_line_with_what_to_do(hub: Hub, tmp_path: Path, text: str) -> None:
    fetch(NAME)
    record = tmp_path / "v" / "hub" / "org--tiny.json"
    assert [entry["revision"] for entry in json.loads(record.read_text())] == [REVISION]
    record.write_text(text)
    said = refused(DamagedFileError)
    assert said.startswith(f"{record}: cannot be read (")
    assert said.endswith("; remove it, and the next download is recorded again")
    record.unlink()
    assert fetch(NAME).is_dir()


@pytest.mark.parametrize(
    ("source", "name", "text", "last"),
    [
        ("hf://ann/birds@main", "ann/birds@main", "hf://ann/birds@main", "birds"),
        (Path("hf://ann/birds"), "ann/birds", "hf://ann/birds", "birds"),  # has one slash less
        ("ann/birds", None, "ann/birds", ""),
        (Path("runs/hf:/x"), None, "runs/hf:/x", ""),
    ],
)
def test_name_of_a_repository_is_known_from_text_and_from_a_path(
    source: str | Path, name: str | None, text: str, last: str
) -> None:
    assert (name_in(source), shown(source), last_part(source)) == (name, text, last)
