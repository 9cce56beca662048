"""A run on drawings -> the pictures of the README: its report, and explanations of three predictions.

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
    """Write the top of a page as a picture with few colors, so that the file is small."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1120,1000", f"--screenshot={shot}"]
        subprocess.run([chromium, *options, page.resolve().as_uri()], check=True, capture_output=True)
        Image.open(shot).convert("RGB").quantize(128).save(target, optimize=True)


def main() -> None:
    """Draw, train, explain, and write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_drawings(Path(folder) / "drawings")
        run, why = Path(folder) / "drawings-1", Path(folder) / "why"
        for words in (
            ["train", data, "--epochs", "30", "--out", run],
            ["explain", run, *(data / name for name in SHOWN), "--out", why],
        ):
            subprocess.run([sys.executable, "-m", "vitreous", *map(str, words)], check=True)
        screenshot(run / "report.html", ASSETS / "report.png")
        Image.open(why / "sheet-1.png").convert("RGB").quantize(128).save(ASSETS / "explanation.png", optimize=True)


if __name__ == "__main__":
    main()
