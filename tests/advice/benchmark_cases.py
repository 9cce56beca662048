"""Cases of `use/benchmark.py`: what cannot be compared, and how else it can be."""

from pathlib import Path
from unittest.mock import patch

from PIL import Image
from tests.advice.run_cases import model_file
from tests.advice.use_cases import finished
from tests.advice.walk import Refusals, case

from vitreous.use.benchmark import benchmark
from vitreous.use.export import proof
from vitreous.use.export.exporter import export


@case
def models_to_compare(folder: Path) -> Refusals:
    run, program, page = finished(folder), folder / "model.pt2", folder / "page.html"
    other, photos, broken = model_file(folder / "other.safetensors"), folder / "photos", folder / "broken.pt2"
    export(run, "torch", program)
    page.write_text("<html></html>", encoding="utf-8")
    broken.write_bytes(b"not a program")
    photos.mkdir()
    (photos / "a.png").write_bytes(b"not an image")
    with patch("vitreous.use.benchmark.MOST_IMAGES", 3), patch.object(proof, "_TIMED_S", 0.01):
        yield lambda: benchmark([run, run]), "give each model once"
        yield lambda: benchmark([run, other]), "compare models of the same images"
        yield lambda: benchmark([run, page]), "leave it out"
        yield lambda: benchmark([run, program]), "add --trust if you made it"
        yield lambda: benchmark([run, broken], trust=True), "give a file that `vitreous export` wrote"
        yield lambda: benchmark([run], photos), "give photos that can be decoded"
        Image.new("RGB", (9, 7)).save(photos / "a.png")
        assert len(benchmark([run, program], photos, trust=True)) == 2
