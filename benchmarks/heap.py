"""What becomes of freed memory -> images/s of training steps, page faults of one, and the most memory held.

    python benchmarks/heap.py

glibc's malloc as it is, and asked by `vitreous.heap` to keep what was freed: each in processes of its own, in turns,
`--rounds` times. The ratio is the median over rounds; stored in benchmarks/results/HARDWARE/heap.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from results import results_file
from vitreous.heap import keep_freed_memory
from vitreous.threads import let_threads_sleep

CASES = {
    # name: image side, patch, width, depth, heads, batch
    "28 px p4 d128 L6, batch 128": (28, 4, 128, 6, 4, 128),
    "Ti/16, batch 8": (224, 16, 192, 12, 3, 8),
    "S/16, batch 8": (224, 16, 384, 12, 6, 8),
}


def measure(steps: int) -> dict[str, dict[str, float]]:
    """By case: images/s at the median step, page faults and ms of the system in one, MiB at most."""
    let_threads_sleep()
    import torch
    from torch.nn import functional as F

    from vitreous.model import ModelConfig, build_model

    found = {}
    for name, (side, patch, width, depth, heads, batch) in CASES.items():
        torch.manual_seed(0)
        config = ModelConfig(img_size=(side, side), patch_size=patch, in_chans=3, num_classes=10, embed_dim=width,
                             depth=depth, num_heads=heads)  # fmt: skip
        model, images, labels = build_model(config), torch.randn(batch, 3, side, side), torch.arange(batch) % 10
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
        seconds = []
        for step in range(steps + 3):
            if step == 3:
                before = resource.getrusage(resource.RUSAGE_SELF)
            began = time.perf_counter()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_SELF)
        found[name] = {
            "images_per_s": round(batch / statistics.median(seconds[3:]), 1),
            "page_faults_per_step": round((after.ru_minflt - before.ru_minflt) / steps),
            "system_ms_per_step": round(1e3 * (after.ru_stime - before.ru_stime) / steps, 1),
            "most_mib": round(after.ru_maxrss / 1024),
        }
    return found


def main() -> None:
    """Alternate, show and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--one", choices=("as it is", "kept"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        if options.one == "kept" and not keep_freed_memory():
            sys.exit("this C library cannot keep freed memory, or an environment variable says what it does")
        print(json.dumps(measure(options.steps)))
        return
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    rounds: dict[str, list[dict[str, dict[str, float]]]] = {"as it is": [], "kept": []}
    for number in range(options.rounds):
        for how in rounds if number % 2 else reversed(rounds):
            command = [sys.executable, __file__, "--one", how, "--steps", str(options.steps)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=inherited)
            rounds[how].append(json.loads(done.stdout))
    shown = {}
    for case in CASES:
        pairs = zip(rounds["kept"], rounds["as it is"], strict=True)
        ratios = [kept[case]["images_per_s"] / plain[case]["images_per_s"] for kept, plain in pairs]
        shown[case] = {"ratio": round(statistics.median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}
        for how, measured in rounds.items():
            shown[case][how] = {key: statistics.median(one[case][key] for one in measured) for key in measured[0][case]}
        print(case, shown[case])
    path, stored = results_file("heap")
    command = " ".join(["python benchmarks/heap.py", *sys.argv[1:]])
    path.write_text(json.dumps(stored | {"command": command, "cases": shown}, indent=1) + "\n")


if __name__ == "__main__":
    main()
