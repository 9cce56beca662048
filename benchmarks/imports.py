"""Import statements -> their time relative to `import torch`.

    .venv/bin/python benchmarks/imports.py

Each line runs in processes of its own, in turns, for `--rounds` rounds after one round of warm-up. The ratio to
`import torch` is the median over rounds; it goes to benchmarks/results/HARDWARE/imports.json with its quartiles.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from results import command_line, results_file

TORCH = "import torch"
LINES = (TORCH, "import vitreous", "from vitreous import create_model", "import vitreous.training.start")
"""The last line imports everything that `vitreous train` imports before it reads data."""


def seconds(line: str) -> float:
    """Return the time that a new Python process takes for the line."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", line], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    """Measure, store, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: must be at least 2 to compute quartiles")
    path, stored = results_file("imports")
    rounds = [{line: seconds(line) for line in LINES} for _ in range(options.rounds + 1)][1:]
    stored |= {"command": command_line(), "lines": {}}
    for line in LINES:
        ratios = [one[line] / one[TORCH] for one in rounds]
        stored["lines"][line] = {
            "ratio": round(statistics.median(ratios), 3),
            "quartiles": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
            "seconds": round(statistics.median(one[line] for one in rounds), 3),
        }
        print(line, stored["lines"][line])
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
