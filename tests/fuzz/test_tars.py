"""Damaged tar files have the members that tarfile reads from them, or fewer, or are refused."""

import io
import tarfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.campaign import Campaign, drawing
from tests.fuzz.mutation import mutated
from tests.unit.data.sources.builders import png, tar

from vitreous.data.sources.shards.source import open_shards
from vitreous.data.sources.shards.tar_members import TarMembers

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def seeds() -> list[bytes]:
    """Write labeled images in every format of tar, with long names and with special members."""
    draw = np.random.default_rng(0)
    images = [png(draw.integers(0, 256, (4, 5), dtype=np.uint8)) for _ in range(4)]
    contents = []
    for kind in FORMATS:
        for prefix in ("", "long folder/" * 12):
            entries = [(f"{prefix}{number}.png", image) for number, image in enumerate(images)]
            entries += [(f"{prefix}{number}.cls", b"%d" % (number % 2)) for number in range(4)]
            contents.append(tar(sorted(entries), format=kind))
            entries += [(f"{prefix}{number}.json", b'{"label": "cat", "weight": 2}') for number in range(2)]
            contents.append(tar(sorted(entries), format=kind))
    special = io.BytesIO()
    with tarfile.open(fileobj=special, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number, type_ in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"{number}.png")
            member.type, member.linkname = type_, "/etc/passwd"
            archive.addfile(member)
    return [*contents, special.getvalue()[:2048] + contents[0]]


def reference(content: bytes) -> dict[tuple[str, int, int], bytes]:
    """Return (name, offset, size) of each plain file that tarfile reads, and its content."""
    found: dict[tuple[str, int, int], bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if member.isreg() and not member.issparse():
                    end = member.offset_data + member.size
                    found[member.name, member.offset_data, member.size] = content[member.offset_data : end]
    except (tarfile.TarError, ValueError, OverflowError, OSError):
        pass
    return found


def check(path: Path) -> None:
    content = path.read_bytes()
    expected = reference(content)
    members = TarMembers(io.BytesIO(content), len(content), "x.tar")
    found = {(member.name, member.offset, member.size) for member in members}
    assert found <= expected.keys()
    assert members.damage or members.num_special or found == expected.keys()
    source = open_shards(str(path))
    assert len(source) > 0
    contents = set(expected.values())
    for index in range(len(source)):
        assert 0 <= source.labels[index] < len(source.classes)
        assert source.content(index) in contents


def test_tars(campaign: Campaign) -> None:
    contents = seeds()
    campaign.run(lambda draw: mutated(draw, contents), check, suffix=".tar", share=0.8)
    assert campaign.accepted > 0.05 * campaign.rejected


NAMES = st.text(st.characters(exclude_characters="/\0.", exclude_categories=["Cs"]), min_size=1, max_size=130)
TEXTS = st.one_of(st.just(b"1"), st.just(b" cat\n"), st.binary(max_size=20), st.text(max_size=20).map(str.encode))


def test_tars_that_hypothesis_draws(campaign: Campaign) -> None:
    @drawing(0.2)
    @given(
        entries=st.lists(st.tuples(NAMES, st.sampled_from(["png", "JPG", "cls", "json", "txt", "pkl"]), TEXTS)),
        kind=st.sampled_from(FORMATS[1:]),
    )
    def draw(entries: list[tuple[str, str, bytes]], kind: int) -> None:
        pairs = [("a.png", b"?"), ("a.cls", b"0"), ("b.png", b"?"), ("b.cls", b"1")]
        path = campaign.folder / "drawn.tar"
        path.write_bytes(tar([*pairs, *((f"{name}.{end}", text) for name, end, text in entries)], format=kind))
        with campaign.input():
            check(path)

    draw()
    assert campaign.accepted > campaign.rejected
