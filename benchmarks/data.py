"""JPEG files -> augmented, normalized batches: images/s of vitreous, timm, torchvision v2 and kornia.

    make bench-env && .venv-bench/bin/python benchmarks/data.py --data ../shared/data

Images of 32 px (CIFAR-10 as JPEG), 96 px (photos of clothes) and 224 px (mosaics of those photos, 480x384 px, JPEG
quality 90), in batches of 64 on the CPU, with one worker per core. All pipelines use random crops of 35% to 100% of the
area and random mirroring; with `randaugment` also two operations of magnitude 9.

`files` decodes every image each time it is shown, as the other libraries always do. `mapped` reads decoded pixels from
the cache file, `memory` from one tensor. Training uses one of these two after it has decoded every image once, at the
speed shown as `decode once`. vitreous crops images that were already resized; the other libraries crop the whole file,
which is the same fraction of the area from more pixels.

Pipelines alternate for `--rounds` rounds. A ratio is the median over rounds of a pipeline's speed relative to timm's.
"""

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vitreous.threads import let_threads_sleep

let_threads_sleep()  # read by OpenMP when torch is loaded; otherwise batches wait for threads that lost their core

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from parity import define_missing_operators  # noqa: E402
from results import command_line, results_file  # noqa: E402
from vitreous.data.build import build_augment  # noqa: E402
from vitreous.data.config import DataConfig  # noqa: E402
from vitreous.data.decoding.preprocess import Preprocess  # noqa: E402
from vitreous.data.loader import Prefetcher, TrainLoader  # noqa: E402
from vitreous.data.pixels.digest import digest_of  # noqa: E402
from vitreous.data.pixels.store import load_store  # noqa: E402
from vitreous.data.sources import FileSource  # noqa: E402

BATCH = 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = (0.35, 1.0)
WARM_UP = 6
"""Batches before the timing starts: more than the workers prefetch."""
SIDES = (32, 96, 224)
POLICIES = ("none", "randaugment")

Pipeline = Callable[[ExitStack], Iterator[Any]]
"""Opens what it needs in the stack and yields batches without end; `len` of a batch is its number of images."""


