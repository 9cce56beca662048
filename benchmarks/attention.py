"""Number of tokens -> ms of attention as an explicit product and fused: when `model/parts/attention.py` uses which.

    python benchmarks/attention.py

Both kernels of the same `Attention`, without its projections, in turns: medians of `--rounds` calls of the forward
pass, and of forward and backward, for about 6,400 tokens per call. Memory is allocated as in the command line. Results
go to benchmarks/results/HARDWARE/attention.json.
"""

import argparse
import json
import statistics
import time

from vitreous.heap import keep_freed_memory
from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded
keep_freed_memory()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from results import command_line, results_file  # noqa: E402
from vitreous.model.parts.attention import Attention  # noqa: E402

TOKENS = (10, 17, 26, 37, 50, 65, 101, 129, 145, 197, 257, 401)
HEADS = ((4, 32), (3, 64), (6, 64))
KERNELS = ("explicit", "sdpa")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def measure(num_tokens: int, num_heads: int, head_dim: int, dtype: torch.dtype, rounds: int) -> dict[str, float]:
    """Return the milliseconds by case and kernel."""
    batch, width = max(1, 6_400 // num_tokens), num_heads * head_dim
    qkv = torch.randn(batch, num_tokens, 3 * width, dtype=dtype, requires_grad=True)
    found: dict[str, list[float]] = {}
    attentions = {
        kernel: Attention(num_heads=num_heads, qkv=nn.Identity(), proj=nn.Identity(), kernel=kernel)  # type: ignore[arg-type]
        for kernel in KERNELS
    }
    for _ in range(rounds):
        for kernel, attention in attentions.items():
            began = time.perf_counter()
            output = attention(qkv)
            torch.autograd.grad(output, qkv, output.detach())
            found.setdefault(f"training, {kernel}", []).append(time.perf_counter() - began)
            with torch.inference_mode():
                began = time.perf_counter()
                attention(qkv)
                found.setdefault(f"inference, {kernel}", []).append(time.perf_counter() - began)
    return {name: round(1e3 * statistics.median(seconds), 2) for name, seconds in found.items()}


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32")
    options = parser.parse_args()
    path, stored = results_file("attention")
    rows = stored.setdefault(options.dtype, {})
    for num_heads, head_dim in HEADS:
        for num_tokens in TOKENS:
            name = f"{num_heads} heads of {head_dim}, {num_tokens} tokens"
            rows[name] = measure(num_tokens, num_heads, head_dim, DTYPES[options.dtype], options.rounds)
            print(name, rows[name], flush=True)
    stored.setdefault("commands", {})[options.dtype] = command_line()
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
