"""Images, a job, an engine -> a complete folder of parts, or after Ctrl-C those parts that are finished."""

from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from vitreous import processes
from vitreous.data.pixels.store import machine_memory_bytes
from vitreous.training.folder.records import Listener
from vitreous.training.machine.device import resolve_device
from vitreous.training.machine.signals import stop_signals_handled
from vitreous.use.batch.cluster import RayWorkers, connected
from vitreous.use.batch.job import Job, Part
from vitreous.use.batch.local import LocalWorkers
from vitreous.use.batch.part_folder import PartFolder, make_request
from vitreous.use.batch.workers import Numbered, do_parts
from vitreous.use.predict.listing import Listing
from vitreous.wording import plural

CORES = 1
"""Cores of a worker without a GPU."""
_PROCESS_BYTES = 1 << 30
"""Memory of a process without its weights: PyTorch, a batch of images, and a part."""


class Stopped(KeyboardInterrupt):
    """Predictions that a signal stopped; the same request continues them. The message says how far they got."""

    def __init__(self, signal_number: int, text: str) -> None:
        self.signal_number = signal_number
        super().__init__(text)


@dataclass(frozen=True)
class Engine:
    """Where parts are computed.

    Attributes:
        name: local or ray.
        device: auto, cpu, cuda, cuda:1 or mps. With auto or cuda, each GPU gets a worker.
        workers: Number of processes; None for one per GPU, or per core without GPUs.
        address: Address of a Ray cluster; None for the one in `RAY_ADDRESS`, or for this machine.
    """

    name: str = "local"
    device: str = "auto"
    workers: int | None = None
    address: str | None = None

    def compute(self, job: Job, parts: Iterable[Numbered], num_parts: int) -> Generator[tuple[int, Part]]:
        """Yield the number and the table of each part, in any order."""
        if self.name == "ray":
            with connected(self.address) as ray:
                cluster = RayWorkers(ray, job, self.device, CORES)
                yield from do_parts(cluster, min(self.workers or cluster.count, num_parts), parts, num_parts)
            return
        device, cores = resolve_device(self.device), processes.usable_cores()
        devices = [str(device)]
        if self.device in ("auto", "cuda") and device.type == "cuda":
            devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
        usual = _usual_processes(job, cores) if device.type == "cpu" else len(devices)
        count = min(self.workers or usual, num_parts)
        if count > 1:
            yield from do_parts(LocalWorkers(job, devices, max(1, cores // count)), count, parts, num_parts)
            return
        job.predictor.model.to(devices[0])
        for number, images in parts:
            yield number, job.part(images)


def _usual_processes(job: Job, cores: int) -> int:
    """Return how many processes use all cores, but at most half of the memory."""
    weights = sum(weight.nbytes for weight in job.predictor.model.parameters())
    return max(1, min(cores // CORES, machine_memory_bytes() // (2 * (_PROCESS_BYTES + 2 * weights))))


def write_parts(
    out: Path, listing: Listing, job: Job, options: Mapping[str, Any], engine: Engine, listener: Listener
) -> PartFolder:
    """Write the parts of a folder that are not finished yet.

    Args:
        out: The folder, which may have been begun by the same request.
        listing: The images.
        job: The model, and what to write about each image.
        options: What the user asked for; the manifest records it.
        engine: Where the parts are computed. The tables do not depend on it, except for rounding errors.
        listener: Receives the event `reading` after each part.

    Returns:
        The complete folder.

    Raises:
        RunError: The folder belongs to another request, or workers died again and again.
        SaveError: A file could not be written.
        Stopped: A signal arrived.
    """
    request = make_request(job, {"count": len(listing), "sha256": listing.digest()}, options)
    with PartFolder.opened(out, request, listener) as folder:
        missing = folder.missing()
        num_done = len(listing) - sum(len(folder.images_of(number)) for number in missing)
        parts = ((number, [listing[image] for image in folder.images_of(number)]) for number in missing)

        def stop(number: int, frame: FrameType | None) -> None:
            done = f"{folder.num_parts - len(folder.missing()):,} of {plural(folder.num_parts, 'part')}"
            raise Stopped(number, f"out={out}: stopped; {done} are finished; run the same command again to continue")

        with stop_signals_handled(stop), closing(engine.compute(job, parts, len(missing))) as computed:
            listener("reading", {"what": "predicting", "done": num_done, "total": len(listing)})
            for number, part in computed if missing else ():
                folder.add(number, part)
                job.predictor.preprocess.scale.clipped.add(part.clipped)
                num_done += part.num_images
                listener("reading", {"what": "predicting", "done": num_done, "total": len(listing)})
    job.predictor.preprocess.scale.warn_of_clipped()
    return folder
