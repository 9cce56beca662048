"""pixels.js: the pixels that the model gets are those of Python, for any size, shape and kind of file."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.browser.runtime import Browser
from tests.browser.test_engine import script_without_page

from vitreous.data.decoding.preprocess import Preprocess
from vitreous.use.export.page.pack import may_turn

pytestmark = pytest.mark.browser
SIZES = [
    (9, 14), (31, 7), (24, 36), (1, 1), (1, 40), (101, 99), (16, 24), (17, 25), (300, 45), (40, 12), (45, 300), (15, 5),
    *((int(height), int(width)) for height, width in np.random.default_rng(7).integers(2, 120, (20, 2))),
]  # fmt: skip


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return smooth colors with noise and hard edges, `[height, width, 3]`."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(rows / a + columns / b) for a, b in ((5, 9), (3, 4), (11, 2))]
    noise = draw.normal(0, 30, (height, width, 3)) + 90 * draw.integers(-1, 2, (height, width, 1))
    return np.clip(np.stack(waves, axis=-1) + noise, 0, 255).astype(np.uint8)


def settings(preprocess: Preprocess) -> dict[str, Any]:
    return preprocess.as_dict() | {"may_turn": may_turn()}


def expected(image: Any, preprocess: Preprocess) -> NDArray[np.int64]:
    return preprocess.pixels(image).permute(1, 2, 0).flatten().numpy().astype(np.int64)


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("in_chans", [1, 3])
def test_resized_pixels_are_exactly_those_of_pillow(fit: Any, in_chans: int, browser: Browser) -> None:
    preprocess = Preprocess((16, 24), in_chans, fit, value_range=())
    pictures = [picture(*size, seed) for seed, size in enumerate(SIZES)]
    rgba = [np.dstack([array, np.full(array.shape[:2], 255, np.uint8)]) for array in pictures]
    data = {
        "preprocess": settings(preprocess),
        "images": [{"height": a.shape[0], "width": a.shape[1], "data": a.flatten().tolist()} for a in rgba],
    }
    last = "data.images.map((image) => [...Pixels.prepare(image, data.preprocess)])"
    found = browser.compute(script_without_page() + last, data)
    for array, pixels in zip(pictures, found, strict=True):
        resized = expected(Image.fromarray(array), preprocess)
        np.testing.assert_array_equal(pixels, resized, err_msg=str(array.shape))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def files() -> dict[str, bytes]:
    """Return lossless files of every kind, by name."""
    color, gray = Image.fromarray(picture(33, 47)), Image.fromarray(picture(33, 47)).convert("L")
    alpha = Image.fromarray(np.linspace(0, 255, 33 * 47).reshape(33, 47).astype(np.uint8))
    with_alpha, gray_with_alpha = color.copy(), gray.copy()
    with_alpha.putalpha(alpha)
    gray_with_alpha.putalpha(alpha)
    deep = (np.asarray(gray).astype(np.uint16) * 257) ^ 0x55
    found = {
        "color": encoded(color, "PNG"),
        "gray": encoded(gray, "PNG"),
        "alpha": encoded(with_alpha, "PNG"),
        "gray with alpha": encoded(gray_with_alpha, "PNG"),
        "palette": encoded(color.quantize(50), "PNG"),
        "one transparent color": encoded(color.quantize(20), "PNG", transparency=3),
        "one bit": encoded(gray.convert("1"), "PNG"),
        "16 bits": encoded(Image.fromarray(deep), "PNG"),
        "webp": encoded(color, "WEBP", lossless=True),
        "gif": encoded(color.quantize(100), "GIF"),
        "bmp": encoded(color, "BMP"),
        "one pixel": encoded(color.crop((0, 0, 1, 1)), "PNG"),
        "tall": encoded(Image.fromarray(picture(211, 13)), "PNG"),
    }
    return found | {f"orientation {n}": encoded(color, "PNG", exif=exif(n)) for n in range(1, 9)}


def in_browser(browser: Browser, tmp_path: Path, content: bytes, preprocess: Preprocess) -> NDArray[np.int64]:
    page = tmp_path / "page.html"
    if not page.exists():
        page.write_text(f"<!doctype html><meta charset=utf-8><script>{script_without_page()}</script>", "utf-8")
        browser.open(page)
    text = base64.b64encode(content).decode()
    return np.array(
        browser.run(
            f"Pixels.decode(new Blob([Pixels.bytesOf('{text}')]))"
            f".then((image) => [...Pixels.prepare(image, {json.dumps(settings(preprocess))})])"
        )
    )


@pytest.mark.parametrize("in_chans", [1, 3])
def test_lossless_files_are_within_one_gray_level(in_chans: int, browser: Browser, tmp_path: Path) -> None:
    for img_size in ((33, 47), (16, 24)):
        preprocess = Preprocess(img_size, in_chans, "crop", value_range=())
        for name, content in files().items():
            found = in_browser(browser, tmp_path, content, preprocess)
            assert np.abs(found - expected(content, preprocess)).max() <= 1, f"{name}, {img_size}"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photo_is_turned_upright(orientation: int, browser: Browser, tmp_path: Path) -> None:
    content = encoded(Image.fromarray(picture(33, 47)), "JPEG", quality=100, subsampling=0, exif=exif(orientation))
    preprocess = Preprocess((32, 24), 3, "squash", value_range=())
    found = in_browser(browser, tmp_path, content, preprocess)
    assert np.abs(found - expected(content, preprocess)).mean() < 1


def test_photos_differ_only_by_the_decoder(browser: Browser, tmp_path: Path) -> None:
    preprocess = Preprocess((64, 64), 3, "crop", value_range=())
    differences = []
    for seed in range(4):
        smooth = Image.fromarray(picture(30, 40, seed)).resize((640, 480), Image.Resampling.BICUBIC)
        content = encoded(smooth, "JPEG", quality=85)
        differences.append(np.abs(in_browser(browser, tmp_path, content, preprocess) - expected(content, preprocess)))
    mean, most = np.mean(differences), np.percentile(differences, 99)
    print(f"JPEG: mean difference {mean:.2f} gray levels, 99th percentile {most:.0f}")
    assert mean < 1
    assert most <= 5
