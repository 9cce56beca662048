"""Files that are cut short, altered or hostile give a one-line error, and no large allocation."""

import io
import json
import os
import pickle
import resource
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.model.weights.samples import (
    HEADS,
    KINDS,
    PLAIN,
    assert_same,
    load_model,
    noisy,
    plain_state,
    refusal,
    write_as,
)

from vitreous.errors import DamagedFileError, VitreousError

pytestmark = pytest.mark.filterwarnings("ignore::vitreous.errors.AssumptionWarning")

CUT = ("safetensors", "npz", "pt", "legacy pt")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_read(tmp_path, kind):
    model = noisy(PLAIN)
    assert_same(load_model(write_as(kind, tmp_path, plain_state(model)), architecture=HEADS), model)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "pt"])
def test_loaded_model_does_not_change_with_its_file(tmp_path, kind):
    model = noisy(PLAIN)
    path = write_as(kind, tmp_path, plain_state(model))
    loaded = load_model(path, architecture=HEADS)
    with path.open("r+b") as stream:
        stream.write(bytes(path.stat().st_size))
    assert_same(loaded, model)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Contents of valid files, by kind."""
    folder = tmp_path_factory.mktemp("originals")
    return {kind: write_as(kind, folder, plain_state()).read_bytes() for kind in CUT}


def load_altered(folder, kind, content):
    """Return the model, or the error that a user would see; other exceptions propagate."""
    path = folder / f"altered.{kind.removeprefix('legacy ')}"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about unusual pickles; only the result matters here
        try:
            return load_model(path, architecture=HEADS)
        except VitreousError as error:
            return error


EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.parametrize("kind", CUT)
@EXAMPLES
@given(part=st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_damaged(originals, tmp_path, kind, part):
    content = originals[kind]
    assert isinstance(load_altered(tmp_path, kind, content[: int(part * len(content))]), DamagedFileError)


@pytest.mark.parametrize("kind", CUT)
@EXAMPLES
@given(data=st.data())
def test_bytes_altered_anywhere_give_a_model_or_a_one_line_error(originals, tmp_path, kind, data):
    content = bytearray(originals[kind])
    # Headers are at the start or the end, and are the dangerous part.
    near_an_end = st.integers(0, 3000) | st.integers(len(content) - 3000, len(content) - 1)
    for where in data.draw(st.lists(near_an_end | st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[where] = data.draw(st.integers(0, 255))
    loaded = load_altered(tmp_path, kind, content)
    if isinstance(loaded, VitreousError):
        assert str(loaded).isprintable()
        return
    assert loaded(torch.zeros(1, 3, 12, 12)).shape == (1, 7)
    if kind == "npz":  # npz has checksums, so an altered file is never read
        assert_same(loaded, noisy(PLAIN))


@pytest.mark.parametrize("kind", CUT)
@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"PK\x03\x04" + b"\xff" * 100, b"\x80\x02}q\x00.", b"\x93NUMPY"])
def test_file_of_another_type_is_damaged(tmp_path, kind, content):
    assert isinstance(load_altered(tmp_path, kind, content), DamagedFileError)


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("kind", ["pt", "legacy pt", "pth", "bin", "ckpt"])
def test_code_in_a_pickle_is_never_run(tmp_path, kind):
    marker = tmp_path / "run"
    path = write_as(kind, tmp_path, {**plain_state(), "extra": Hostile(marker)})
    assert_same(load_model(path, architecture=HEADS), noisy(PLAIN))
    assert not marker.exists()


def test_bare_pickle_is_never_run(tmp_path):
    marker, path = tmp_path / "run", tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Hostile(marker)))
    assert refusal(path) == "holds no tensors by name; give a file with a state_dict()"
    assert not marker.exists()


def test_objects_in_an_npz_are_never_unpickled(tmp_path):
    marker, path = tmp_path / "run", tmp_path / "model.npz"
    np.savez(path, class_token=np.array([Hostile(marker)], dtype=object))
    assert refusal(path) == "array class_token holds Python objects, which could be code; download it again"
    assert not marker.exists()


def npy(shape, dtype="<f4", content=b""):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


def archive(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.fixture
def lean():
    """Fail if a test allocates 100 MB or more."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.usefixtures("lean")
def test_npz_that_claims_100_gb_is_damaged(tmp_path):
    path = archive(tmp_path / "x.npz", {"class_token.npy": npy((25_000_000_000,), content=bytes(40))})
    assert refusal(path) == (
        "array class_token has 40 bytes, but its header declares 100,000,000,000; download it again"
    )


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("shape", [(-1,), (-2, -5), (True, 10), (2**70,), ("10",), 10])
def test_npz_with_an_impossible_shape_is_damaged(tmp_path, shape):
    refusal(archive(tmp_path / "x.npz", {"class_token.npy": npy(shape, content=bytes(40))}))


