import json
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitreous.errors import DamagedFileError, RunError, SaveError
from vitreous.tensors import Images, Labels
from vitreous.training.fit.checkpoint import list_checkpoints, load_checkpoint, load_newest, save_checkpoint
from vitreous.training.step.state import TrainState
from vitreous.training.step.train_step import StepSettings, train_step

MakeState = Callable[..., TrainState]
Snapshot = Callable[[TrainState], dict[str, Tensor]]
Pair = tuple[Images, Labels]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoints"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def advance(settings: StepSettings, batch: Pair) -> Callable[[TrainState, int], TrainState]:
    def advance(state: TrainState, num_steps: int) -> TrainState:
        for _ in range(num_steps):
            train_step(state, *batch, settings)
            state.step += 1
        return state

    return advance


Advance = Callable[[TrainState, int], TrainState]


def numbers_of(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("step-")) for path in list_checkpoints(folder)]


def test_saved_state_is_loaded_bit_for_bit(
    make_state: MakeState, advance: Advance, snapshot: Snapshot, folder: Path
) -> None:
    state = advance(make_state(), 3)
    state.elapsed_s, state.lr_scale, state.refused, state.attempt, state.rollbacks = 0.1 + 0.2, 0.25, 4, 2, 1
    state.horizon = state.horizon.revised(3, steps_left=11)
    path = save_checkpoint(folder, state)
    other = make_state(seed=1)
    load_checkpoint(path, other)
    torch.testing.assert_close(snapshot(other), snapshot(state), rtol=0, atol=0)
    assert other.numbers() == state.numbers()
    assert path.name == "step-000000003.safetensors"


def test_loaded_state_trains_on_like_the_saved_state(
    make_state: MakeState, advance: Advance, snapshot: Snapshot, folder: Path
) -> None:
    state = advance(make_state(), 3)
    path = save_checkpoint(folder, state)
    other = advance(make_state(seed=1), 2)  # its own moments must be replaced
    load_checkpoint(path, other)
    advance(state, 2)
    advance(other, 2)
    torch.testing.assert_close(snapshot(other), snapshot(state), rtol=0, atol=0)


def test_loading_a_state_without_moments_removes_moments(make_state: MakeState, advance: Advance, folder: Path) -> None:
    path = save_checkpoint(folder, make_state())
    other = advance(make_state(seed=1), 2)
    load_checkpoint(path, other)
    assert not other.optimizer.state_dict()["state"]


def test_average_follows_the_loaded_weights(make_state: MakeState, advance: Advance, folder: Path) -> None:
    path = save_checkpoint(folder, advance(make_state(), 3))
    other = make_state(seed=1)
    load_checkpoint(path, other)
    other.ema.update(0.0)
    torch.testing.assert_close(other.ema.model.state_dict(), other.model.state_dict(), rtol=0, atol=0)


def test_loaded_state_does_not_depend_on_its_file(
    make_state: MakeState, advance: Advance, snapshot: Snapshot, folder: Path
) -> None:
    state = advance(make_state(), 3)
    path = save_checkpoint(folder, state)
    other = make_state(seed=1)
    load_checkpoint(path, other)
    assert str(path) not in Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else True
    path.write_bytes(b"\0" * path.stat().st_size)
    torch.testing.assert_close(snapshot(other), snapshot(state), rtol=0, atol=0)


def test_only_the_last_two_are_kept(make_state: MakeState, folder: Path) -> None:
    state = make_state()
    for step in (0, 2, 10, 300):
        state.step = step
        save_checkpoint(folder, state)
    assert numbers_of(folder) == [10, 300]


def test_saving_a_step_twice_gives_one_checkpoint(make_state: MakeState, folder: Path) -> None:
    state = make_state()
    for step in (0, 7, 7):
        state.step = step
        save_checkpoint(folder, state)
    assert numbers_of(folder) == [0, 7]


def test_damaged_later_checkpoints_do_not_displace_good_ones(make_state: MakeState, folder: Path) -> None:
    state = make_state()
    (folder / "step-000000900.safetensors").write_bytes(b"cut")
    for step in (5, 6, 7):
        state.step = step
        save_checkpoint(folder, state)
    assert numbers_of(folder) == [6, 7]


def test_other_files_are_ignored_and_not_removed(make_state: MakeState, folder: Path) -> None:
    names = [".step-000000009.safetensors.k3_x.tmp", "step-9.safetensors.tmp", "step-best.safetensors", "notes.txt"]
    for name in names:
        (folder / name).write_bytes(b"half")
    state = make_state()
    save_checkpoint(folder, state)
    assert numbers_of(folder) == [0]
    assert load_newest(folder, make_state(seed=1)) == (folder / "step-000000000.safetensors", [])
    assert all((folder / name).exists() for name in names)


def test_empty_folder_has_no_checkpoint(make_state: MakeState, folder: Path) -> None:
    assert load_newest(folder, make_state()) == (None, [])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_in_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_weight(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def flip_a_number(path: Path) -> None:
    content = path.read_bytes()
    assert content.count(b'\\"lr_scale\\": 1.0') == 1
    path.write_bytes(content.replace(b'\\"lr_scale\\": 1.0', b'\\"lr_scale\\": 9.0'))


def rename_a_tensor(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b"ema.head.bias", b"ema.head.bias"[::-1]))


