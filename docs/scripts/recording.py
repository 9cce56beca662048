"""Three commands, run for real -> `docs/assets/recording.svg`, a terminal that plays them in 30 seconds.

Command: `python docs/scripts/recording.py`, about two minutes.
"""

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from html import escape
from pathlib import Path

from drawings import write_drawings

ASSETS = Path(__file__).resolve().parents[1] / "assets"
COMMANDS = (
    "vitreous train photos --epochs 4",
    "vitreous explain runs/photos-1 new/boat/0000.png new/house/0000.png new/tree/0000.png --out why",
    "vitreous evaluate runs/photos-1",
)
COLUMNS, ROWS, LINE_PX, CHARACTER_PX, MARGIN_PX = 112, 30, 18, 7.83, 14
LENGTH_S, LAST_S, LONGEST_GAP_S = 30.0, 5.0, 1.5

STYLE = """
text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #d4d7dd; white-space: pre; }}
.typed {{ fill: #7fd1b9; font-weight: bold; }}
.screen {{ transform: translateY({scrolled}px); animation: scroll {length}s step-end infinite; }}
.cover {{ transform: translateY({covered}px); animation: show {length}s step-end infinite; }}
@keyframes scroll {{ {scroll} }}
@keyframes show {{ {show} }}
@media (prefers-reduced-motion: reduce) {{ .screen, .cover {{ animation: none; }} }}
"""


def record(folder: Path) -> list[tuple[float, str]]:
    """Run the commands in a folder; return when each line appeared, in seconds, and the line."""
    lines, clock = [], 0.0
    environment = {**os.environ, "COLUMNS": str(COLUMNS)}
    for command in COMMANDS:
        lines.append((clock, f"$ {command}"))
        words = [sys.executable, "-m", *command.split()]
        last = time.monotonic()
        with subprocess.Popen(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              encoding="utf-8") as running:  # fmt: skip
            for line in running.stdout or ():
                now = time.monotonic()
                clock += min(now - last, LONGEST_GAP_S)
                last = now
                lines += [
                    (clock, part) for part in textwrap.wrap(line.rstrip(), COLUMNS, drop_whitespace=False) or [""]
                ]
        if running.returncode:
            raise subprocess.CalledProcessError(running.returncode, words)
        clock += LONGEST_GAP_S
    return lines


def as_svg(lines: list[tuple[float, str]]) -> str:
    """Return a picture in which a cover moves down line by line, and the screen moves up once it is full."""
    speed = (LENGTH_S - LAST_S) / max(lines[-1][0], 1e-9)
    shown, scrolled = {0.0: 0}, {0.0: 0}
    for count, (at, _) in enumerate(lines, start=1):
        percent = round(100 * at * speed / LENGTH_S, 2)
        shown[percent] = count * LINE_PX
        scrolled[percent] = -max(0, count - ROWS) * LINE_PX
    frames = [
        " ".join(f"{at}% {{ transform: translateY({px}px); }}" for at, px in moves.items())
        for moves in (scrolled, shown)
    ]
    places = {"scrolled": -max(0, len(lines) - ROWS) * LINE_PX, "covered": len(lines) * LINE_PX}
    style = STYLE.format(length=LENGTH_S, scroll=frames[0], show=frames[1], **places)
    width, height = round(COLUMNS * CHARACTER_PX + 2 * MARGIN_PX), ROWS * LINE_PX + 2 * MARGIN_PX
    texts = "\n".join(
        f'<text class="{"typed" if line[:2] == "$ " else "printed"}" y="{13 + number * LINE_PX}">{escape(line)}</text>'
        for number, (_, line) in enumerate(lines)
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<title>A terminal: train, explain and evaluate</title>
<style>{style}</style>
<rect width="{width}" height="{height}" rx="8" fill="#1b1e24"/>
<svg x="{MARGIN_PX}" y="{MARGIN_PX}" width="{width - 2 * MARGIN_PX}" height="{ROWS * LINE_PX}">
<g class="screen">
{texts}
<rect class="cover" width="{width}" height="{(len(lines) + ROWS) * LINE_PX}" fill="#1b1e24"/>
</g>
</svg>
</svg>
"""


def main() -> None:
    """Draw, run the commands, and write the recording."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_drawings(folder / "photos")
        write_drawings(folder / "new", count=1, seed=1)
        (ASSETS / "recording.svg").write_text(as_svg(record(folder)), encoding="utf-8")


if __name__ == "__main__":
    main()
