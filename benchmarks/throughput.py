"""The same Vision Transformers in vitreous and four other libraries -> images/s, fraction of the peak, memory.

    make bench                                                               all cells, about half an hour on two cores
    .venv-bench/bin/python benchmarks/throughput.py --only "28 px" --only "S/16, training"
    .venv-bench/bin/python benchmarks/throughput.py --compile --dtype bf16 --device cuda

All models are in one process and take turns for `--rounds` rounds, each turn `--seconds` or one call; the order
rotates. Because the speed of a shared machine varies, many short alternating turns are better than a few long ones.
Before the timing starts, the logits, or the first loss and gradient norm, of each library are compared with ours on the
same images and weights. A library that differs is named and not timed. Inference is only the forward pass. A training
step is forward, cross-entropy, backward and fused AdamW, the same for all. `train_step` is ours with everything that a
run adds: clipping, the weight average, the check for non-finite values. Memory is allocated with Python's defaults (see
`heap.py` for the difference).

A ratio is the median over rounds of our speed relative to that of a library in the same round; it is above 1 if ours is
faster. vit-pytorch has another architecture and is compared with a vitreous model of that architecture. MFU is the
fraction of the speed of the fastest square matrix product in the same dtype, measured between the turns. It counts a
training step as three forward passes, and a forward pass as every token in every block, also for libraries that
skip some. Memory is that of a call in addition to what was allocated before. With `--compile`, `first_call_s` includes
compilation. bf16 runs by default only on processors that multiply it natively, and has no MFU on others.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from parity import define_missing_operators, draw  # noqa: E402
from peers import OURS, TWIN, as_vit_pytorch, installed_peers, make_peer, same_as  # noqa: E402
from results import command_line, results_file  # noqa: E402
from stopwatch import Work, calls_per_s, product_flops_per_s, wait_for, working_memory_mib  # noqa: E402
from vitreous.errors import VitreousError  # noqa: E402
from vitreous.model import ModelConfig, build_model, trim_last_block  # noqa: E402
from vitreous.model.config.presets import config_for  # noqa: E402
from vitreous.model.cost.count import count_flops  # noqa: E402
from vitreous.objective.cross_entropy import CrossEntropy  # noqa: E402
from vitreous.objective.task import Supervised  # noqa: E402
from vitreous.optim.config import OptimConfig  # noqa: E402
from vitreous.optim.ema import Ema  # noqa: E402
from vitreous.optim.optimizers import build_optimizer  # noqa: E402
from vitreous.training.machine.device import PRECISIONS, autocast, float32_products, resolve_device, resolve_precision  # noqa: E402
from vitreous.training.step.horizon import Horizon  # noqa: E402
from vitreous.training.step.state import TrainState  # noqa: E402
from vitreous.training.step.train_step import StepSettings, train_step  # noqa: E402

SMALL = ModelConfig(img_size=(28, 28), patch_size=4, in_chans=3, num_classes=10, embed_dim=128, depth=6, num_heads=4)
CASES: dict[str, tuple[ModelConfig, int, int]] = {
    # name: (architecture, batch on a CPU, batch on an accelerator)
    "28 px p4 d128 L6": (SMALL, 128, 1024),
    "Ti/16": (config_for("vit_tiny_patch16_224"), 8, 256),
    "S/16": (config_for("vit_small_patch16_224"), 8, 256),
    "B/16": (config_for("vit_base_patch16_224"), 8, 128),
}
KINDS = ("inference", "training")
TRAIN_STEP = "vitreous train_step"
TOLERANCE = {"fp32": 1e-4, "tf32": 5e-2, "bf16": 5e-2}
"""Largest allowed difference, relative to the largest logit, the loss, or the gradient norm."""


class Models:
    """One architecture in every library, with one batch for all of them.

    Attributes:
        by_name: Our model, its twin, and the model of every other library.
        differences: Relative difference of the results from ours, by kind and name.
        first_call_s: Seconds of the first call, by kind and name.
    """

    def __init__(self, case: str, device: torch.device, precision: str, peers: list[str], compiled: bool) -> None:
        config, on_cpu, elsewhere = CASES[case]
        self.device, self.precision = device, precision
        self.flops = count_flops(config)
        self.batch = on_cpu if device.type == "cpu" else elsewhere
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randn(self.batch, 3, *config.img_size, generator=generator).to(device)
        self.labels = torch.randint(config.num_classes, (self.batch,), generator=generator).to(device)
        torch.compiler.reset()
        ours = {OURS: trim_last_block(build_model(config))}
        if "vit-pytorch" in peers:
            ours[TWIN] = trim_last_block(build_model(as_vit_pytorch(config)))
        for model in ours.values():
            draw(model)
        self.plain = ours[OURS]
        with tempfile.TemporaryDirectory() as folder:
            theirs = {name: make_peer(name, ours[same_as(name)], Path(folder)) for name in peers}
        every: dict[str, nn.Module] = {**ours, **theirs}
        self.by_name = {name: model.to(device) for name, model in every.items()}
        if compiled:
            for one in self.by_name.values():
                one.compile()
        self.differences: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
        self.first_call_s: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}

    def works(self, kind: str) -> dict[str, Work]:
        """Return the functions to time, of the models whose results agree with ours."""
        results = {name: self._result(kind, name) for name in self.by_name}
        works = {}
        for name, result in results.items():
            # Compare each result with its own counterpart: logits with logits, loss with loss.
            pairs = list(zip(result, results[same_as(name)], strict=True))
            found = max(((got - ours).abs().max() / ours.abs().max()).item() for got, ours in pairs)
            self.differences[kind][name] = found
            if found <= TOLERANCE[self.precision]:
                works[name] = self._inference(name) if kind == "inference" else self._training(name)
            else:
                print(f"{name} is skipped: its {kind} differs by {found:.1e} of ours")
        if kind == "training":
            works[TRAIN_STEP] = self._train_step()
        return works

    def _result(self, kind: str, name: str) -> list[Tensor]:
        """Return the logits, or the loss and the gradient norm before any step."""
        model, began = self.by_name[name], time.perf_counter()
        model.train(kind == "training")
        if kind == "inference":
            found = [self._inference(name)().float()]
        else:
            loss = self._loss(model)
            self._backward(loss)
            norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
            found = [loss.detach(), norm]
            model.zero_grad(set_to_none=True)
        wait_for(self.device)
        self.first_call_s[kind][name] = round(time.perf_counter() - began, 3)
        return found

    def _loss(self, model: nn.Module) -> Tensor:
        with autocast(self.device, self.precision):
            logits = model(self.images)
        return F.cross_entropy(logits.float(), self.labels)

    def _backward(self, loss: Tensor) -> None:
        with float32_products(self.precision):
            loss.backward()

    def _inference(self, name: str) -> Callable[[], Tensor]:
        model = self.by_name[name]

        def forward() -> Tensor:
            with torch.inference_mode(), autocast(self.device, self.precision):
                return model(self.images)

        return forward

    def _training(self, name: str) -> Work:
        model = self.by_name[name]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)

        def step() -> None:
            self._backward(self._loss(model))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def _train_step(self) -> Work:
        model, optim = self.plain, OptimConfig(lr=1e-5)
        state = TrainState(model, Ema(model), build_optimizer(model, optim), Horizon(end_step=1_000_000))
        settings = StepSettings(Supervised(CrossEntropy()), optim, self.precision, 0)
        return lambda: train_step(state, self.images, self.labels, settings)


def measure(models: Models, kind: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure one cell, with all models in turns."""
    load, works = os.getloadavg()[0], models.works(kind)
    for work in works.values():
        work()
    order, found, peaks = list(works), [], []
    for number in range(rounds):
        turn = order[number % len(order) :] + order[: number % len(order)]
        rates = {name: models.batch * calls_per_s(works[name], seconds, models.device) for name in turn}
        found.append({name: rates[name] for name in order})
        peaks.append(product_flops_per_s(models.device, models.precision, seconds / 2))
    medians = {name: statistics.median(one[name] for one in found) for name in order}
    per_round = {name: [one[same_as(name)] / one[name] for one in found]
                 for name in order if name not in (OURS, TWIN, TRAIN_STEP)}  # fmt: skip
    ratios = {name: statistics.median(values) for name, values in per_round.items()}
    quartiles = {name: statistics.quantiles(values, n=4)[::2] if rounds > 1 else values * 2
                 for name, values in per_round.items()}  # fmt: skip
    flops = models.flops * (1 if kind == "inference" else 3)
    # An emulated matrix product is far below the peak of the processor and would give a meaningless MFU.
    is_native = models.precision in ("fp32", resolve_precision("auto", models.device))
    return {
        "batch": models.batch,
        "images_per_s": {name: round(rate, 1) for name, rate in medians.items()},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "quartiles": {name: [round(value, 3) for value in pair] for name, pair in quartiles.items()},
        "best_peer": min(ratios, key=lambda name: ratios[name]) if ratios else None,
        "mfu": {name: round(rate * flops / max(peaks), 3) for name, rate in medians.items()} if is_native else {},
        "peak_gflops_per_s": round(max(peaks) / 1e9, 1),
        "gflops_per_image": round(flops / 1e9, 4),
        "working_memory_mib": {name: working_memory_mib(work, models.device) for name, work in works.items()},
        "difference": {name: float(f"{far:.1e}") for name, far in models.differences[kind].items()},
        "first_call_s": models.first_call_s[kind],
        "rounds": [{name: round(rate, 1) for name, rate in one.items()} for one in found],
        "load_average": [round(load, 2), round(os.getloadavg()[0], 2)],
    }


