"""The last block without what the pool does not read -> how much faster a pass is.

    .venv/bin/python benchmarks/trim.py

ViT-Ti/16 and ViT-S/16 at 224 px with a class token, in inference and in a training step (forward and backward), in
fp32 and under bf16 autocast. The plain model and `trim_last_block(model)` take turns; the ratio is the median over
rounds of the plain model's seconds over the trimmed one's, stored with its quartiles in
benchmarks/results/HARDWARE/trim.json.
"""

import argparse
import json
import statistics
import time

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded

import torch  # noqa: E402

from results import command_line, results_file  # noqa: E402
from vitreous.model import VisionTransformer, create_model, trim_last_block  # noqa: E402

MODELS = {"Ti/16": ("vit_tiny_patch16_224", 16), "S/16": ("vit_small_patch16_224", 8)}


def seconds(model: VisionTransformer, images: torch.Tensor, precision: str, training: bool) -> float:
    """Return the seconds of one forward pass, in training with its backward pass."""
    start = time.perf_counter()
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = model(images)
    if training:
        logits.float().square().sum().backward()
        model.zero_grad(set_to_none=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, store, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: must be at least 2, for quartiles")
    path, stored = results_file("trim")
    stored |= {"command": command_line(), "cases": {}}
    for name, (model_name, batch_size) in MODELS.items():
        plain = create_model(model_name, num_classes=10, seed=0)
        trimmed, images = trim_last_block(plain), torch.randn(batch_size, 3, 224, 224)
        for training in (False, True):
            plain.train(training), trimmed.train(training)
            for precision in ("fp32", "bf16"):
                ratios = []
                for number in range(options.rounds + 1):
                    pair = (plain, trimmed) if number % 2 else (trimmed, plain)
                    taken = {id(model): seconds(model, images, precision, training) for model in pair}
                    ratios.append(taken[id(plain)] / taken[id(trimmed)])
                ratios = ratios[1:]  # the first round warms up
                quartiles = [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]]
                case = f"{name}, {'training' if training else 'inference'}, {precision}"
                stored["cases"][case] = {"ratio": round(statistics.median(ratios), 3), "quartiles": quartiles}
                print(case, stored["cases"][case], flush=True)
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
