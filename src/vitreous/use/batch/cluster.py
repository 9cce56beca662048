"""A Ray cluster -> workers: actors, each with its share of the cores or with a GPU, on any machine of the cluster.

Workers read the images. Their tables return to the first process, which writes all files, so only the images have to be
in a place that every machine can read. Ray's own retries are not used: an actor that Ray restarts keeps its part while
it waits for a machine, although other actors are idle.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vitreous.data.sources.source import first_line
from vitreous.errors import ConfigError, optional_module
from vitreous.use.batch.job import Job, Part
from vitreous.use.batch.workers import Death, Worker, Workers
from vitreous.use.predict.listing import Named


class RayWorkers(Workers):
    """Actors of a cluster that this process is connected to.

    Args:
        ray: The module.
        job: What they do; each machine receives it once.
        device: auto, cpu or cuda; auto takes GPUs if the cluster has any.
        cores: Cores of a worker without a GPU. With one, it gets its share of the machine.

    Attributes:
        count: How many workers the cluster has room for.
    """

    def __init__(self, ray: Any, job: Job, device: str, cores: int) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device={device}: Ray chooses the GPUs of a cluster; use auto, cpu or cuda")
        machines = [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
        with_gpus = [machine for machine in machines if machine.get("GPU", 0) >= 1]
        self._ray, self._job, self._class = ray, ray.put(job), ray.remote(_Classifier)
        self._device = "cpu" if device == "cpu" or (device == "auto" and not with_gpus) else "cuda"
        if self._device == "cuda":
            cores = min([max(1, int(m.get("CPU", 1) // m["GPU"])) for m in with_gpus], default=1)
            self.count = sum(int(machine["GPU"]) for machine in with_gpus)
        else:
            self.count = sum(int(machine.get("CPU", 0) // cores) for machine in machines)
        if not self.count and device == "cuda":
            raise ConfigError("device=cuda: the Ray cluster has no GPU; use auto or cpu")
        self._cores, self.count = cores, max(1, self.count)

    def start(self) -> Worker:
        """Ask the cluster for an actor; it starts as soon as there is room for it."""
        actor = self._class.options(num_cpus=self._cores, num_gpus=int(self._device == "cuda")).remote()
        return _RayWorker(self._ray, actor, actor.begin.remote(self._job, self._device, self._cores))

    def finished(self, busy: Sequence[Worker]) -> list[Worker]:
        """Wait until an actor has finished or died."""
        by_result = {worker.promised: worker for worker in busy if isinstance(worker, _RayWorker)}
        return [by_result[promised] for promised in self._ray.wait(list(by_result))[0]]


class _RayWorker(Worker):
    """An actor; `promised` is what it is working on."""

    def __init__(self, ray: Any, actor: Any, promised: Any) -> None:
        self._ray, self._actor, self.promised = ray, actor, promised

    def begin(self, images: Sequence[Named]) -> None:
        self.promised = self._actor.part.remote(images)

    def result(self) -> Part | Death | None:
        try:
            return self._ray.get(self.promised)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            return Death(first_line(error))

    def stop(self) -> None:
        self._ray.kill(self._actor)


class _Classifier:
    """What an actor does."""

    def begin(self, job: Job, device: str, cores: int) -> None:
        self._job = job
        job.begin(device, cores)

    def part(self, images: Sequence[Named]) -> Part:
        return self._job.part(images)


def import_ray() -> Any:
    """Return the module ray. Raises MissingDependencyError if it is not installed."""
    return optional_module("ray", "engine=ray", "run `pip install 'vitreous[ray]'`")


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Context manager that gives the module ray, connected to a cluster: that of the address, or of `RAY_ADDRESS`.

    Without either, a cluster of this machine is started, which ends with the context.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: The cluster cannot be reached.
    """
    ray = import_ray()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        signal.signal(signal.SIGTERM, handler)  # Ray exits without a message
    except Exception as error:  # a ConnectionError, a RuntimeError, or an error of gRPC
        way_out = "check the address, or leave it out to use this machine"
        raise ConfigError(f"address={address}: no Ray cluster was reached ({first_line(error)}); {way_out}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
