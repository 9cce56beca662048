"""One model, several devices -> the loss and gradient of the whole batch: replicated (DDP) or sharded (FSDP2)."""

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

if TYPE_CHECKING:  # loading it takes a second, and a single process never uses it
    from torch.distributed.tensor import DTensor


class Parallel:
    """A task on this process's images that sums the gradients of all processes in the backward pass.

    Gradients are summed, not averaged: each loss is a sum over images, already divided by the total of the whole batch.
    So the result is correct even if processes have different numbers of images.

    Source:
        PyTorch's DistributedDataParallel, where every device holds all weights and gradients are sent during the
        backward pass. PyTorch's FSDP2, where every device holds a shard of each weight and fetches one block at a time.
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
        """Return loss and logits of a micro-batch; only the backward pass of the last one sends gradients.

        The model is replicated here unless `shard` has sharded it. `total`, the divisor of the loss, is summed over all
        processes.
        """
        from torch.distributed.fsdp import FSDPModule

        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(is_last)
            return task(model, images, targets, total)
        replica = self._replica_of(task, model)
        with nullcontext() if is_last else replica.no_sync():
            return replica(images, targets, total)

    def _replica_of(self, task: Task, model: nn.Module) -> DistributedDataParallel:
        """Return the DDP module; build a new one when layers were frozen or unfrozen."""
        trained: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if self._replica is None or [*map(id, trained)] != [*map(id, self._trained)]:
            self._replica = DistributedDataParallel(_TaskAndModel(task, model))
            self._replica.register_comm_hook(None, _sum_gradients)
            self._trained = trained
        return self._replica


class _TaskAndModel(nn.Module):
    """A task and its model as one module, because DDP wraps a single forward and a task may call more of the model."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.model = model

    def forward(self, images: Images, targets: Labels | Probabilities, total: Tensor) -> tuple[Loss, Logits]:
        return self.task(self.model, images, targets, total)


def _sum_gradients(_: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:  # type: ignore[name-defined]
    work = dist.all_reduce(bucket.buffer(), async_op=True)
    return work.get_future().then(lambda done: done.value()[0])


def shard(model: VisionTransformer, group: Group) -> None:
    """Shard a model's parameters among the processes, in place, block by block; they become new tensor objects."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(next(model.parameters()).device.type, (group.size,))
    for module in (*model.encoder.blocks, model):
        # The root is resharded too, because its weights are read and averaged between two steps.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no sum with a factor


def is_sharded(tensor: object) -> "TypeGuard[DTensor]":
    """Return True if each process holds only a shard of this tensor."""
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Return the full tensor. If it is sharded, every process has to call this."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def sharded_like(tensors: Mapping[str, Tensor], present: Mapping[str, Any]) -> dict[str, Tensor]:
    """Shard full tensors, such as those of a checkpoint, like the tensors of the same names in `present`."""
    return {name: _sharded_like(tensor, present.get(name)) for name, tensor in tensors.items()}


def _sharded_like(tensor: Tensor, present: object) -> Tensor:
    if not is_sharded(present) or present.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    moved = tensor.to(present.device, present.dtype)
    return distribute_tensor(moved, present.device_mesh, present.placements, src_data_rank=None)