@pytest.mark.usefixtures("lean")
def test_npz_that_unpacks_to_far_more_is_damaged(tmp_path):
    bomb = npy((10**7,), "|i1", content=bytes(10**7))
    path = archive(tmp_path / "x.npz", {"class_token.npy": bomb}, zipfile.ZIP_DEFLATED)
    size = path.stat().st_size
    assert size < 20_000
    assert refusal(path) == (
        f"would unpack from {size:,} bytes to {len(bomb):,}, which real weights never do; download it again"
    )


@pytest.mark.usefixtures("lean")
def test_npz_with_a_header_that_unpacks_to_far_more_is_damaged(tmp_path):
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 10**7) + b" " * 10**7
    path = archive(tmp_path / "x.npz", {"class_token.npy": header}, zipfile.ZIP_DEFLATED)
    del header
    assert "to 10,000,012, which real weights never do; download it again" in refusal(path)


def test_compressed_npz_is_read(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **{name: tensor.numpy() for name, tensor in plain_state().items()})
    assert_same(load_model(tmp_path / "x.npz", architecture=HEADS), noisy(PLAIN))


def test_npz_with_another_byte_order_or_layout_is_read(tmp_path):
    arrays = {name: np.asfortranarray(tensor.numpy().astype(">f4")) for name, tensor in plain_state().items()}
    np.savez(tmp_path / "x.npz", **arrays)
    assert_same(load_model(tmp_path / "x.npz", architecture=HEADS), noisy(PLAIN))


def test_npz_with_two_arrays_of_one_name_is_damaged(tmp_path):
    array = npy((2,), content=bytes(8))
    archive(tmp_path / "x.npz", {"class_token.npy": array, "class_token": array})
    assert refusal(tmp_path / "x.npz") == "array class_token occurs twice; download it again"


@pytest.mark.parametrize("dtype", ["<U2", "<M8[s]", "<c8"])
def test_npz_of_texts_dates_or_complex_numbers_is_damaged(tmp_path, dtype):
    arrays = {name: tensor.numpy() for name, tensor in plain_state().items()}
    np.savez(tmp_path / "x.npz", **{**arrays, "class_token": np.zeros((1, 1, 20), np.dtype(dtype))})
    refusal(tmp_path / "x.npz")


def headed(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(40))
    return path


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 100_000_000_000]},
        {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 40]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 40]},
        {"dtype": "F32", "shape": [-10], "data_offsets": [0, 40]},
        {"dtype": "F32", "shape": [10], "data_offsets": [0, 36]},
        {"dtype": "object", "shape": [10], "data_offsets": [0, 40]},
    ],
)
def test_safetensors_header_that_does_not_match_the_file_is_damaged(tmp_path, entry):
    path = headed(tmp_path / "x.safetensors", {"class_token": entry})
    assert refusal(path).startswith("cannot be read as .safetensors (")


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("length", [2**62, 2**40, 99_000_000])
def test_safetensors_header_longer_than_the_file_is_damaged(tmp_path, length):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", length) + b"{" * 100)
    refusal(tmp_path / "x.safetensors")


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("kind", ["pt", "legacy pt"])
@pytest.mark.parametrize(
    "claim",
    [
        torch.zeros(1).expand(1, 1, 25_000_000_000),
        torch.zeros(1, 1, 25_000_000_000, device="meta"),
        torch.zeros(4, 4).to_sparse(),
    ],
    ids=["expanded", "without storage", "sparse"],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant")
def test_tensor_larger_than_its_storage_is_damaged(tmp_path, kind, claim):
    path = write_as(kind, tmp_path, {**plain_state(), "class_token": claim})
    message = refusal(path)
    assert (
        message.startswith(f"class_token has shape {tuple(claim.shape)}, but fewer values are stored")
        or "has something else in place of a tensor (class_token is torch._utils._rebuild_" in message
        or "which real weights never do" in message
    )


@pytest.mark.usefixtures("lean")
def test_many_tensors_with_shared_storage_are_not_unpacked(tmp_path):
    whole = torch.zeros(1_000_000)
    path = write_as("pt", tmp_path, {f"encoder.layers.encoder_layer_{number}.x": whole for number in range(1000)})
    assert " bytes to 4,000,000,000, which real weights never do; download it again" in refusal(path)


@pytest.mark.usefixtures("lean")
def test_compressed_torch_archive_is_damaged(tmp_path, originals):
    (tmp_path / "plain.pt").write_bytes(originals["pt"])
    with zipfile.ZipFile(tmp_path / "plain.pt") as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    members["model/data.pkl"] = members["model/data.pkl"] + bytes(10_000_000)
    path = archive(tmp_path / "x.pt", members, zipfile.ZIP_DEFLATED)
    del members
    assert " are compressed, as torch.save never does; save it again" in refusal(path)


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("name", ["byteorder", "version"])
def test_small_member_that_unpacks_to_far_more_is_damaged(tmp_path, originals, name):
    path = tmp_path / "x.pt"
    path.write_bytes(originals["pt"])
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist() if info.filename != f"model/{name}"}
    archive(path, members)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"model/{name}", bytes(10_000_000))
    assert refusal(path).startswith(f"its members model/{name} are compressed, as torch.save never does")


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize("count", [10**9, 25_000_000_000])
def test_legacy_torch_file_that_claims_more_than_it_stores_is_damaged(tmp_path, originals, count):
    path = tmp_path / "x.pt"
    content = originals["legacy pt"].replace(b"K\x14", b"\x8a\x08" + struct.pack("<q", count), 40)
    assert content != originals["legacy pt"]
    path.write_bytes(content)
    refusal(path)


