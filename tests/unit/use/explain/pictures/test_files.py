"""write_explanations: pictures, sheets, arrays and JSON that belong together; nothing else, and nothing overwritten."""

import json
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import pytest
from PIL import Image

from vitreous.errors import ConfigError, SaveError
from vitreous.use.explain.explainer import Explainer
from vitreous.use.explain.methods import DEFAULT, METHODS
from vitreous.use.explain.pictures import explanation, files
from vitreous.use.explain.pictures.contact_sheet import SIDE_PX, Strip, draw_sheet, strips_on_sheet
from vitreous.use.explain.pictures.explanation import Explanation
from vitreous.use.explain.pictures.files import folder_for, write_explanations
from vitreous.use.run import Run

PIXELS = np.random.default_rng(3).integers(0, 256, (11, 17, 3), dtype=np.uint8)


@pytest.fixture
def hostile(tmp_path: Path) -> list[Path]:
    """Images whose names are the same, differ only in case, or are awkward in other ways."""
    root = tmp_path / "given"
    names = ["a/x.png", "b/x.png", "c/X.png", "a/sheet-1.png", "a/values.png", "a/line\nbreak \x1b[31m.png",
             "a/....png", "a/..hidden.png", f"a/{'n' * 240}.png", f"a/{'漢' * 80}.png", "a/ü 漢字.png",
             "a/con<>:|?*.png"]  # fmt: skip
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(root / name, "PNG")
    return [root / name for name in names]


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_every_image_has_a_picture_of_its_own_inside_the_folder(run: Run, hostile: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "new" / "out"
    content = write_explanations(folder, Explainer(run.predictor).explain(hostile), {"model": "m"})
    pictures = [entry["picture"] for entry in content["explanations"]]
    assert len({name.lower() for name in pictures}) == len(hostile)
    expected = {*pictures, "sheet-1.png", "values.npz", "explanations.json"}
    assert {path.name for path in folder.iterdir()} == expected
    assert all(name.isprintable() and not name.startswith(".") and len(name) < 100 for name in pictures)
    for name in pictures:
        assert min(size_of(folder / name)) > 300
    assert pictures[:4] == ["x.png", "x-2.png", "X-3.png", "sheet-1-2.png"]
    assert [entry["image"] for entry in content["explanations"]] == list(map(str, hostile))


def test_arrays_and_json_say_the_same_and_need_no_pickle(run: Run, photos: Path, tmp_path: Path) -> None:
    paths = sorted(photos.rglob("*.png"))[20:25]
    content = write_explanations(tmp_path / "out", Explainer(run.predictor).explain(paths, target=1), {"model": "m"})
    stored = json.loads((tmp_path / "out" / "explanations.json").read_text(encoding="utf-8"))
    assert stored == content
    found = run.explain(paths, target=1)
    with np.load(tmp_path / "out" / "values.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["values"], [e.values for e in found])
        assert np.isnan(arrays["errors"]).all()
        assert arrays["image"].tolist() == [e.image for e in found] == [e["image"] for e in content["explanations"]]
        assert set(arrays["target"]) == {run.classes[1]}
        assert set(arrays) == {"image", "method", "target", "versus", "values", "errors", "box", "token_center"}
        np.testing.assert_allclose(arrays["box"], [e.box for e in found])
    entry = content["explanations"][0]
    assert (entry["prediction"], entry["finding"]) == (found[0].prediction, found[0].finding)
    assert content["methods"][DEFAULT]["label"] == METHODS[DEFAULT].label


def test_the_pictures_of_a_photo_take_one_decoding_and_photos_are_not_kept(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before: one for each figure, one for each sentence on it, and one for each picture on a sheet."""
    decode, decoded, most = explanation.decode_image, list[ref[Image.Image]](), 0

    def counted(*args: Any, **options: Any) -> Image.Image:
        nonlocal most
        photo = decode(*args, **options)
        decoded.append(ref(photo))
        most = max(most, sum(each() is not None for each in decoded))
        return photo

    monkeypatch.setattr(explanation, "decode_image", counted)
    paths = sorted(photos.rglob("*.png"))[:5]
    explained = Explainer(run.predictor).explain(paths, [DEFAULT, "rollout"])
    assert len(write_explanations(tmp_path / "out", explained, {})["explanations"]) == 10
    assert len(decoded) == 5
    assert most <= 2  # the last one, and the next one


def test_unreadable_image_is_in_the_json_but_has_no_picture(run: Run, broken_png: Path, tmp_path: Path) -> None:
    explained = Explainer(run.predictor).explain([broken_png, PIXELS])
    entries = write_explanations(tmp_path / "out", explained, {})["explanations"]
    assert [entry["picture"] for entry in entries] == ["", "image 1.png"]
    assert entries[0]["unreadable"].endswith("not an image that Pillow can read")
    assert len(np.load(tmp_path / "out" / "values.npz")["values"]) == 1


def test_folder_of_unreadable_images_only_can_be_written(run: Run, broken_png: Path, tmp_path: Path) -> None:
    write_explanations(tmp_path / "out", Explainer(run.predictor).explain([broken_png] * 3), {})
    assert size_of(tmp_path / "out" / "sheet-1.png")[0] > 100


def test_name_of_80_characters_fits_with_its_method_and_in_other_scripts(run: Run, tmp_path: Path) -> None:
    image = tmp_path / f"{'漢' * 80}.png"
    Image.fromarray(PIXELS).save(image)
    methods = ["legrad", "attention-attribution"]
    content = write_explanations(tmp_path / "out", Explainer(run.predictor).explain([image, image], methods), {})
    assert len({entry["picture"] for entry in content["explanations"]}) == 4


def test_nothing_is_left_if_an_image_in_the_middle_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an image"):
        write_explanations(tmp_path / "out", Explainer(run.predictor).explain([PIXELS, 7]), {})
    assert list(tmp_path.iterdir()) == []


def test_interrupt_leaves_nothing(run: Run, tmp_path: Path) -> None:
    def interrupted():  # type: ignore[no-untyped-def]
        yield from run.explain(PIXELS)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_explanations(tmp_path / "out", interrupted(), {})
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("explanations-1").mkdir()
    with folder_for(Path("explanations-1")) as folder:
        assert folder == Path("explanations-1")  # it is empty
    (Path("explanations-1") / "x").touch()
    with pytest.raises(ConfigError, match=r"^out=explanations-1: is not empty; choose a new folder$"):
        folder_for(Path("explanations-1")).__enter__()
    with pytest.raises(ConfigError, match=r"^out=explanations-1/x: is a file; choose a new folder$"):
        folder_for(Path("explanations-1/x")).__enter__()


def test_two_processes_at_once_choose_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with folder_for(None) as first, folder_for(None) as second:
        assert (first, second) == (Path("explanations-1"), Path("explanations-2"))
        write_explanations(second, [], {})
    assert list(Path().iterdir()) == [second]  # nothing was written to the first


def test_full_disk_is_one_clear_error(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SaveError) as caught:
        write_explanations(tmp_path / "out", Explainer(run.predictor).explain([PIXELS]), {})
    way_out = "free some space or choose another folder"
    assert str(caught.value) == f"{tmp_path / 'out'}: could not be written (No space left on device); {way_out}"
    assert list(tmp_path.iterdir()) == []


def test_folder_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match=r"/file: cannot be created \(.*\); choose another folder$"):
        write_explanations(tmp_path / "file" / "out", [], {})


def test_sheets_are_bounded_and_show_every_image(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "encoded", lambda figure: b"")
    monkeypatch.setattr(Explanation, "plot", lambda self, photo: None)  # a figure takes a tenth of a second
    write_explanations(tmp_path / "out", Explainer(run.predictor).explain([PIXELS] * 34), {})
    sheets = sorted((tmp_path / "out").glob("sheet-*.png"))
    assert strips_on_sheet(2) == 32
    assert [path.name for path in sheets] == ["sheet-1.png", "sheet-2.png"]
    assert all(max(size_of(path)) < 2_500 for path in sheets)


def test_sheets_are_bounded_if_the_first_images_are_unreadable(
    run: Run, broken_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "encoded", lambda figure: b"")
    monkeypatch.setattr(Explanation, "plot", lambda self, photo: None)
    images = [broken_png] * 40 + [PIXELS] * 30
    write_explanations(tmp_path / "out", Explainer(run.predictor).explain(images), {})
    heights = [size_of(path)[1] for path in sorted((tmp_path / "out").glob("sheet-*.png"))]
    assert len(heights) == 2
    assert max(heights) < 3_100  # 41 strips of 2 pictures, 4 next to each other


@pytest.mark.parametrize("num_pictures", [0, 1, 2, 3, 5, 9, 12])
def test_full_sheet_is_never_larger_than_a_screenful(num_pictures: int) -> None:
    strips = [Strip("name", [Image.new("RGB", (SIDE_PX, SIDE_PX))] * num_pictures, [""] * num_pictures)]
    sheet = draw_sheet(strips * strips_on_sheet(num_pictures))
    assert sheet.width <= max(8, num_pictures) * (SIDE_PX + 20)
    assert sheet.height <= 8 * (SIDE_PX + 60)


def test_long_names_do_not_run_into_the_next_strip() -> None:
    strips = [Strip(text, [Image.new("RGB", (SIDE_PX, 5))] * 2, ["m" * 300] * 2) for text in ("W" * 400, "")]
    sheet = np.asarray(draw_sheet(strips).convert("L"))
    second = sheet[:, sheet.shape[1] // 2 + 8 :][:18]
    assert (second == 255).all()
