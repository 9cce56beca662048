"""A run and images -> the same weights, faster: merged tokens, larger patches, and how often the prediction changes.

    python examples/faster_inference.py runs/photos-1 new/*.jpg

Neither method needs training. The accuracy they cost depends on the model and the images: measure it on your own.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import vitreous as vt
from vitreous.model import VisionTransformer, make_flexible, merge_tokens


def variants(model: VisionTransformer) -> dict[str, VisionTransformer]:
    """Return the model, a merging one, and one with larger patches if the image size allows it."""
    merged = max(1, model.config.num_patches // (4 * model.config.depth))
    found = {"original": model, f"{merged} tokens merged in each block": merge_tokens(model, merged)}
    larger = 2 * model.config.patch_size
    if model.config.stem == "linear" and all(side % larger == 0 for side in model.config.img_size):
        flexible = make_flexible(model, (larger,)).eval()
        flexible.tokenizer.patch_size = larger
        found[f"patches of {larger} px"] = flexible
    return found


def seconds(forward: Callable[[Tensor], Tensor], images: Tensor, repeats: int = 5) -> float:
    """Return the median time of a forward pass."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        forward(images)
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


@torch.no_grad()
def main(model: VisionTransformer, images: Tensor) -> None:
    """Print time and agreement with the original model."""
    original: Tensor | None = None
    for name, variant in variants(model).items():
        predicted = variant(images).argmax(dim=1)
        original = predicted if original is None else original
        same = (predicted == original).double().mean()
        print(f"{name}: {1000 * seconds(variant, images) / len(images):.2f} ms per image, {same:.1%} the same class")


if __name__ == "__main__":
    run = vt.load_run(sys.argv[1])
    preprocess = run.predictor.preprocess
    pixels = torch.stack([preprocess.pixels(Path(name)) for name in sys.argv[2:]])
    main(run.model, preprocess.normalize(pixels))
