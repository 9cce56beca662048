"""`vitreous benchmark` -> how fast runs and exported files answer, on the same photos and in turns."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from vitreous.cli.options import AsJson, Count, Switch
from vitreous.cli.screen import Screen, print_json, print_table
from vitreous.ranges import Interval, check_value, rule_of
from vitreous.training.machine.device import describe_hardware, resolve_device
from vitreous.use.benchmark import BATCH_SIZE
from vitreous.use.benchmark import benchmark as measure
from vitreous.use.export.words import speed_rows
from vitreous.wording import plural


def benchmark(
    models: Annotated[list[Path], Parameter(negative="")],
    /,
    *,
    data: Path | None = None,
    batch_size: Count = BATCH_SIZE,
    trust: Switch = False,
    as_json: AsJson = False,
) -> None:
    """Compare the speed of runs and exported files on this machine's CPU.

    Args:
        models: Run folders, model.safetensors files, and .onnx, .pt2 and OpenVINO files of vitreous export.
        data: Photo, or folder of photos; default: generated photos of 640x480 px.
        batch_size: Photos in a batch, for the throughput.
        trust: Open .pt2 files, which may contain code.
        as_json: Print one JSON document instead of text.
    """
    check_value("batch_size", batch_size, rule_of(Annotated[int, Interval("[1, 4096]", "32 is usual")]))
    with Screen(stderr=as_json) as screen:
        found = measure(models, data, batch_size=batch_size, trust=trust, listener=screen.listen)
    measured = {name: asdict(proof) for name, proof in found.items()}
    hardware: Mapping[str, Any] = describe_hardware(resolve_device("cpu"))
    if as_json:
        kept = ("num_same", "largest_difference", "worst", "latency_ms", "images_per_s", "size_bytes")
        by_name = {name: {key: proof[key] for key in kept} for name, proof in measured.items()}
        num_images = next(iter(found.values())).num_images
        print_json({"hardware": hardware, "num_images": num_images, "batch_size": batch_size, "models": by_name})
        return
    print_table(screen.console, list(speed_rows(measured, batch_size)), numbers_from=1)
    photos = plural(next(iter(found.values())).num_images, "photo")
    machine = f"{hardware['device_name']}, {plural(hardware['cpus'], 'core')}"
    screen.say(f"median times on {photos} ({machine}), with resizing; answers are compared with those of the first row")
