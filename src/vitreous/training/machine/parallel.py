"""One model on several devices -> the loss and gradient of the whole batch: replicated (DDP) or sharded (FSDP2)."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vitreous.model.vit import VisionTransformer
from vitreous.objective.task import Task
from vitreous.tensors import Images, Labels, Logits, Loss, Probabilities
from vitreous.training.machine.distributed import Group

if TYPE_CHECKING:  # takes a second to load, and who trains alone has no use for it
    from torch.distributed.tensor import DTensor


class Parallel:
    """Runs a task on this process's images; the backward adds up the gradients of all processes.

    They are added, not averaged: each loss is a sum over images that is divided by the total of the whole batch, so
    that parts of unequal size count what they hold.

    Args:
        group: Who takes part, at least two.

    Source: PyTorch's DistributedDataParallel, which holds all weights on each device and sends gradients during the
        backward; its FSDP2, which holds of everything a part on each device and fetches one block at a time.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._replica: DistributedDataParallel | None = None
        self._trained: list[Tensor] = []

    def run(
        self,
        task: Task,
        model: nn.Module,
        images: Images,
        targets: Labels | Probabilities,
        total: Tensor,
        *,
        is_last: bool,
    ) -> tuple[Loss, Logits]:
        """As the task's forward; only the backward of the last part of a batch sends gradients.

        Args:
            task: What is minimised.
            model: Replicated here unless `shard` has divided it.
            images: This process's.
            targets: This process's.
            total: Of the batch of all processes.
            is_last: Whether no further part of the batch follows.
        """
        from torch.distributed.fsdp import FSDPModule

        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
            return task(model, images, targets, total)
        replica = self._replica_of(task, model)
        with nullcontext() if is_last else replica.no_sync():
            return replica(images, targets, total)

    def _replica_of(self, task: Task, model: nn.Module) -> DistributedDataParallel:
        """The model that sends gradients; made anew when parts of it are frozen or let go."""
        trained: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self._replica is None or [*map(id, trained)] != [*map(id, self._trained)]:
            self._replica = DistributedDataParallel(_Driven(task, model))
            self._replica.register_comm_hook(None, _add_up)
            self._trained = trained
        return self._replica


class _Driven(nn.Module):
    """A task may ask a model for more than its forward; what is replicated is thus both."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.model = model

    def forward(self, images: Images, targets: Labels | Probabilities, total: Tensor) -> tuple[Loss, Logits]:
        return self.task(self.model, images, targets, total)


def _add_up(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def shard(model: VisionTransformer, group: Group) -> None:
    """Divide a model's parameters among the processes, in place, block by block; they become other objects."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (group.size,))
    for part in (*model.encoder.blocks, model):
        # The root too gives back what it fetched: its weights are read and averaged between two steps.
        fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no sum with a factor


def is_divided(tensor: object) -> "TypeGuard[DTensor]":
    """Whether each process has a part of this tensor."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be divided among the processes; then all of them must ask."""
    return tensor.full_tensor() if is_divided(tensor) else tensor


def divided_like(tensors: Mapping[str, Tensor], present: Mapping[str, Any]) -> dict[str, Tensor]:
    """Whole tensors, each divided as the one that is present under its name: what a process takes of a checkpoint."""
    return {name: _divided(tensor, present.get(name)) for name, tensor in tensors.items()}


def _divided(tensor: Tensor, present: object) -> Tensor:
    if not is_divided(present) or present.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    moved = tensor.to(present.device, present.dtype)
    return distribute_tensor(moved, present.device_mesh, present.placements, src_data_rank=None)
