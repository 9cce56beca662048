"""Runs on drawings -> the pictures of the README: a report, and explanations of three predictions.

Command: `python docs/scripts/pictures.py`, about five minutes. Needs Chromium.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from drawings import write_drawings
from PIL import Image

ASSETS = Path(__file__).resolve().parents[1] / "assets"
SHOWN = ("boat/0003.png", "house/0004.png", "tree/0002.png")


def screenshot(page: Path, target: Path) -> None:
    """Write the top of a page as a picture."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1320,1000", f"--screenshot={shot}"]
        subprocess.run([chromium, *options, page.resolve().as_uri()], check=True, capture_output=True)
        reduce(shot, target)


def reduce(source: Path, target: Path) -> None:
    """Write a picture with 128 colors, so that the file is small."""
    Image.open(source).convert("RGB").quantize(128).save(target, optimize=True)


def main() -> None:
    """Draw, train a run with mistakes for the report and a better one to explain, and write the pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_drawings(folder / "photos")
        for words in (
            ["train", "photos", "--epochs", "4", "--out", "runs/photos-1"],
            ["train", "photos", "--epochs", "30", "--out", "runs/photos-2"],
            ["explain", "runs/photos-2", *(f"photos/{name}" for name in SHOWN), "--out", "why"],
        ):
            subprocess.run([sys.executable, "-m", "vitreous", *words], check=True, cwd=folder)
        screenshot(folder / "runs/photos-1/report.html", ASSETS / "report.png")
        reduce(folder / "why/sheet-1.png", ASSETS / "explanation.png")


if __name__ == "__main__":
    main()
