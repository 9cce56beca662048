"""Random weights of every Vision Transformer in timm and torchvision -> the difference of its logits in vitreous.

    make bench-env && .venv-bench/bin/python benchmarks/parity.py            all names, about 10 minutes on two cores
    .venv-bench/bin/python benchmarks/parity.py --only dinov3                names that contain a word

Each model is built by its own library at its full width, but with few blocks and a small image. Every parameter is
drawn at random, so that no difference hides behind a zero or a one. Its state_dict is written to a file, which
`vitreous.load_model` opens. Logits agree if none differs by more than 1e-4 of the largest. A few models run as
published. Models that vitreous does not support are listed with the reason.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import vitreous
from results import results_file
from vitreous.errors import UnknownNameError, VitreousError

TOLERANCE = 1e-4
BLOCKS, SIDE, CLASSES = 2, 5, 7
WIDE = ("7b", "5b", "3b", "1b", "enormous")  # models with these words in their names run with one block
AS_PUBLISHED = (
    "vit_tiny_patch16_224",
    "vit_small_patch32_224",
    "vit_small_patch16_36x1_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_base_patch32_clip_quickgelu_224",
    "vit_base_patch32_siglip_256",
    "vit_wee_patch16_reg1_gap_256",
    "vit_small_patch16_dinov3",
    "vit_small_plus_patch16_dinov3_qkvb",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_mediumd_patch16_rope_reg1_gap_256",
)


@dataclass(frozen=True)
class Case:
    """A model of another library.

    Attributes:
        source: File of the library that defines it.
        name: Its name in the library.
        build: Builds it.
        options: Arguments of `load_model` in addition to the path.
    """

    source: str
    name: str
    build: Callable[[], torch.nn.Module]
    options: dict[str, Any]


@cache  # the definitions last as long as the returned object
def define_missing_operators() -> torch.library.Library | None:
    """Define the operators of torchvision's compiled part, so that it can be imported with a CPU build of torch."""
    if torch.version.cuda is not None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def timm_cases() -> list[Case]:
    """Return a case for every model of `vision_transformer.py`, `deit.py` and `eva.py`."""
    import timm

    cases = []
    for source in ("vision_transformer", "deit", "eva"):
        for name in timm.list_models(module=source):
            patch = _patch_size(name)
            # timm stretches the rotary positions of these models to a grid of 16 cells, so they run at that size.
            side = 16 if "_rope_reg" in name else SIDE
            depth = 1 if any(word in name for word in WIDE) else BLOCKS
            arguments = {"depth": depth, "img_size": side * patch, "num_classes": CLASSES}
            architecture = {"depth": depth, "img_size": (side * patch, side * patch)}
            cases.append(_timm_case(source, name, arguments, architecture))
            if name in AS_PUBLISHED:
                cases.append(_timm_case(f"{source}, as published", name, {}, {}))
    return cases


def torchvision_cases() -> list[Case]:
    """Return the five Vision Transformers of torchvision."""
    from torchvision.models.vision_transformer import VisionTransformer

    shapes = {"b_16": (768, 12), "b_32": (768, 12), "l_16": (1024, 16), "l_32": (1024, 16), "h_14": (1280, 16)}
    cases = []
    for name, (width, heads) in shapes.items():
        patch = int(name[2:])

        def build(width: int = width, heads: int = heads, patch: int = patch) -> torch.nn.Module:
            return VisionTransformer(SIDE * patch, patch, BLOCKS, heads, width, 4 * width, num_classes=CLASSES)

        cases.append(Case("torchvision", f"vit_{name}", build, {"architecture": {"num_heads": heads}}))
    return cases


