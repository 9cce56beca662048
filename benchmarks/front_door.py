"""Commands without a budget -> accuracy and time of each, run as a user would run it. `small_data.py` has budgets.

    python benchmarks/front_door.py --data ../shared/data            all cases, some minutes on two cores
    python benchmarks/front_door.py digits                           one case

Results go to benchmarks/results/HARDWARE/front_door.json as they are measured; a case and seed that was already
measured today is skipped.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import vitreous as vt
from results import results_file

CASES: dict[str, tuple[list[str], list[int]]] = {
    # name: (arguments of `vitreous train`, seeds); {data} is the folder given by --data, {made} one created from it
    "digits": (["digits"], [0, 1, 2, 3, 4]),
    "sixty-photos": (["{made}/sixty-photos"], [0]),
}


def make_sixty_photos(data: Path, folder: Path) -> None:
    """Write the first 30 photos of two hand signs, the kind of data that a first try has."""
    for name in ("0", "5"):
        (folder / name).mkdir(parents=True)
        for photo in sorted((data / "sign-digits" / name).iterdir())[:30]:
            shutil.copy(photo, folder / name)


def run_case(arguments: list[str], seed: int, folder: Path) -> dict[str, object]:
    """Train in a process of its own and return time, scores and architecture."""
    out = folder / f"run-{seed}"
    command = [sys.executable, "-m", "vitreous", "train", *arguments, "--seed", str(seed), "--out", str(out)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall_s = time.perf_counter() - began
    run = vt.load_run(out)
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "step"]
    return {
        "command": "vitreous train " + " ".join(Path(a).name if "/" in a else a for a in arguments) + f" --seed {seed}",
        "wall_s": round(wall_s, 1),
        **run.metrics,
        "epochs": steps[-1]["epoch"],
        "images_per_s": statistics.median(record["images_per_s"] for record in steps),
        "architecture": run.metadata["architecture"],
        "weights": run.metadata["weights"],
    }


def main() -> None:
    """Run the selected cases that were not measured today, then print the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[[], *CASES], help="default: all")
    parser.add_argument("--data", type=Path, help="folder that holds sign-digits")
    options = parser.parse_args()
    path, stored = results_file("front_door")
    runs = stored.setdefault("runs", {})
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary)
        if options.data is not None:
            make_sixty_photos(options.data, made / "sixty-photos")
        for case in options.cases or CASES:
            arguments, seeds = CASES[case]
            if "{" in arguments[0] and options.data is None:
                print(f"{case}: needs --data, skipped")
                continue
            filled = [argument.format(data=options.data, made=made) for argument in arguments]
            for seed in seeds:
                key = f"{case}/seed-{seed}"
                if runs.get(key, {}).get("date") == stored["date"]:
                    continue
                found = run_case(filled, seed, Path(tempfile.mkdtemp(dir=made)))
                runs[key] = {"date": stored["date"], **found}
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{key}: {found['test']['accuracy']:.2%} in {found['wall_s']} s", flush=True)
    print("\n| command | test images | accuracy (95% interval) | total time |\n|---|---|---|---|")
    print("\n".join(table_rows(runs)))


def table_rows(runs: dict[str, dict]) -> list[str]:
    """Return the rows of the README's table, one per case that has runs."""
    rows = []
    for case, (_, seeds) in CASES.items():
        found = [runs[f"{case}/seed-{seed}"] for seed in seeds if f"{case}/seed-{seed}" in runs]
        if not found:
            continue
        accuracies = [run["test"]["accuracy"] for run in found]
        low, high = found[0]["test"]["interval_95"]
        interval = f"{low:.1%} to {high:.1%}"
        if len(found) > 1:
            interval = f"{len(found)} seeds: {min(accuracies):.1%} to {max(accuracies):.1%}"
        command = re.sub(r" --seed \d+", "", found[0]["command"])
        seconds = statistics.median(run["wall_s"] for run in found)
        num_images = found[0]["test"]["num_images"]
        rows.append(
            f"| `{command}` | {num_images:,} | {statistics.mean(accuracies):.1%} ({interval}) | {seconds:.0f} s |"
        )
    return rows


if __name__ == "__main__":
    main()