def main() -> None:
    """Measure the selected cells, store them, and print the table of all stored cells."""
    options, device = read_options()
    define_missing_operators()
    versions = installed_peers()
    about = {
        "date": datetime.now(tz=UTC).date().isoformat(),
        "command": command_line(),
        "versions": {"torch": torch.__version__, **versions},
        "threads": torch.get_num_threads(),
    }
    path, stored = results_file("throughput", device)
    cells = stored.setdefault("cells", {})
    for case in CASES:
        for precision in options.dtype:
            names = {kind: cell_name(case, kind, precision, options.compile) for kind in KINDS}
            wanted = [kind for kind, name in names.items() if any(word in name for word in options.only)]
            if wanted:
                models = Models(case, device, precision, list(versions), options.compile)
            for kind in wanted:
                found = measure(models, kind, options.rounds, options.seconds)
                cells[names[kind]] = about | found
                print(f"{names[kind]}: {found['images_per_s']}", flush=True)
                path.write_text(json.dumps(stored, indent=1) + "\n")
    show(cells)


def read_options() -> tuple[argparse.Namespace, torch.device]:
    """Return the options, with defaults that suit the device, and the device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="CASE", action="append", help='cells whose name contains this, e.g. "S/16"')
    parser.add_argument("--dtype", choices=PRECISIONS, action="append", help="default: fp32, and bf16 if it is native")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="per model and round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--compile", action="store_true", help="torch.compile for all")
    options = parser.parse_args()
    for name in ("rounds", "seconds", "threads"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} {getattr(options, name)}: must be above 0")
    try:
        device = resolve_device(options.device)
        auto = resolve_precision("auto", device)
        options.dtype = [resolve_precision(dtype, device) for dtype in options.dtype or dict.fromkeys(["fp32", auto])]
    except VitreousError as error:
        parser.error(str(error))
    torch.set_num_threads(options.threads)
    options.only = options.only or [""]
    every = [cell_name(case, kind, dtype, options.compile) for case in CASES for kind in KINDS for dtype in PRECISIONS]
    check_words(parser, options.only, every)
    return options, device


def check_words(parser: argparse.ArgumentParser, words: list[str], cells: list[str]) -> None:
    """Reject an `--only` that selects no cell."""
    for word in words:
        if not any(word in name for name in cells):
            parser.error(f"--only {word}: matches no cell such as {cells[0]}; cases are {', '.join(CASES)}")


def cell_name(case: str, kind: str, precision: str, compiled: bool) -> str:
    """Return the name under which a cell is stored."""
    return f"{case}, {kind}, {precision}, {'compiled' if compiled else 'eager'}"


def show(cells: dict[str, Any]) -> None:
    """Print images/s of all, our ratio to the fastest library, MFU, and memory next to the smallest."""
    names = list(dict.fromkeys(name for found in cells.values() for name in found["images_per_s"]))
    print("\n| cell | batch |", " | ".join(names), "| × best peer | MFU | MiB, ours / least |")
    print("|---|" + "---:|" * (len(names) + 4))
    for cell, found in cells.items():
        rates, memory = found["images_per_s"], found["working_memory_mib"]
        best, least = found["best_peer"], [memory[name] for name in found["ratios"] if memory[name] is not None]
        columns = [cell, found["batch"], *(f"{rates[name]:,.4g}" if name in rates else "" for name in names)]
        low, high = found["quartiles"][best] if best else (0.0, 0.0)
        columns.append(f"{found['ratios'][best]:.2f} ({low:.2f} to {high:.2f}) {best}" if best else "")
        columns.append(f"{found['mfu'][OURS]:.0%}" if found["mfu"] else "")
        columns.append(f"{memory[OURS]:,.0f} / {min(least):,.0f}" if least else "")
        print("|", " | ".join(map(str, columns)), "|")


if __name__ == "__main__":
    main()
