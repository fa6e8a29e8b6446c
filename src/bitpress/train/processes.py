"""Several processes that train one model: each computes some of a step's batches, and all make the same step.

A step is cut into batches as for one process with that many more ``accumulate``, so that W processes compute what one
does with W times as many batches a step, up to the order in which gradients are added. Only the first process writes;
the others get from it what it measured or read.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

T = TypeVar("T")


class Processes:
    """This process among those that train together: one, unless a launcher started more (``accelerate launch``)."""

    def __init__(self, accelerator: Accelerator) -> None:
        self.rank, self.count = accelerator.process_index, accelerator.num_processes
        self._accelerator = accelerator
        if self.count > 1:
            atexit.register(_leave)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @contextmanager
    def first_one_first(self) -> Iterator[None]:
        """The first process runs what is inside before the others do."""
        if self.count == 1:
            yield
            return
        with self._accelerator.main_process_first():
            yield

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self._accelerator.wait_for_everyone()

    def shared(self, value: T) -> T:
        """The first process's ``value``, of anything that can be pickled; what the others give is ignored."""
        if self.count == 1:
            return value
        values: list[Any] = [value]
        broadcast_object_list(values)
        shared: T = values[0]
        return shared

    def share_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The first process's numbers, in place, in tensors of the same names and shapes."""
        if self.count > 1:
            for name in sorted(tensors):
                dist.broadcast(tensors[name], 0)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Every parameter's gradient becomes the sum over all processes; none where none has one."""
        if self.count == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        device = trained[0].device
        has = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=device)
        dist.all_reduce(has, dist.ReduceOp.MAX)
        used = [p for p, one in zip(trained, has.tolist(), strict=True) if one]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
            parameter.grad = part.view_as(parameter)

    def add_numbers(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum over all processes of each number; a process may lack some."""
        if self.count == 1:
            return dict(numbers)
        gathered: list[Any] = [None] * self.count
        dist.all_gather_object(gathered, dict(numbers))
        total: dict[str, float] = {}
        for one in gathered:
            for name, number in one.items():
                total[name] = total.get(name, 0.0) + number
        return total


def _leave() -> None:
    """End the threads of the process group: those that outlive the interpreter abort the process now and then."""
    if dist.is_initialized():
        dist.destroy_process_group()