@pytest.mark.parametrize("version", [929, 0, 1002, -1])
def test_legacy_torch_file_of_an_unknown_version_is_damaged(tmp_path, originals, version):
    content = originals["legacy pt"].replace(b"M\xe9\x03", b"J" + struct.pack("<i", version), 1)
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"Invalid protocol version: {version}"):
        torch.load(path)
    assert refusal(path) == f"has version {version} of torch's format, which does not exist; download it again"


@pytest.mark.parametrize("version", ["0", "11", "-3", "x"])
def test_torch_archive_of_an_unknown_version_is_damaged(tmp_path, originals, version):
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(io.BytesIO(originals["pt"])) as archive, zipfile.ZipFile(path, "w") as changed:
        for member in archive.infolist():
            is_version = member.filename.endswith("/version")
            changed.writestr(member.filename, f"{version}\n" if is_version else archive.read(member))
    with pytest.raises(Exception, match=r"version|stoull|stoi"):
        torch.load(path)
    assert "has version" in refusal(path) or version == "x"


def test_dictionary_that_contains_itself_is_refused(tmp_path):
    loop = {}
    loop["model"] = loop["state_dict"] = loop
    assert refusal(write_as("pt", tmp_path, loop)) == "holds no tensors by name; give a file with a state_dict()"


@pytest.mark.parametrize("content", [[], torch.zeros(2), {(1, 2): torch.zeros(2)}, {"epoch": 3}, None])
def test_content_without_named_tensors_is_refused(tmp_path, content):
    assert refusal(write_as("pt", tmp_path, content)) == "holds no tensors by name; give a file with a state_dict()"


@pytest.mark.usefixtures("lean")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "is not valid JSON ("),
        (b"\xff\xfe{}", "is not valid JSON ("),
        (b"[" * 200_000, "is not valid JSON ("),
        (b'{"a":' * 200_000, "is not valid JSON ("),
        (b"[1]", "must be a JSON object, not a list; download it again"),
        (None, "has 1,000,000,000,000 bytes, more than the 8,388,608 that a description may have; download it again"),
    ],
    ids=["cut short", "not text", "deep lists", "deep objects", "list", "huge"],
)
def test_invalid_description_is_damaged(tmp_path, content, reason):
    write_as("safetensors", tmp_path, plain_state())
    config = tmp_path / "config.json"
    config.write_bytes(content or b"")
    if content is None:
        os.truncate(config, 10**12)  # sparse: it takes no space on disk
    with pytest.raises(DamagedFileError) as caught:
        load_model(tmp_path, architecture=HEADS)
    assert str(caught.value).startswith(f"{config}: {reason}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["pt", "npz", "safetensors"])
def test_hostile_names_are_quoted_on_one_printable_line(tmp_path, kind):
    hostile = {"\x1b[2J\nfile: all is well": torch.zeros(2), "x" * 10_000: torch.zeros(2)}
    message = refusal(write_as(kind, tmp_path, {**plain_state(), **hostile}))
    assert r"unexpected: \x1b[2J\nfile: all is well, xxx" in message


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "npz", "bin"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; download it again"),
        (b"<!DOCTYPE html><html>Quota exceeded</html>", "is a web page (HTML or XML), not weights; "),
        (b"\xef\xbb\xbf\n <html>", "is a web page (HTML or XML), not weights; "),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
            "is a pointer of git-lfs, not the file",
        ),
        (b'{"error": "Invalid credentials"}', "is JSON text, not weights; "),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file, as Keras writes it, which is not supported; "),
        (b"GGUF" + bytes(50), "is a GGUF file, which is not supported; "),
        (b"\x1f\x8b\x08" + bytes(50), "is compressed with gzip; unpack it"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a PNG image, not weights; "),
    ],
    ids=["empty", "HTML", "HTML after a mark", "git-lfs", "JSON", "HDF5", "GGUF", "gzip", "PNG"],
)
def test_file_that_is_something_else_is_called_by_its_name(tmp_path, suffix, content, reason):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(content)
    assert refusal(path).startswith(reason)


def test_zip_archive_without_weights_lists_what_it_has(tmp_path):
    path = archive(tmp_path / "model.pth", {"photos/a.jpg": b"x", "photos/b.jpg": b"y"})
    assert refusal(path) == (
        "is a zip archive without weights (photos/a.jpg, photos/b.jpg); extract the file of weights"
    )
