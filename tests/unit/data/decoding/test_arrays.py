import io
import pickle
import zipfile
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from vitreous.data.decoding.arrays import channels_last
from vitreous.data.decoding.decode import Header, decode_channels, decode_image, read_header
from vitreous.data.decoding.depth import Scale
from vitreous.data.decoding.preprocess import Preprocess
from vitreous.errors import DecodeError

BANDS = np.random.default_rng(0).integers(0, 256, (6, 9, 16), dtype=np.uint8)


def npy(values: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, photometric="minisblack", **options)
    return stream.getvalue()


FORMS = {
    "npy": npy,
    "npz": lambda values: npz(image=values),
    "columns first": lambda values: npy(np.asfortranarray(values)),
    "TIFF": lambda values: tiff(values, planarconfig="contig"),
    "planes": lambda values: tiff(np.moveaxis(values, 2, 0), planarconfig="separate", compression="zlib"),
    "array": lambda values: values,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("channels", [2, 4, 5, 6, 13, 16])
def test_every_channel_of_a_file_arrives_unchanged(channels: int, form: str) -> None:
    values = BANDS[:, :, :channels]
    np.testing.assert_array_equal(decode_channels(FORMS[form](values), channels), values)
    pixels = Preprocess((6, 9), channels).pixels(FORMS[form](values))
    np.testing.assert_array_equal(pixels.numpy(), np.moveaxis(values, 2, 0))


@pytest.mark.parametrize("form", ["npy", "npz", "TIFF", "planes"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [5, 13])
def test_header_of_a_file_has_its_size_channels_and_depth(form: str, dtype: str, channels: int) -> None:
    content = FORMS[form](BANDS[:, :, :channels].astype(dtype))
    assert read_header(content, "x") == Header(6, 9, False, bands=channels, is_deep=dtype != "uint8")


def test_arrays_of_one_three_and_four_channels_of_eight_bits_are_gray_color_and_color_with_opacity() -> None:
    for channels, mode in ((1, "L"), (2, "L"), (3, "RGB"), (4, "RGB")):
        content = npy(BANDS[:, :, :channels])
        image = decode_image(content)
        np.testing.assert_array_equal(np.asarray(image), np.asarray(decode_image(BANDS[:, :, :channels])))
        assert image.mode == mode
        assert read_header(content, "x") == Header(6, 9, mode == "L")


def test_each_channel_has_its_own_range_and_is_resized_like_a_gray_image() -> None:
    values = (BANDS[:, :, :5] * np.array([1, 10, 100, 1000, 3.5])).astype(np.float64)
    limits = [(0.0, 255.0 * gain) for gain in (1, 10, 100, 1000, 3.5)]
    preprocess = Preprocess((3, 4), 5, fit="squash", value_range=tuple(limit for pair in limits for limit in pair))
    found = preprocess.pixels(values).numpy()
    for channel in range(5):
        gray = Image.fromarray(np.ascontiguousarray(BANDS[:, :, channel])).resize((4, 3), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(found[channel], np.asarray(gray))


def test_image_of_other_channels_shows_its_first_three_and_is_refused_by_a_model_for_colors() -> None:
    np.testing.assert_array_equal(np.asarray(decode_image(BANDS)), BANDS[:, :, :3])
    with pytest.raises(DecodeError, match=r"^a: has 16 channels, where the model takes 3; use images with 3$"):
        decode_image(BANDS, in_chans=3, where="a")
    with pytest.raises(DecodeError, match=r"^a: has 3 channels, where the model takes 5; use images with 5$"):
        Preprocess((6, 9), 5).pixels(BANDS[:, :, :3], where="a")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 8, 9), (8, 9, 3)),
        ((13, 64, 48), (64, 48, 13)),
        ((13, 8, 8), (8, 8, 13)),
        ((8, 8, 13), (8, 8, 13)),
        ((64, 48, 13), (64, 48, 13)),
        ((7, 5, 1), (7, 5)),
        ((1, 7, 5), (7, 5)),
        ((7, 5), (7, 5)),
    ],
)
def test_channels_are_found_on_the_first_or_last_axis(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert channels_last(np.zeros(shape, np.uint8)).shape == expected


def test_known_number_of_channels_decides_between_the_axes() -> None:
    assert channels_last(np.zeros((5, 8, 6), np.uint8), 5).shape == (8, 6, 5)
    assert channels_last(np.zeros((5, 8, 6), np.uint8), 6).shape == (5, 8, 6)


class Bomb:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("unpickled",))


def declared(shape: tuple[int, ...], dtype: str = "<f8") -> bytes:
    """Return a .npy file that declares a shape but has no data."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (npy(np.array([[Bomb()]], dtype=object), allow_pickle=True), "values of type object"),
        (zipped(image=pickle.dumps(Bomb())), "magic string is not correct"),
        (declared((100_000, 100_000)), "over the limit of 300,000,000 px"),
        (declared((60, 50)), "truncated: an array of shape (60, 50) needs 24,000 bytes"),
        (declared((6, 5), "<c16"), "values of type complex128"),
        (declared((-6, 5)), ""),
        (npy(BANDS)[:200], "truncated"),
        (npz(a=BANDS, b=BANDS), "a .npz file with 2 arrays; must have exactly one, the image"),
        (zipped(image=bytes(40)), "magic string is not correct"),
        (npy(np.zeros((5, 6, 7, 8))), "array of shape (5, 6, 7, 8); must be"),
        (b"\x93NUMPY", ""),
        (b"PK\x03\x04", ""),
        (b"II*\x00\x08\x00\x00\x00", ""),
    ],
)
def test_hostile_array_file_is_an_error_with_a_reason(content: bytes, reason: str) -> None:
    for read in (lambda: read_header(content, "x.npy"), lambda: decode_channels(content, 5, "x.npy")):
        with pytest.raises(DecodeError) as caught:
            read()
        assert str(caught.value).startswith("x.npy: ")
        assert reason in str(caught.value)
        assert "\n" not in str(caught.value)


def test_bomb_in_a_zip_file_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITREOUS_MAX_PIXELS", "1000")
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *args: pytest.fail("unpacked"))
    with pytest.raises(DecodeError, match="over the limit of 1,000 px"):
        read_header(zipped(image=bytes(1 << 20)), "x.npz")


def test_missing_tifffile_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(
        DecodeError, match=r"^x: a TIFF file that needs the package tifffile; `pip install 'vitreous\[tiff\]'`$"
    ):
        decode_image(FORMS["TIFF"](BANDS), where="x")


def test_opacity_is_kept_as_a_channel_if_asked_for() -> None:
    stream = io.BytesIO()
    Image.fromarray(BANDS[:, :, :4]).save(stream, "PNG")
    np.testing.assert_array_equal(decode_channels(stream.getvalue(), 4), BANDS[:, :, :4])
    deep = Scale((0.0, 510.0))
    np.testing.assert_array_equal(
        decode_channels(BANDS[:, :, :4].astype(np.uint16) * 2, 4, scale=deep), BANDS[:, :, :4]
    )
