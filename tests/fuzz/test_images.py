"""Damaged image files are decoded to the pixels that Pillow reads from them, or refused."""

import io
import warnings
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps, features
from tests.fuzz.campaign import Campaign
from tests.fuzz.mutation import mutated

from vitreous.data.decoding.decode import decode_image, read_header
from vitreous.errors import DecodeError

KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM", "TGA", "ICO", "WEBP", "AVIF", "JPEG2000")
MOST_PIXELS = 178_956_970
NAME = "some/ü file.jpg"
_MESSY = Path(__file__).parents[3] / "shared" / "data" / "messy-files"


def seeds() -> list[bytes]:
    """Draw small images in every format that this Pillow writes; add real odd files if they are on this machine."""
    draw = np.random.default_rng(0)
    colors = Image.fromarray(draw.integers(0, 256, (24, 17, 3), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 65536, (24, 17), dtype=np.uint16))
    clear = Image.fromarray(draw.integers(0, 256, (24, 17, 4), dtype=np.uint8))
    supported = {"WEBP": features.check("webp"), "AVIF": features.check("avif"), "JPEG2000": features.check("jpg_2000")}
    images = [(kind, image) for kind in KINDS for image in (colors, colors.convert("P"), colors.convert("L"))]
    images += [("PNG", deep), ("TIFF", deep), ("PNG", clear), ("WEBP", clear), ("GIF", clear), ("JPEG", colors)]
    contents = []
    for number, (kind, image) in enumerate(images):
        file = io.BytesIO()
        if supported.get(kind, True) and (kind != "JPEG" or image.mode != "P"):
            exif = Image.Exif()
            exif[0x0112] = 1 + number % 8
            plain = kind in ("AVIF", "WEBP", "JPEG2000", "PPM") and image.mode != "RGBA"
            image.convert("RGB" if plain else image.mode).save(file, kind, exif=exif)
            contents.append(file.getvalue())
    real = sorted(p for p in _MESSY.rglob("*") if p.is_file() and p.stat().st_size < 100_000)
    return contents + [path.read_bytes() for path in real]


VALID = seeds()


def reference(content: bytes) -> Image.Image | None:
    """Return the image that Pillow reads, upright and on white; None if Pillow reads none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened = Image.open(io.BytesIO(content))
            opened.load()
        except Exception:
            return None
        try:
            image: Image.Image = ImageOps.exif_transpose(opened)
        except Exception:  # damaged metadata; the pixels can still be right
            image = opened.copy()
        if image.has_transparency_data and image.mode[0] not in "IF":
            canvas = Image.new("RGBA", image.size, "white")
            canvas.alpha_composite(image.convert("RGBA"))
            image = canvas
        return image


def largest_difference(found: np.ndarray, expected: np.ndarray) -> int:
    return int(np.abs(found.astype(int) - expected.astype(int)).max())


def check(path: Path) -> None:
    content = path.read_bytes()
    expected = reference(content)
    try:
        found = decode_image(content, where=NAME)
    except DecodeError as error:
        if not str(error).startswith(f"{NAME}: ") or (expected is not None and content in VALID):
            raise AssertionError(f"{error}, but what is not damaged is never refused") from error
        raise
    if expected is None:  # tifffile reads some TIFF files that Pillow does not identify
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            assert found.size == (file.pages[0].imagewidth, file.pages[0].imagelength)
        return
    assert found.mode in ("L", "RGB")
    assert found.size == expected.size
    assert found.width * found.height <= MOST_PIXELS
    if expected.mode[0] in "IF":  # deep images: the order of the values is kept, and one of them may be transparent
        deep, shallow = np.asarray(expected).astype(np.float64), np.asarray(found.convert("L"))
        clear = deep == expected.info.get("transparency")
        assert (shallow[clear] == 255).all()
        deep, shallow = deep[~clear], shallow[~clear]
        assert (np.diff(shallow[np.argsort(deep, kind="stable")].astype(int)) >= 0).all()
    elif expected.mode != "LAB":
        # Pillow truncates colors of 16 bits to 8; rounding them, and blending with white, differs by up to 2.
        assert largest_difference(np.asarray(found), np.asarray(expected.convert(found.mode))) <= 2
    read_header(content, NAME)
    reduced = decode_image(content, where=NAME, at_least=(5, 3))
    assert reduced.size == found.size or min(reduced.size) >= 10


def test_images(campaign: Campaign) -> None:
    campaign.limit_bytes = 3 << 30  # an image at the limit of pixels takes 512 MiB, and its conversion again
    campaign.run(lambda draw: mutated(draw, VALID), check)
    assert campaign.accepted > 0.1 * campaign.rejected
