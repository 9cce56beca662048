"""A seed -> a folder of drawn scenes with a boat, a house or a tree, to train on where no photos are at hand.

Command: `python docs/scripts/drawings.py photos`
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIDE_PX = 96
_FINE = 4  # drawn larger and reduced, so that edges are smooth

Color = tuple[int, ...]
Pen = tuple[ImageDraw.ImageDraw, np.random.Generator]


def _near(draw: np.random.Generator, color: Color, spread: int = 22) -> Color:
    return tuple(int(v) for v in np.clip(np.array(color) + draw.integers(-spread, spread + 1, 3), 0, 255))


def _boat(pen: Pen, x: float, y: float, size: float) -> None:
    ink, draw = pen
    hull, sail = _near(draw, (120, 60, 40)), _near(draw, (240, 238, 228), 14)
    ink.polygon(
        [(x - size, y), (x + size, y), (x + 0.6 * size, y + 0.5 * size), (x - 0.6 * size, y + 0.5 * size)], hull
    )
    ink.line([(x, y), (x, y - 1.5 * size)], _near(draw, (70, 50, 40)), width=_FINE)
    ink.polygon([(x, y - 1.5 * size), (x, y - 0.1 * size), (x + 0.9 * size, y - 0.1 * size)], sail)
    ink.polygon([(x, y - 1.3 * size), (x, y - 0.1 * size), (x - 0.6 * size, y - 0.1 * size)], sail)


def _house(pen: Pen, x: float, y: float, size: float) -> None:
    ink, draw = pen
    ink.rectangle([x - 0.8 * size, y - 0.8 * size, x + 0.8 * size, y + 0.5 * size], _near(draw, (205, 180, 140)))
    ink.polygon(
        [(x - size, y - 0.8 * size), (x, y - 1.6 * size), (x + size, y - 0.8 * size)], _near(draw, (165, 60, 48))
    )
    ink.rectangle([x - 0.2 * size, y - 0.2 * size, x + 0.2 * size, y + 0.5 * size], _near(draw, (90, 62, 48)))
    for side in (-0.55, 0.55):
        left = x + side * size - 0.15 * size
        ink.rectangle([left, y - 0.5 * size, left + 0.3 * size, y - 0.2 * size], _near(draw, (120, 160, 190)))


def _tree(pen: Pen, x: float, y: float, size: float) -> None:
    ink, draw = pen
    ink.rectangle([x - 0.15 * size, y - 0.5 * size, x + 0.15 * size, y + 0.5 * size], _near(draw, (100, 72, 48)))
    for _ in range(7):
        across, up = draw.uniform(-0.5, 0.5), draw.uniform(0.5, 1.4)
        radius = draw.uniform(0.3, 0.5) * size
        middle = (x + across * size, y - up * size)
        box = [middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius]
        ink.ellipse(box, _near(draw, (62, 118, 58)))


OBJECTS: dict[str, Callable[[Pen, float, float, float], None]] = {"boat": _boat, "house": _house, "tree": _tree}


def scene(names: Sequence[str], draw: np.random.Generator) -> Image.Image:
    """Draw objects next to each other, at random places before sky, sun, clouds and hills."""
    side = SIDE_PX * _FINE
    sky, ground = _near(draw, (150, 190, 225), 30), _near(draw, (110, 150, 120), 40)
    image = Image.new("RGB", (side, side), sky)
    ink = ImageDraw.Draw(image)
    horizon = draw.uniform(0.45, 0.65) * side
    sun, radius = draw.uniform(0.1, 0.9) * side, 0.07 * side
    ink.ellipse([sun - radius, 0.08 * side, sun + radius, 0.08 * side + 2 * radius], _near(draw, (250, 225, 140), 10))
    for _ in range(3):
        x, y = draw.uniform(0, side), draw.uniform(0.1, 0.35) * side
        ink.ellipse(
            [x - 0.15 * side, y - 0.03 * side, x + 0.15 * side, y + 0.04 * side], _near(draw, (235, 240, 245), 8)
        )
    for _ in range(3):
        x, wide = draw.uniform(0, side), draw.uniform(0.25, 0.5) * side
        ink.ellipse([x - wide, horizon - 0.12 * side, x + wide, horizon + 0.3 * side], _near(draw, (125, 145, 120)))
    ink.rectangle([0, horizon, side, side], ground)
    size = draw.uniform(0.12, 0.2) * side / max(1, len(names)) ** 0.5
    for place, name in enumerate(names):
        x = (place + draw.uniform(0.25, 0.75)) / len(names) * side
        OBJECTS[name]((ink, draw), x, draw.uniform(0.6, 0.85) * side, size)
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(1, 5))).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    noisy = np.asarray(image) + draw.normal(0, 7, (SIDE_PX, SIDE_PX, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def write_drawings(folder: Path, count: int = 120, seed: int = 0) -> Path:
    """Write `count` scenes of each class into a folder per class."""
    for index, name in enumerate(OBJECTS):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            scene([name], np.random.default_rng([seed, number, index])).save(folder / name / f"{number:04}.png")
    return folder


def write_tagged(folder: Path, count: int = 360, seed: int = 0) -> Path:
    """Write scenes with any number of objects, and `tags.csv` with the objects in each of them."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = ["path,labels"]
    for number in range(count):
        draw = np.random.default_rng([seed, number])
        names = [name for name in OBJECTS if draw.random() < 0.5]
        lines.append(f"images/{number:04}.png,{';'.join(names)}")
        scene(draw.permutation(names).tolist(), draw).save(folder / "images" / f"{number:04}.png")
    (folder / "tags.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def main() -> None:
    """Read the command line and draw."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--count", type=int, default=120, help="scenes of each class, or with --tags of all")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--tags", action="store_true", help="any number of objects in each scene, listed in tags.csv")
    given = options.parse_args()
    (write_tagged if given.tags else write_drawings)(given.folder, given.count, given.seed)


if __name__ == "__main__":
    main()
