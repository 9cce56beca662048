"""Random and damaged bytes have one of two outcomes: an image, or a DecodeError of one line."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from vitreous.data.decoding.decode import decode_image, read_header
from vitreous.data.decoding.limits import DEFAULT_MAX_PIXELS
from vitreous.errors import DecodeError

_SHARED = Path(__file__).parents[5] / "shared" / "data"
KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "WEBP", "AVIF", "JPEG2000")
NAME = "some/ü file.jpg"
LARGEST = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\xff\xff", b"\xff\xff\xff\x7f", b"\x00" * 4)


def seeds() -> list[bytes]:
    """Draw small images in every format that this Pillow writes; add real odd files if they are on this machine."""
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 17, 3), dtype=np.uint8))
    supported = {"WEBP": features.check("webp"), "AVIF": features.check("avif"), "JPEG2000": features.check("jpg_2000")}
    contents = []
    for kind in KINDS:
        for image in (colors, colors.convert("P"), colors.convert("L")):
            file = io.BytesIO()
            if supported.get(kind, True) and (kind != "JPEG" or image.mode != "P"):
                image.convert("RGB" if kind in ("AVIF", "WEBP", "JPEG2000", "PPM") else image.mode).save(file, kind)
                contents.append(file.getvalue())
    real = sorted(p for p in (_SHARED / "messy-files").rglob("*") if p.is_file() and p.stat().st_size < 100_000)
    return contents + [path.read_bytes() for path in real]


def mutated(draw: np.random.Generator, contents: list[bytes]) -> bytes:
    """Return a file with a few bytes changed, removed or inserted, or continued by another file."""
    content = bytearray(contents[draw.integers(len(contents))])
    for _ in range(draw.integers(1, 6)):
        # Headers matter most, so half of the changes are in the first hundred bytes.
        place = int(draw.integers(min(100, len(content)) if draw.random() < 0.5 else len(content)) if content else 0)
        match draw.integers(6):
            case 0:
                content[place : place + 1] = bytes([draw.integers(256)])
            case 1:
                content[place : place + 4] = LARGEST[draw.integers(len(LARGEST))]
            case 2:
                del content[place : place + int(draw.integers(1, 50))]
            case 3:
                content[place:place] = draw.bytes(int(draw.integers(1, 50)))
            case 4:
                del content[max(1, place) :]
            case _:
                other = contents[draw.integers(len(contents))]
                content[place:] = other[int(draw.integers(len(other))) :]
    return bytes(content)


def check(content: bytes) -> bool:
    """Return True for an image and False for a DecodeError of one line; any other outcome fails."""
    errors = []
    try:
        read_header(content, NAME)
    except DecodeError as error:
        errors.append(str(error))
    try:
        found = decode_image(content, where=NAME, at_least=(32, 32))
    except DecodeError as error:
        errors.append(str(error))
        found = None
    assert all(text.startswith(f"{NAME}: ") and "\n" not in text and len(text) > len(NAME) + 2 for text in errors)
    assert found is None or (found.mode in ("L", "RGB") and 0 < found.width * found.height <= DEFAULT_MAX_PIXELS)
    return found is not None


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\x00", b"RIFF"]),
)
def test_random_bytes_are_an_image_or_an_error_with_a_name(content: bytes, start: bytes) -> None:
    check(start + content)


def test_mutated_files_are_an_image_or_an_error_with_a_name() -> None:
    draw, contents = np.random.default_rng(1), seeds()
    outcomes = [check(mutated(draw, contents)) for _ in range(300)]
    assert 30 < sum(outcomes) < 270  # neither are all changes harmless, nor do all make the file unreadable


LONG = """
import faulthandler, resource, sys
from tests.unit.data.decoding.test_decode_fuzz import check, mutated, np, seeds

draw, contents, good = np.random.default_rng(int(sys.argv[1])), seeds(), 0
for number in range(int(sys.argv[2])):
    faulthandler.dump_traceback_later(120, exit=True)  # an image that takes two minutes counts as a hang
    good += check(mutated(draw, contents))
print(good, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_mutated_files_neither_crash_nor_hang_nor_take_gigabytes() -> None:
    pytest.importorskip("resource")
    command = [sys.executable, "-W", "error", "-c", LONG, "7", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[4], check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    good, peak_mib = map(int, done.stdout.split())
    assert 1_000 < good < 9_000
    assert peak_mib < 3072