def foreign_bytes(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n" * 500)


def foreign_safetensors(path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def huge_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [cut_short, cut_in_header, empty, flip_a_weight, flip_a_number, rename_a_tensor, foreign_bytes,
           foreign_safetensors, huge_header, folder_in_its_place]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(
    make_state: MakeState, advance: Advance, snapshot: Snapshot, folder: Path, damage: Callable[[Path], None]
) -> None:
    state = advance(make_state(), 2)
    before = save_checkpoint(folder, state)
    expected, numbers = snapshot(state), state.numbers()
    newest = save_checkpoint(folder, advance(state, 1))
    damage(newest)
    other = make_state(seed=1)
    path, problems = load_newest(folder, other)
    assert path == before
    assert len(problems) == 1
    assert problems[0].startswith(f"{newest}: ")
    assert "\n" not in problems[0]
    torch.testing.assert_close(snapshot(other), expected, rtol=0, atol=0)
    assert other.numbers() == numbers


def test_single_flipped_bit_gives_a_wrong_checksum(make_state: MakeState, folder: Path) -> None:
    path = save_checkpoint(folder, make_state())
    flip_a_weight(path)
    with pytest.raises(DamagedFileError) as caught:
        load_checkpoint(path, make_state())
    assert str(caught.value) == (
        f"{path}: the checksum is wrong, so the file was changed or damaged; the checkpoint before it is used"
    )


def test_checksum_covers_every_byte_of_the_weights(make_state: MakeState, folder: Path) -> None:
    path = save_checkpoint(folder, make_state())
    content = path.read_bytes()
    for position in range(len(content) - 1, len(content) - 30_000, -1_511):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(DamagedFileError):
            load_checkpoint(path, make_state())


def test_checkpoint_of_another_model_is_an_error(make_state: MakeState, folder: Path) -> None:
    path = save_checkpoint(folder, make_state(embed_dim=20))
    with pytest.raises(DamagedFileError) as caught:
        load_checkpoint(path, make_state())
    message = str(caught.value)
    assert message.startswith(f"{path}: does not fit this run, perhaps because config.yaml was edited (Error(s) in ")
    assert "loading state_dict for VisionTransformer" in message
    assert message.endswith("); undo the edit, or train again with --out")


def test_run_cannot_resume_if_all_checkpoints_are_damaged(make_state: MakeState, folder: Path) -> None:
    state = make_state()
    for step in (3, 4):
        state.step = step
        cut_short(save_checkpoint(folder, state))
    with pytest.raises(RunError) as caught:
        load_newest(folder, make_state())
    message = str(caught.value)
    newest = folder / "step-000000004.safetensors"
    assert message.startswith(
        f"run={folder.parent}: none of its checkpoints can be used ({newest}: cannot be read as .safetensors"
    )
    assert message.endswith("); train again with --out")
    assert "the one before" not in message
    assert "checkpoint before" not in message


def test_checkpoint_contains_no_pickle(make_state: MakeState, advance: Advance, folder: Path) -> None:
    content = save_checkpoint(folder, advance(make_state(), 1)).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    metadata = header.pop("__metadata__")
    assert set(metadata) == {"numbers", "checksum"}
    assert json.loads(metadata["numbers"])["step"] == 1
    assert {entry["dtype"] for entry in header.values()} == {"F32"}


# A disk that fills up while a checkpoint is saved


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system with 300 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("needs mount")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=300k", "tmpfs", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small disk ({done.stderr.strip()}); a limit on file sizes is tested below")
    yield path
    subprocess.run([umount, path], check=True)


@pytest.fixture
def small_files() -> Iterator[int]:
    """Limit the size of files to 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield 20_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_is_an_error_and_does_not_damage_earlier_checkpoints(
    make_state: MakeState, snapshot: Snapshot, small_disk: Path
) -> None:
    state, saved = make_state(), []

    def save_among_photos() -> None:
        for state.step in range(1, 10):
            if state.step > 2:
                (small_disk / f"photo-{state.step}").write_bytes(b"x" * 40_000)
            saved.append(save_checkpoint(small_disk, state))

    with pytest.raises(SaveError) as caught:
        save_among_photos()
    message = str(caught.value)
    path = small_disk / f"step-{state.step:09d}.safetensors"
    reason = "could not be written (No space left on device); free some space or choose another folder"
    assert message == f"{path}: {reason}"
    assert list_checkpoints(small_disk) == saved[-2:]
    assert not list(small_disk.glob(".*"))
    other = make_state(seed=1)
    assert load_newest(small_disk, other) == (saved[-1], [])
    torch.testing.assert_close(snapshot(other), snapshot(state), rtol=0, atol=0)


def test_limit_on_file_sizes_is_an_error_and_does_not_damage_earlier_checkpoints(
    make_state: MakeState, advance: Advance, folder: Path, request: pytest.FixtureRequest
) -> None:
    state = make_state()
    first = save_checkpoint(folder, state)
    assert first.stat().st_size > 20_000
    advance(state, 1)
    request.getfixturevalue("small_files")
    with pytest.raises(SaveError, match=r"could not be written \(File too large\); free some space"):
        save_checkpoint(folder, state)
    assert load_newest(folder, make_state(seed=1)) == (first, [])
    assert [path.name for path in folder.iterdir()] == [first.name]