def write_files(side: int, data: Path, folder: Path) -> list[Path]:
    """Return up to 2,000 JPEG files to read; writes them if necessary."""
    if side == 32:
        with tarfile.open(data / "cifar10-jpeg" / "cifar10_jpg_q75.tar.xz") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".jpg") and (file := tar.extractfile(member)):
                    (folder / f"{len(list(folder.iterdir())):05d}.jpg").write_bytes(file.read())
                    if len(list(folder.iterdir())) == 2000:
                        break
        return sorted(folder.iterdir())
    photos = sorted((data / "clothing-96px" / "train").rglob("*.jpg"))
    if side == 96:
        return photos[:2000]
    tiles = [Image.open(path).convert("RGB").resize((96, 96)) for path in photos[:500]]
    draw = np.random.default_rng(0)
    for number in range(500):
        mosaic = Image.new("RGB", (480, 384))
        for place, tile in enumerate(draw.choice(len(tiles), 20)):
            mosaic.paste(tiles[tile], (place % 5 * 96, place // 5 * 96))
        mosaic.save(folder / f"{number:05d}.jpg", quality=90)
    return sorted(folder.iterdir())


class Files(Dataset[Any]):
    """The data set of another library: files opened with Pillow and passed through a transform."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Any]) -> None:
        self.paths = paths
        self.transform = transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), 0


def loaded(
    paths: list[Path], transform: Callable[[Image.Image], Any], then: Callable[[Any], Any] | None = None
) -> Pipeline:
    """Return a pipeline with a DataLoader over files; `then` is applied to whole batches."""

    def batches(stack: ExitStack) -> Iterator[Any]:
        loader = DataLoader(Files(paths, transform), BATCH, shuffle=True, num_workers=os.cpu_count() or 1,
                            drop_last=True, persistent_workers=True)  # fmt: skip
        while True:
            for images, _ in loader:
                yield images if then is None else then(images)

    return batches


def timm_pipeline(paths: list[Path], side: int, policy: str) -> Pipeline:
    """Return timm's `create_transform` with the options of its `train.py` and PIL interpolation."""
    from timm.data import create_transform

    auto = "rand-m9-mstd0" if policy == "randaugment" else None
    transform = create_transform(side, is_training=True, scale=CROP, hflip=0.5, color_jitter=None, auto_augment=auto,
                                 interpolation="bicubic", mean=MEAN, std=STD, re_prob=0.0)  # fmt: skip
    return loaded(paths, transform)


def torchvision_pipeline(paths: list[Path], side: int, policy: str) -> Pipeline:
    """Return torchvision's `transforms.v2` on uint8 tensors, as its documentation recommends."""
    from torchvision.transforms import InterpolationMode, v2

    steps = [
        v2.PILToTensor(),
        v2.RandomResizedCrop(side, scale=CROP, interpolation=InterpolationMode.BICUBIC, antialias=True),
        v2.RandomHorizontalFlip(),
        *([v2.RandAugment(2, 9)] if policy == "randaugment" else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    return loaded(paths, v2.Compose(steps))


def kornia_pipeline(paths: list[Path], side: int, policy: str) -> Pipeline:
    """Decode and resize in workers, augment in batches; kornia's RandAugment draws one sequence per batch."""
    from kornia import augmentation
    from torchvision.transforms import v2

    steps = [
        augmentation.RandomResizedCrop((side, side), scale=CROP, resample="bicubic"),
        augmentation.RandomHorizontalFlip(),
        *([augmentation.auto.RandAugment(2, 9)] if policy == "randaugment" else []),
        augmentation.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ]
    augment = augmentation.AugmentationSequential(*steps) if policy == "randaugment" else torch.nn.Sequential(*steps)
    fit = v2.Compose([v2.PILToTensor(), v2.Resize((side, side), antialias=True), v2.ToDtype(torch.float32, scale=True)])
    return loaded(paths, fit, augment)


def our_pipeline(paths: list[Path], side: int, policy: str, kind: str, cache: str) -> Pipeline:
    """Return the pipeline of `vitreous train` on the same files; `kind` is files, mapped or memory."""
    source = FileSource(name="x", classes=["a", "b"], paths=paths, labels=np.arange(len(paths)) % 2,
                        splits=[""] * len(paths))  # fmt: skip
    config = DataConfig(source="x", img_size=(side, side), in_chans=3, num_classes=2, mean=MEAN, std=STD, flip=True,
                        min_crop_area=CROP[0], policy=policy, batch_size=BATCH)  # fmt: skip
    preprocess = Preprocess(config.img_size, 3, mean=MEAN, std=STD)
    indices = np.arange(len(paths))
    digests = np.stack([np.frombuffer(digest_of(path.read_bytes()), dtype=np.uint8) for path in paths])

    def batches(stack: ExitStack) -> Iterator[Any]:
        limit = None if kind == "memory" else 0
        store = load_store(source, indices, preprocess, memory_limit_bytes=limit, digests=digests,
                           cache=None if kind == "files" else cache)  # fmt: skip
        loader: Any = TrainLoader(store, preprocess, build_augment(config), BATCH, seed=0)
        if kind != "memory":
            loader = stack.enter_context(Prefetcher(loader))
        step = 0
        while True:
            yield loader.batch(step).images
            step += 1

    return batches


def images_per_s(pipeline: Pipeline, seconds: float) -> float:
    """Measure for this long, after the first few batches."""
    with ExitStack() as stack:
        batches = pipeline(stack)
        for _ in range(WARM_UP):
            next(batches)
        began, count = time.perf_counter(), 0
        while (now := time.perf_counter()) < began + seconds or not count:
            count += len(next(batches))
            now = time.perf_counter()
        return count / (now - began)


def pipelines(paths: list[Path], side: int, policy: str, cache: str) -> dict[str, Pipeline]:
    """Return our pipelines and those of the other libraries that are installed."""
    found = {
        f"vitreous {kind}": our_pipeline(paths, side, policy, kind, cache) for kind in ("files", "mapped", "memory")
    }
    peers = {"timm": timm_pipeline, "torchvision v2": torchvision_pipeline, "kornia": kornia_pipeline}
    for name, make in peers.items():
        try:
            found[name] = make(paths, side, policy)
        except ImportError as error:
            print(f"{name} is skipped: {error}")
    return found


def decode_once_per_s(paths: list[Path], side: int) -> float:
    """Measure images/s from files into memory, without the cache."""
    source = FileSource(name="x", classes=["a"], paths=paths, labels=np.zeros(len(paths), dtype=np.int64),
                        splits=[""] * len(paths))  # fmt: skip
    began = time.perf_counter()
    load_store(source, np.arange(len(paths)), Preprocess((side, side), 3))
    return len(paths) / (time.perf_counter() - began)


def measure(paths: list[Path], side: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all pipelines on the files of one image size, with both policies."""
    with Image.open(io.BytesIO(paths[0].read_bytes())) as first:
        size = list(first.size)
    found: dict[str, Any] = {"files": len(paths), "first_file_px": size, "decode_once_per_s": []}
    for policy in options.policy or POLICIES:
        with tempfile.TemporaryDirectory() as cache:
            every = pipelines(paths, side, policy, cache)
            rounds: list[dict[str, float]] = []
            for _ in range(options.rounds):
                rounds.append({name: round(images_per_s(one, options.seconds), 1) for name, one in every.items()})
                found["decode_once_per_s"].append(round(decode_once_per_s(paths, side), 1))
        found[policy] = {
            "images_per_s": {name: statistics.median(one[name] for one in rounds) for name in every},
            "times_timm": {name: round(statistics.median(one[name] / one["timm"] for one in rounds), 2)
                           for name in every if "timm" in every},
            "rounds": rounds,
            "load_average": os.getloadavg()[0],
        }  # fmt: skip
        print(side, policy, found[policy]["images_per_s"], found[policy]["times_timm"], flush=True)
    return found


def main() -> None:
    """Measure, store, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with cifar10-jpeg and clothing-96px"
    )
    parser.add_argument("--side", type=int, choices=SIDES, action="append", help="default: all")
    parser.add_argument("--policy", choices=POLICIES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="per pipeline and round")
    options = parser.parse_args()
    define_missing_operators()
    path, stored = results_file("data")
    stored["command"] = command_line()
    sides = stored.setdefault("sides", {})
    for side in options.side or SIDES:
        with tempfile.TemporaryDirectory() as folder:
            sides[str(side)] = measure(write_files(side, options.data, Path(folder)), side, options)
        path.write_text(json.dumps(stored, indent=1) + "\n")
    show(sides)


def show(sides: dict[str, Any]) -> None:
    """Print images/s and the ratio to timm's."""
    names = list(next(iter(sides.values()))["none"]["images_per_s"])
    print("\n| side, policy |", " | ".join(names), "| decode once |\n|---|" + "---:|" * (len(names) + 1))
    for side, found in sides.items():
        for policy in (policy for policy in POLICIES if policy in found):
            rates, times = found[policy]["images_per_s"], found[policy]["times_timm"]
            cells = [f"{rates[name]:,.0f} (×{times[name]:.1f})" if times else f"{rates[name]:,.0f}" for name in names]
            print(
                f"| {side} px, {policy} |",
                " | ".join(cells),
                f"| {statistics.median(found['decode_once_per_s']):,.0f} |",
            )


if __name__ == "__main__":
    main()
