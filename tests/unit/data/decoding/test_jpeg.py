"""simplejpeg gives the pixels of Pillow, and is not used where the two differ."""

import io

import numpy as np
import pytest
from PIL import Image

from vitreous.data.decoding import jpeg
from vitreous.data.decoding.decode import decode_image
from vitreous.data.decoding.preprocess import Preprocess


def drawn_jpegs() -> list[bytes]:
    """Draw all kinds of files that simplejpeg may decode: color and gray, each subsampling, odd sides, progressive."""
    smooth = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    photo = Image.fromarray(smooth).resize((67, 45), Image.Resampling.BICUBIC)
    contents = []
    for image in (photo, photo.convert("L"), photo.resize((1, 3))):
        for options in ({"subsampling": s} for s in (0, 1, 2)):
            for progressive in (False, True):
                file = io.BytesIO()
                image.save(file, "JPEG", quality=80, progressive=progressive, **options)
                contents.append(file.getvalue())
    return contents


def assert_same_with_and_without_simplejpeg(contents: list[bytes], preprocess: Preprocess) -> None:
    for content in contents:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jpeg, "_simplejpeg", lambda: None)
            slow, slow_pixels = decode_image(content), preprocess.pixels(content)
        fast, fast_pixels = decode_image(content), preprocess.pixels(content)
        assert fast.mode == slow.mode
        assert np.abs(np.asarray(fast).astype(int) - np.asarray(slow)).max() <= 1
        assert (fast_pixels.int() - slow_pixels.int()).abs().max() <= 1


def test_simplejpeg_gives_pillows_pixels() -> None:
    pytest.importorskip("simplejpeg")
    contents = drawn_jpegs()
    assert all(jpeg.decode_jpeg(content) is not None for content in contents)
    for preprocess in (Preprocess((45, 67), 3), Preprocess((45, 67), 1), Preprocess((20, 31), 3)):
        assert_same_with_and_without_simplejpeg(contents, preprocess)


def test_simplejpeg_is_not_used_where_it_differs_from_pillow() -> None:
    pytest.importorskip("simplejpeg")
    content = drawn_jpegs()[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated, cmyk = io.BytesIO(), io.BytesIO()
    image = Image.open(io.BytesIO(content))
    image.save(rotated, "JPEG", exif=exif.tobytes())
    image.convert("CMYK").save(cmyk, "JPEG")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VITREOUS_MAX_PIXELS", str(45 * 67 - 1))
        assert jpeg.decode_jpeg(content) is None
    assert jpeg.decode_jpeg(content, at_least=(10, 8)) is None
    assert jpeg.decode_jpeg(content, at_least=(40, 60)) is not None
    assert jpeg.decode_jpeg(content, shape=(45, 67, 1)) is None
    for other in (rotated.getvalue(), cmyk.getvalue(), content[:-300], b"", b"\xff\xd8\xff", b"\x89PNG"):
        assert jpeg.decode_jpeg(other) is None
