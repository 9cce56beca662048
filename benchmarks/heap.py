"""Freed memory returned or kept -> images/s of training steps, page faults per step, and peak memory.

    python benchmarks/heap.py

Compares glibc's malloc with its default settings and with those of `vitreous.heap`. Both run in processes of their own,
in turns, for `--rounds` rounds. The ratio is the median over rounds. Results go to
benchmarks/results/HARDWARE/heap.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from results import command_line, results_file
from vitreous.heap import keep_freed_memory

AS_IT_IS, KEPT = "as it is", "kept"
MEASURED = ("28 px p4 d128 L6", "Ti/16", "S/16")
"""Cases of `throughput.py`, with their batch sizes for a CPU."""


def measure(case: str, steps: int) -> dict[str, float]:
    """Return images/s of the median step, page faults and system time per step, and peak memory in MiB."""
    import torch

    from peers import OURS
    from throughput import Models

    models = Models(case, torch.device("cpu"), "fp32", [], compiled=False)
    step, seconds = models.works("training")[OURS], []
    for number in range(steps + 3):
        if number == 3:
            before = resource.getrusage(resource.RUSAGE_SELF)
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "images_per_s": round(models.batch / statistics.median(seconds[3:]), 1),
        "page_faults_per_step": round((after.ru_minflt - before.ru_minflt) / steps),
        "system_ms_per_step": round(1e3 * (after.ru_stime - before.ru_stime) / steps, 1),
        "most_mib": round(after.ru_maxrss / 1024),
    }


def measure_apart(case: str, how: str, steps: int) -> dict[str, float]:
    """Measure in a process of its own, without the allocator settings of this environment."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, __file__, "--one", how, case, "--steps", str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=inherited)
    return json.loads(done.stdout)


def main() -> None:
    """Measure in turns, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        how, case = options.one
        if how == KEPT and not keep_freed_memory():
            sys.exit("this C library cannot keep freed memory, or an environment variable already configures it")
        print(json.dumps(measure(case, options.steps)))
        return
    path, stored = results_file("heap")
    stored |= {"command": command_line(), "cases": {}}
    for case in MEASURED:
        rounds = []
        for number in range(options.rounds):
            order = (KEPT, AS_IT_IS) if number % 2 else (AS_IT_IS, KEPT)
            rounds.append({how: measure_apart(case, how, options.steps) for how in order})
        ratios = [one[KEPT]["images_per_s"] / one[AS_IT_IS]["images_per_s"] for one in rounds]
        medians = {
            how: {key: statistics.median(one[how][key] for one in rounds) for key in rounds[0][how]}
            for how in (AS_IT_IS, KEPT)
        }
        shown = {"ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}
        stored["cases"][case] = shown | medians
        print(case, stored["cases"][case], flush=True)
        path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
