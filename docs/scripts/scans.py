"""A seed -> microscope images of 12 bits from several patients, or satellite images of six bands from several scenes.

Command: `python docs/scripts/scans.py cells`, or `python docs/scripts/scans.py tiles --satellite`
"""

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

SIDE_PX = 64
IMAGES_PER_GROUP = 8
Values = NDArray[np.float64]

_ROWS, _COLUMNS = np.mgrid[:SIDE_PX, :SIDE_PX].astype(float)
_SPECTRA = {
    "crop": (700, 1_000, 800, 3_600, 2_400, 1_500),
    "forest": (500, 800, 600, 3_000, 1_500, 700),
    "water": (900, 800, 500, 300, 150, 100),
    "burned": (700, 800, 900, 1_300, 2_300, 2_100),
}
"""Class -> reflectance x 10,000 of blue, green, red, near infrared and two bands of short-wave infrared."""
_FRACTIONS = {"crop": 0.42, "forest": 0.36, "water": 0.2, "burned": 0.02}


def _texture(draw: np.random.Generator, smoothness_px: float) -> Values:
    """Return smooth noise of mean 0 and standard deviation 1, `[SIDE_PX, SIDE_PX]`."""
    noise = gaussian_filter(draw.normal(size=(SIDE_PX, SIDE_PX)), smoothness_px, mode="wrap")
    return (noise - noise.mean()) / noise.std()


def tissue(patient: np.random.Generator, count: int, *, is_abnormal: bool) -> Iterable[NDArray[np.uint16]]:
    """Draw cells on the tissue of one patient: a few round ones, or more of which some are long; 0 to 4095."""
    background = 900 + 200 * _texture(patient, 5) + 40 * _texture(patient, 1.5)
    cell, stain = patient.uniform(1_200, 1_800), patient.uniform(0.7, 1.3)
    for _ in range(count):
        image = np.roll(background, patient.integers(-2, 3, 2), (0, 1))
        for number in range(patient.integers(8, 12) if is_abnormal else patient.integers(4, 8)):
            row, column = patient.uniform(8, SIDE_PX - 8, 2)
            angle, ratio = patient.uniform(0, np.pi), 3.0 if is_abnormal and number % 2 else 1.15
            across = (_COLUMNS - column) * np.cos(angle) + (_ROWS - row) * np.sin(angle)
            along = (_ROWS - row) * np.cos(angle) - (_COLUMNS - column) * np.sin(angle)
            radius = patient.uniform(3, 4)
            image = image + cell * np.exp(-(across**2 * ratio + along**2 / ratio) / radius**2)
        image = image * stain * patient.uniform(0.95, 1.05) + patient.normal(0, 60, image.shape)
        yield np.clip(image, 0, 4095).astype(np.uint16)


def write_cells(folder: Path, groups: int, seed: int) -> None:
    """Write the images of each patient, and a table with the patient of each image."""
    rows = []
    for number in range(groups):
        name, is_abnormal = f"p{seed}{number:03}", number % 3 == 2
        images = tissue(np.random.default_rng([seed, number]), IMAGES_PER_GROUP, is_abnormal=is_abnormal)
        for position, image in enumerate(images):
            rows.append((f"images/{name}-{position}.png", "abnormal" if is_abnormal else "normal", name))
            Image.fromarray(image).save(folder / rows[-1][0])
    _write_table(folder / "cells.csv", ("path", "label", "patient"), rows)


def write_tiles(folder: Path, groups: int, seed: int) -> None:
    """Write the tiles of each scene as `.npy` files of `[height, width, 6]`, and a table with their scenes."""
    rows, classes = [], list(_SPECTRA)
    for number in range(groups):
        scene = np.random.default_rng([seed, number])
        haze, light = scene.uniform(0, 400), scene.uniform(0.85, 1.15)
        for position in range(4 * IMAGES_PER_GROUP):
            label = str(scene.choice(classes, p=list(_FRACTIONS.values())))
            bands = np.array(_SPECTRA[label], dtype=float) * light
            bands = bands * (1 + 0.25 * _texture(scene, 3)[..., None]) * (1 + scene.normal(0, 0.2, len(bands)))
            bands[..., :3] += haze
            bands = np.clip(bands + scene.normal(0, 60, bands.shape), 0, 10_000).astype(np.uint16)
            rows.append((f"images/s{seed}{number:02}-{position:02}.npy", label, f"s{seed}{number:02}"))
            np.save(folder / rows[-1][0], bands)
    _write_table(folder / "tiles.csv", ("path", "label", "group"), rows)


def _write_table(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def main() -> None:
    """Read the command line and draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--groups", type=int, default=60, help="patients, or scenes with --satellite")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--satellite", action="store_true", help="tiles of six bands instead of cells")
    given = options.parse_args()
    (given.folder / "images").mkdir(parents=True, exist_ok=True)
    (write_tiles if given.satellite else write_cells)(given.folder, given.groups, given.seed)


if __name__ == "__main__":
    main()
