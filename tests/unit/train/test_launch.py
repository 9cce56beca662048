"""What needs no second process: the environment that says which one this is, and what a launch refuses."""

from pathlib import Path

import pytest
import torch

from vitreous import processes
from vitreous.errors import ConfigError
from vitreous.recipe import keys
from vitreous.train.device import resolve_device
from vitreous.train.distributed import ALONE, join
from vitreous.train.launch import after_restart, launch
from vitreous.train.records import Recorder
from vitreous.train.request import TrainRequest


@pytest.fixture
def third_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun says it: the third of five processes, the second of two on its machine."""
    told = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "5", "RANK": "2", "LOCAL_WORLD_SIZE": "2", "LOCAL_RANK": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_process_reads_its_place(third_of_five: None) -> None:
    assert (processes.count(), processes.rank(), processes.local_count(), processes.local_rank()) == (5, 2, 2, 1)


def test_other_launchers_are_not_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "5")
    assert (processes.count(), join()) == (1, ALONE)


def test_each_process_takes_a_gpu_of_its_own(third_of_five: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(resolve_device(wish)) for wish in ("auto", "cuda", "cpu")] == ["cuda:1", "cuda:1", "cpu"]


def test_gpus_that_do_not_suffice_are_refused(third_of_five: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"^device=cuda: 2 processes for 1 GPUs; "):
        resolve_device("cuda")
    with pytest.raises(ConfigError, match=r"^device=cuda:1: cannot be shared by 2 processes; "):
        resolve_device("cuda:1")


def test_launch_refuses_no_process_and_a_second_launch(third_of_five: None) -> None:
    with pytest.raises(ConfigError, match=r"^nproc=0: must be at least 1; "):
        launch(print, 0)
    with pytest.raises(ConfigError, match=r"^nproc=3: this is one of several processes already; "):
        launch(print, 3)


def test_group_that_is_started_again_goes_on_with_its_run(
    third_of_five: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = TrainRequest(data="digits", out=tmp_path)
    assert after_restart(request) is None
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert after_restart(request) == request
    (tmp_path / "config.yaml").touch()
    assert after_restart(request) == TrainRequest(resume=tmp_path)


def test_alone_every_agreement_is_ones_own() -> None:
    numbers = torch.tensor([2.0, 3.0])
    assert ALONE.add_up(numbers) is numbers
    assert (ALONE.largest([4, 0]), ALONE.gather("x"), ALONE.first(lambda: 7), ALONE.in_turn(lambda: 8)) == (
        *([4, 0], ["x"], 7, 8),
    )


def test_recorder_without_a_file_leaves_recording_to_another_process() -> None:
    heard: list[str] = []
    recorder = Recorder(None, lambda kind, fields: heard.append(kind))
    recorder.record("step", {"step": 1})
    recorder.show("progress", {})
    assert heard == []


@pytest.mark.parametrize("name", ["adafactor", "lion", "muon"])
def test_optimisers_that_take_whole_weights_do_not_go_with_divided_ones(name: str) -> None:
    chosen = {"data.img_size": (8, 8), "data.in_chans": 1, "data.num_classes": 3, "optim.name": name}
    sizes = {"model.patch_size": 4, "model.embed_dim": 16, "model.depth": 1, "model.num_heads": 2}
    source = {"data.source": "digits", "data.test_share": 0.2}
    with pytest.raises(ConfigError, match=rf"^train.parallel=fsdp: optim.name={name} is not made for divided "):
        keys.assemble("x", {**source, **chosen, **sizes, "train.parallel": "fsdp"})
