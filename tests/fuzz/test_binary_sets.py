"""Damaged idx files have the values that NumPy and gzip read, CIFAR archives are the official ones; else refused."""

import gzip
import hashlib
import io
import math
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.campaign import Campaign, drawing
from tests.fuzz.mutation import mutated
from tests.unit.data.sources.builders import tar

from vitreous.data.sources.named import idx
from vitreous.data.sources.named.cifar import CIFAR10, _read_folder
from vitreous.errors import DataError


def written(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def seeds() -> list[bytes]:
    draw = np.random.default_rng(0)
    plain = [written(draw.integers(0, 256, shape, dtype=np.uint8)) for shape in ((7,), (3, 5), (2, 4, 3), (1, 2, 3, 4))]
    return [*plain, *map(gzip.compress, plain), gzip.compress(b"") + gzip.compress(plain[0])]


def reference(content: bytes) -> np.ndarray:
    """Return the values as NumPy and gzip read them; raises any error for damaged bytes."""
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    assert content[:3] == b"\0\0\x08"
    assert math.prod(map(int, sizes)) == len(values)
    return values.reshape(sizes)


def check(path: Path) -> None:
    content = path.read_bytes()
    found = idx.parse(idx.unpack(content, "x"), "x")
    np.testing.assert_array_equal(found, reference(content))


def test_idx_files(campaign: Campaign) -> None:
    contents = seeds()
    campaign.run(lambda draw: mutated(draw, contents), check, share=0.6)
    assert campaign.accepted > 0.05 * campaign.rejected


def test_idx_files_that_hypothesis_draws(campaign: Campaign) -> None:
    @drawing(0.2)
    @given(st.lists(st.integers(0, 2**32 - 1), max_size=5), st.integers(0, 5), st.binary(max_size=64))
    def draw(sizes: list[int], declared: int, rest: bytes) -> None:
        path = campaign.folder / "drawn"
        path.write_bytes(bytes([0, 0, 8, declared]) + struct.pack(f">{len(sizes)}I", *sizes) + rest)
        with campaign.input():
            check(path)

    draw()
    assert campaign.rejected > 0


def test_gzip_files_that_unpack_to_too_much(campaign: Campaign) -> None:
    bomb = io.BytesIO()
    with gzip.open(bomb, "wb", compresslevel=1) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    with campaign.input():
        idx.unpack(bomb.getvalue(), "x")
    assert campaign.rejected == 1


def test_cifar_archives(campaign: Campaign) -> None:
    files = {name: bytes([number]) * 3073 for number, name in enumerate(CIFAR10.files)}
    valid = gzip.compress(tar([(f"cifar-10-batches-bin/{name}", content) for name, content in files.items()]))
    official = replace(CIFAR10, sha256=hashlib.sha256(valid).hexdigest())

    def read(path: Path) -> None:
        content = path.read_bytes()
        (campaign.folder / CIFAR10.archive).write_bytes(content)
        found, reason = _read_folder(official, campaign.folder)
        if found is None:
            raise DataError(reason)
        assert content == valid
        assert found == files
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            assert len(archive.getmembers()) == len(found)

    campaign.run(lambda draw: mutated(draw, [valid]), read, share=0.2)
    assert campaign.accepted > 0
