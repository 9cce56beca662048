"""Members of tar files, compared with what the standard library's tarfile and the program tar read and write."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data.sources.builders import error_of, tar

from vitreous.data.sources.shards.tar_members import MAX_EXTENSION_BYTES, Member, TarMembers
from vitreous.errors import DataError

SMALL = [("a.jpg", b"1" * 700), ("long/" * 40 + "b.jpg", b"2" * 100), ("c.cls", b"3")]
FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def read(content: bytes) -> tuple[list[Member], TarMembers]:
    members = TarMembers(io.BytesIO(content), len(content), "x.tar")
    return list(members), members


def reference(content: bytes) -> list[tuple[str, int, int]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as file:
        return [(m.name, m.offset_data, m.size) for m in file if m.isreg() and not m.issparse()]


def placed(members: Sequence[Member]) -> list[tuple[str, int, int]]:
    return [(member.name, member.offset, member.size) for member in members]


def header(**fields: bytes) -> bytearray:
    """Return a ustar header of a file `a.jpg` of 3 bytes, with some fields replaced and a valid checksum."""
    block = bytearray(tar([("a.jpg", b"xyz")], format=tarfile.USTAR_FORMAT)[:512])
    places = {
        "mode": (100, 8),
        "size": (124, 12),
        "kind": (156, 1),
        "magic": (257, 8),
        "prefix": (345, 155),
        "name": (0, 100),
    }
    for field, value in fields.items():
        at, width = places[field]
        block[at : at + width] = value.ljust(width, b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return block


PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60)
NAMES = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(lambda name: name.strip("."))
KINDS = st.sampled_from(
    [tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE,
     tarfile.FIFOTYPE, tarfile.CHRTYPE]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    st.lists(st.tuples(NAMES, KINDS, st.binary(max_size=1500), PARTS), max_size=8),
)
def test_members_are_those_that_tarfile_reads(kind: int, entries: list[tuple[str, bytes, bytes, str]]) -> None:
    file = io.BytesIO()
    num_special = 0
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for name, member_kind, content, owner in entries:
            info = tarfile.TarInfo(name)
            info.type, info.uname, info.linkname = member_kind, owner, name[::-1]
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
            num_special += not info.isreg() and not info.isdir()
    found, members = read(file.getvalue())
    assert placed(found) == reference(file.getvalue())
    contents = [content for _, member_kind, content, _ in entries if member_kind in b"0\x007"]
    assert [members.read(member.offset, member.size) for member in found] == contents
    assert [member.start for member in found] == [content[:512] for content in contents]
    assert (members.num_special, members.damage) == (num_special, "")


@pytest.mark.parametrize("kind", FORMATS)
def test_names_of_every_length_are_complete(kind: str) -> None:
    longest = 240 if kind == "ustar" else 3000
    names = [("directory/" * 300)[: length - 4].rstrip("/") + ".jpg" for length in (5, 99, 100, 101, 200, longest)]
    content = tar([(name, b"7") for name in names], format=FORMATS[kind])
    assert [member.name for member in read(content)[0]] == names


def test_undecodable_bytes_are_kept_in_a_name() -> None:
    found, _ = read(bytes(header(name=b"\xff\xe4.jpg")) + b"xyz".ljust(512, b"\0"))
    assert os.fsencode(found[0].name) == b"\xff\xe4.jpg"


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the program tar")
@pytest.mark.parametrize("kind", ["gnu", "oldgnu", "pax", "ustar", "v7"])
def test_files_from_the_program_tar_are_read_and_sparse_files_are_counted(kind: str, tmp_path: Path) -> None:
    (tmp_path / "ä b").mkdir()
    (tmp_path / "ä b" / "1.jpg").write_bytes(b"123")
    with (tmp_path / "holes.bin").open("wb") as file:
        for place in range(40):  # more pieces than one header holds
            file.seek(place * 100_000)
            file.write(b"data" * 1024)
    (tmp_path / "z.cls").write_bytes(b"5")
    knows_holes = kind not in ("ustar", "v7")
    command = ["tar", f"--format={kind}", *["--sparse"] * knows_holes, "-cf", "x.tar", "ä b", "holes.bin", "z.cls"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("needs GNU tar")
    content = (tmp_path / "x.tar").read_bytes()
    found, members = read(content)
    assert placed(found) == reference(content)
    assert [members.read(m.offset, m.size) for m in found if m.name != "holes.bin"] == [b"123", b"5"]
    assert members.damage == ""
    assert members.num_special == knows_holes


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_truncated_tar_yields_its_complete_members_and_reports_the_damage(data: st.DataObject) -> None:
    content = tar(SMALL)
    cut = data.draw(st.integers(0, 5120))
    try:
        found, members = read(content[:cut])
    except DataError:
        assert 0 < cut < 512
        return
    whole = reference(content)
    assert placed(found) == whole[: len(found)]
    assert all(offset + size <= cut for _, offset, size in placed(found))
    complete = [offset for _, offset, size in whole if offset + size <= cut]
    assert len(found) == len(complete)
    assert bool(members.damage) == (cut < 5120)  # the first block of zeros ends there


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=12))
def test_altered_tar_yields_members_within_it_or_one_error(changes: list[tuple[int, int]]) -> None:
    content = bytearray(tar(SMALL))
    for place, value in changes:
        content[place] = value
    for start in (0, 1536, 2048, 2560, 3072, 3584, 4096, 4608):  # valid checksums, so that reading goes on
        block = content[start : start + 512]
        block[148:156] = b" " * 8
        content[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    found, message = [], ""
    try:
        found, _ = read(bytes(content))
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    assert all(0 <= offset <= offset + size <= len(content) for _, offset, size in placed(found))


@pytest.mark.parametrize(
    ("start", "name", "remedy"),
    [(b"\x1f\x8b\x08", "gzip", "gunzip"), (b"BZh9", "bzip2", "bunzip2"), (b"\xfd7zXZ\0", "xz", "unxz"),
     (b"(\xb5/\xfd", "zstd", "unzstd")],
)  # fmt: skip
def test_compressed_tar_is_refused_by_name(start: bytes, name: str, remedy: str) -> None:
    assert error_of(lambda: read(start + b"7" * 2000)) == (
        f"x.tar: the file is compressed with {name}, so samples cannot be read individually; "
        f"decompress it once with {remedy} (images are compressed anyway)"
    )


def test_file_that_is_not_a_tar_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"^x\.tar: not a tar file; use \.tar files from webdataset or `vitreous shard`$"
    ):
        read(b"\xff\xd8 a photo" * 200)


def test_empty_tar_and_empty_file_have_no_members() -> None:
    for content, damage in ((b"", "cut short: no end mark at byte 0"), (tar([]), "")):
        found, members = read(content)
        assert (found, members.num_special, members.damage) == ([], 0, damage)


def test_second_tar_after_the_end_is_reported() -> None:
    found, members = read(tar([("a.jpg", b"1")]) + tar([("b.jpg", b"2" * (1 << 20))]))
    assert [member.name for member in found] == ["a.jpg"]
    assert members.damage.startswith("ends at byte 1,024 of 1,064,960; if `cat` joined several tar files, use")


@pytest.mark.parametrize(
    ("block", "damage"),
    [
        (header(size=b"77777777777"), "cut short: the member at byte 1,024 would end beyond the end of the file"),
        (
            header(size=b"\x80" + b"\0" * 3 + b"\x7f" * 8),
            "cut short: the member at byte 1,024 would end beyond the end of the file",
        ),
        (header(size=b"\xff" * 12), "damaged at byte 1,024: no tar header there"),
        (header(size=b"12x"), "damaged at byte 1,024: no tar header there"),
        (header(kind=b"L", size=b"%o" % (MAX_EXTENSION_BYTES + 1)), "cut short: the member at byte 1,024"),
        (bytearray(b"?" * 512), "damaged at byte 1,024: no tar header there"),
    ],
)
def test_invalid_header_ends_the_reading(block: bytearray, damage: str) -> None:
    before = tar([("first.jpg", b"1")], format=tarfile.USTAR_FORMAT)[:1024]
    found, members = read(before + bytes(block) + b"\0" * 2048)
    assert placed(found) == [("first.jpg", 512, 1)]
    assert members.damage.startswith(damage)


def test_overlong_name_is_refused_before_it_is_read() -> None:
    size = MAX_EXTENSION_BYTES + 1
    content = tar([("first.jpg", b"1")], format=tarfile.USTAR_FORMAT)[:1024] + bytes(
        header(kind=b"L", size=b"%o" % size)
    )
    found, members = read(content + b"a" * size + b"\0" * 1024)
    assert len(found) == 1
    assert members.damage == f"damaged at byte 1,024: a name of {size:,} bytes"


def test_size_in_a_pax_header_wins_and_must_be_valid() -> None:
    def tar_of_size(size: bytes) -> bytes:
        record = b"%d size=%s\n" % (len(size) + 9, size)
        return b"".join([
            bytes(header(kind=b"x", size=b"%o" % len(record))), record.ljust(512, b"\0"),
            bytes(header(size=b"0")), b"xyz".ljust(512, b"\0"), b"\0" * 1024,
        ])  # fmt: skip

    assert placed(read(tar_of_size(b"03"))[0]) == [("a.jpg", 1536, 3)]
    for size in (b"-3", b"9" * 40, b"999999999", b"3.0"):
        found, members = read(tar_of_size(size.rjust(2, b"0")))
        assert (found, members.damage[:9]) == ([], "cut short")


def test_checksum_of_signed_characters_is_accepted() -> None:
    block = header(name="ä.jpg".encode())
    signed = 256 + sum(byte - 256 * (byte > 127) for byte in block[:148] + block[156:])
    block[148:156] = b"%06o\0 " % signed
    assert [member.name for member in read(bytes(block) + b"xyz".ljust(512, b"\0"))[0]] == ["ä.jpg"]


def test_header_with_invalid_numbers_is_no_header_as_for_tarfile() -> None:
    content = bytes(header(mode=b"1e999")) + b"xyz".ljust(512, b"\0")
    with pytest.raises(tarfile.ReadError):
        reference(content)
    with pytest.raises(DataError, match="not a tar file"):
        read(content)
