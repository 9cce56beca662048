"""A training step or forward pass, in vitreous and other libraries -> its time by kind of operation.

    .venv-bench/bin/python benchmarks/anatomy.py --only "28 px p4 d128 L6, training" --only "Ti/16, training"

PyTorch's profiler records the operators of `--steps` calls of each library, in turns, on models with the same weights
that `throughput.py` has compared. The time of an operator excludes the operators that it calls. Compare `products` with
the time at the machine's peak: no library can avoid that part. Everything else could be saved.
"""

import argparse
import json
import statistics
from collections import Counter
from datetime import UTC, datetime

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

import torch  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402

from parity import define_missing_operators  # noqa: E402
from peers import OURS, installed_peers  # noqa: E402
from results import command_line, results_file  # noqa: E402
from stopwatch import Work, product_flops_per_s  # noqa: E402
from throughput import CASES, KINDS, Models, cell_name, check_words  # noqa: E402

PARTS = {
    "products": ("aten::mm", "aten::addmm", "aten::_addmm_activation", "aten::linear"),
    "products of heads": ("aten::bmm", "aten::baddbmm"),
    "fused attention": ("aten::_scaled_dot_product",),
    "convolution": ("mkldnn_convolution", "convolution_backward", "slow_conv", "thnn_conv"),
    "GELU": ("gelu",),
    "softmax": ("softmax",),
    "norms": ("layer_norm",),
    "optimizer": ("aten::_fused_adamw",),
    "copies": ("copy_", "aten::cat", "aten::stack", "aten::fill_", "aten::zero_", "slice_backward", "select_backward"),
    "sums and scales": ("aten::add", "aten::mul", "aten::sum", "aten::div", "aten::sub"),
}
"""Kind -> beginnings (with `aten::`) or fragments of operator names; the first kind that matches counts."""


def part_of(operator: str) -> str:
    """Return the kind of an operator."""
    for part, names in PARTS.items():
        if any(operator.startswith(name) if name.startswith("aten::") else name in operator for name in names):
            return part
    return "other"


def anatomy(work: Work) -> Counter[str]:
    """Return the seconds that one call spends in each kind of operator, on the calling threads."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work()
    seconds: Counter[str] = Counter()
    for row in recorded.key_averages():
        seconds[part_of(row.key)] += row.self_cpu_time_total / 1e6
    return seconds


def measure(models: Models, kind: str, steps: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a call by library and kind of operation: medians over alternating calls."""
    works = models.works(kind)
    found: dict[str, list[Counter[str]]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(steps):
        for name, work in works.items():
            found[name].append(anatomy(work))
    return {
        name: {part: round(1e3 * statistics.median(call[part] for call in calls), 2) for part in (*PARTS, "other")}
        for name, calls in found.items()
    }


def main() -> None:
    """Measure the selected cells, store and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cells = {cell_name(case, kind, "fp32", False): (case, kind) for case in CASES for kind in KINDS}
    parser.add_argument("--only", metavar="CASE", action="append", help="cells whose name contains this")
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    options.only = options.only or [""]
    check_words(parser, options.only, list(cells))
    device = torch.device("cpu")
    define_missing_operators()
    path, stored = results_file("anatomy")
    for name, (case, kind) in cells.items():
        if not any(word in name for word in options.only):
            continue
        models = Models(case, device, "fp32", list(installed_peers()), compiled=False)
        rows = measure(models, kind, options.steps)
        gflop = models.batch * models.flops * (1 if kind == "inference" else 3) / 1e9
        stored.setdefault("cells", {})[name] = {
            "date": datetime.now(tz=UTC).date().isoformat(),
            "command": command_line(),
            "torch": torch.__version__,
            "steps": options.steps,
            "ms_at_the_peak": round(gflop / (product_flops_per_s(device, "fp32", 2.0) / 1e12), 1),
            "ms": rows,
        }
        path.write_text(json.dumps(stored, indent=1) + "\n")
        show(name, stored["cells"][name])


def show(name: str, cell: dict[str, object]) -> None:
    """Print a table with a column per library and a row per kind of operation."""
    rows: dict[str, dict[str, float]] = cell["ms"]  # type: ignore[assignment]
    print(f"\n{name}: ms per call; its matrix products at the machine's peak: {cell['ms_at_the_peak']} ms")
    print("|", " | ".join(["", *rows]), "|\n|---|" + "---:|" * len(rows))
    for part in rows[OURS]:
        print("|", part, "|", " | ".join(f"{of[part]:.1f}" for of in rows.values()), "|")
    print("| all |", " | ".join(f"{sum(of.values()):.1f}" for of in rows.values()), "|")


if __name__ == "__main__":
    main()