def draw(model: torch.nn.Module, seed: int = 0) -> None:
    """Draw every parameter at random: matrices large enough for attention to matter, scales of norms around 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = any(word in name for word in ("norm", "ln")) and not name.endswith("bias")
        if parameter.ndim == 1 and ("gamma" in name or is_norm):
            values = 1 + 0.2 * noise
        elif parameter.ndim == 1 or parameter.shape[0] == 1 or "freqs" in name:
            values = 0.2 * noise
        else:
            values = noise * min(0.05, 1.2 * parameter[0].numel() ** -0.5)
        parameter.data.copy_(values)


def compare(case: Case, folder: Path) -> dict[str, Any]:
    """Build a model, draw and write its weights, open them in vitreous, and run both on the same images."""
    try:
        model = case.build().eval()
    except AssertionError as error:
        return {"verdict": "refused", "why": f"timm does not build it with few blocks ({error})"}
    reason = unsupported_parts(model)
    draw(model)
    path = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)
    try:
        ours = vitreous.load_model(path, **case.options)
    except UnknownNameError:
        return {"verdict": "refused", "why": reason or "vitreous has no such name"}
    except VitreousError as error:
        return {"verdict": "refused", "why": reason or str(error).replace(str(folder), "")}
    finally:
        path.unlink()
    images = torch.randn(2, 3, *ours.config.img_size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs, found = model(images), ours(images)
    scale = theirs.abs().max().item()
    difference = (theirs - found).abs().max().item() / scale
    agrees = difference <= TOLERANCE and scale > 0
    return {"verdict": "agrees" if agrees else "differs", "difference": difference, "scale": scale}


def unsupported_parts(model: torch.nn.Module) -> str:
    """Return the parts of a timm model that a plain Vision Transformer does not have, as text."""
    block = model.blocks[0] if hasattr(model, "blocks") else None
    if block is None:
        return ""
    kind, attention = type(block).__name__, type(getattr(block, "attn", None)).__name__
    rope = type(getattr(model, "rope", None)).__name__
    norms = [getattr(getattr(block, part, None), "norm", None) for part in ("attn", "mlp")]
    reasons = {
        f"blocks are {kind}": kind not in ("Block", "ResPostBlock", "EvaBlock"),
        f"attention is {attention}": attention == "DiffAttention",
        "a norm inside attention or MLP": any(norm is not None and list(norm.parameters()) for norm in norms),
        "a pool that reads prefix tokens too": getattr(model, "pool_include_prefix", False),
        "separate layers for queries, keys and values": getattr(getattr(block, "attn", None), "q_proj", None)
        is not None,
        "fewer heads of keys than of queries": getattr(getattr(block, "attn", None), "num_kv_groups", 1) > 1,
        f"{rope} from an offset grid": getattr(getattr(model, "rope", None), "grid_offset", 0) != 0,
        "other heads in the pool than in the blocks": getattr(model.attn_pool, "num_heads", 0)
        not in (0, getattr(getattr(block, "attn", None), "num_heads", 0)),
    }
    return ", ".join(reason for reason, there in reasons.items() if there)


def compare_resized(folder: Path) -> dict[str, Any]:
    """Compare positions resized from 6x6 patches to 9x9 by timm's loader and by `load_model(img_size=…)`."""
    import timm
    from timm.models import load_checkpoint
    from timm.models.vision_transformer import checkpoint_filter_fn

    small = timm.create_model("vit_tiny_patch16_224", depth=BLOCKS, img_size=96, num_classes=CLASSES).eval()
    large = timm.create_model("vit_tiny_patch16_224", depth=BLOCKS, img_size=144, num_classes=CLASSES).eval()
    draw(small)
    path = folder / "weights.safetensors"
    save_file(small.state_dict(), path)
    load_checkpoint(large, str(path), filter_fn=checkpoint_filter_fn)
    ours = vitreous.load_model(path, name="vit_tiny_patch16_224", img_size=144, architecture={"depth": BLOCKS})
    images = torch.randn(2, 3, 144, 144, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        theirs, found = large(images), ours(images)
    scale = theirs.abs().max().item()
    difference = (theirs - found).abs().max().item() / scale
    return {"verdict": "agrees" if difference <= TOLERANCE else "differs", "difference": difference, "scale": scale}


def main() -> None:
    """Compare all models, print one line each, and store the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only models whose name contains this")
    options = parser.parse_args()
    define_missing_operators()
    import timm
    import torchvision

    path, stored = results_file("parity")
    stored["versions"] = {module.__name__: module.__version__ for module in (torch, timm, torchvision)}
    models = stored.setdefault("models", {})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in [*timm_cases(), *torchvision_cases()]:
            if options.only in case.name:
                found = compare(case, folder)
                models.setdefault(case.source, {})[case.name] = found
                path.write_text(json.dumps(stored, indent=1) + "\n")
                print(f"{case.source:40} {case.name:45} {as_text(found)}", flush=True)
        if not options.only:
            stored["resized"] = compare_resized(folder)
            print(f"positions resized from 6x6 to 9x9: {as_text(stored['resized'])}")
    stored["wall_s"] = round(time.perf_counter() - began)
    path.write_text(json.dumps(stored, indent=1) + "\n")
    print_table(models)


def as_text(found: dict[str, Any]) -> str:
    """Return a result as text."""
    number = f" {found['difference']:.1e}" if "difference" in found else ""
    return f"{found['verdict']}{number}{': ' + found['why'] if 'why' in found else ''}"


def print_table(models: dict[str, dict[str, Any]]) -> None:
    """Print how many models of each file agree, and why others are refused."""
    print("\n| file | models | agree | differ | refused | largest difference |\n|---|---|---|---|---|---|")
    for source, found in models.items():
        counts = Counter(result["verdict"] for result in found.values())
        largest = max((result["difference"] for result in found.values() if "difference" in result), default=0.0)
        row = [source, len(found), *(counts[verdict] for verdict in ("agrees", "differs", "refused")), f"{largest:.1e}"]
        print("| " + " | ".join(map(str, row)) + " |")
    for source, found in models.items():
        reasons = Counter(result["why"] for result in found.values() if "why" in result)
        for reason, count in reasons.most_common():
            print(f"{source}: {count} refused: {reason}")


def _timm_case(source: str, name: str, arguments: dict[str, Any], architecture: dict[str, Any]) -> Case:
    def build() -> torch.nn.Module:
        import timm

        return timm.create_model(name, **arguments)

    return Case(source, name, build, {"name": name, "architecture": architecture})


def _patch_size(name: str) -> int:
    found = [word for word in name.split("_") if word.startswith("patch")]
    return int(found[0].removeprefix("patch")) if found else 16


if __name__ == "__main__":
    main()
