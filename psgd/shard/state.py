"""A shard's weights and optimizer state: a real ``torch.optim.Optimizer`` over slices of one flat memory."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from psgd.config import OptimizerFactory, ScheduleFactory
from psgd.core.layout import Layout, Part, Role, Slice
from psgd.training.optimizers import use_fused
from psgd.transport.flat import view


@dataclass(frozen=True, slots=True)
class Gradient:
    """A slot's staged push.

    Args:
        memory: (part.pushed.bytes,) uint8: gradients, then new values of buffers and counters.
        absent: indices, in the layout, of the parameters without a gradient; their bytes are zero.
    """

    memory: torch.Tensor
    absent: frozenset[int]


class ShardState:
    """The tensors of one part, and the update.

    Args:
        optimizer: called with (name, slice) pairs of the trainable slices.
        schedule: called with that optimizer.
        whole: slices are whole tensors and keep their shape; otherwise they are flat.
        memory: (part.bytes,) uint8, zeroed, for the weights.
    """

    def __init__(
        self,
        layout: Layout,
        part: Part,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None,
        whole: bool,
        memory: torch.Tensor,
    ) -> None:
        self.memory = memory
        """(part.bytes,) uint8: the pushed part, then the frozen one."""
        self.pushed_bytes = part.pushed.bytes
        self._floating = min(max(layout.floating_bytes - part.pushed.start, 0), part.pushed.bytes)
        self._mean = torch.empty(self._floating // 4, dtype=torch.float32)
        self._parameters: list[tuple[Slice, torch.nn.Parameter]] = []
        self._buffers: list[tuple[Slice, torch.Tensor]] = []
        self._counters: list[tuple[Slice, torch.Tensor]] = []
        self._place(layout, part, whole)
        self._named = [(layout.tensors[piece.tensor].name, parameter) for piece, parameter in self._parameters]
        self._make_optimizer = optimizer
        self._make_schedule = schedule
        self._optimizer: torch.optim.Optimizer | None = None
        self._schedule: torch.optim.lr_scheduler.LRScheduler | None = None
        self._ticks = 0

    def _place(self, layout: Layout, part: Part, whole: bool) -> None:
        for piece in part.slices:
            spec = layout.tensors[piece.tensor]
            tensor = view(self.memory, piece.offset, piece.stop - piece.start, spec.dtype)
            if spec.role is Role.PARAMETER:
                parameter = torch.nn.Parameter(tensor.view(spec.shape) if whole else tensor)
                self._parameters.append((piece, parameter))
            elif spec.role is Role.BUFFER:
                self._buffers.append((piece, tensor))
            elif spec.role is Role.COUNTER:
                self._counters.append((piece, tensor))

    def load(self, memory: torch.Tensor) -> None:
        """Take the first weights, then make the optimizer: one may keep a copy of what it is to train.

        Args:
            memory: (part.bytes,) uint8: the pushed part, then the frozen one.
        """
        self.memory.copy_(memory)
        if self._named:
            self._optimizer = self._make_optimizer(self._named)
            use_fused(self._optimizer)
            self._schedule = None if self._make_schedule is None else self._make_schedule(self._optimizer)

    def apply(self, gradients: Sequence[Gradient], tick: int) -> tuple[float, ...]:
        """Update once with the mean of the gradients, added in the order given.

        The mean is (g₀ + g₁ + …)/n in float32, in that order; a parameter that is absent from all of them is skipped.

        Args:
            gradients: at least one.
            tick: the schedule is brought to this many ticks first.

        Returns:
            The learning rates used, one a parameter group; empty without trainable slices.
        """
        mean = self._average(gradients)
        skipped = frozenset.intersection(*(gradient.absent for gradient in gradients))
        for piece, parameter in self._parameters:
            grad = None if piece.tensor in skipped else _piece(mean, piece).view_as(parameter)
            parameter.grad = grad
        lr = self._step(tick)
        for piece, buffer in self._buffers:
            buffer.copy_(_piece(mean, piece))
        for piece, counter in self._counters:
            newest = view(gradients[0].memory, piece.offset, counter.numel(), str(counter.dtype).removeprefix("torch."))
            counter.copy_(newest)
        for _, parameter in self._parameters:
            parameter.grad = None  # the gradient's memory goes back to the plane
        return lr

    def _average(self, gradients: Sequence[Gradient]) -> torch.Tensor:
        """(floating elements,) float32."""
        first, *others = (gradient.memory[: self._floating].view(torch.float32) for gradient in gradients)
        if not others:
            return first
        torch.add(first, others[0], out=self._mean)
        for other in others[1:]:
            self._mean.add_(other)
        return self._mean.div_(len(gradients))

    def _step(self, tick: int) -> tuple[float, ...]:
        if self._optimizer is None:
            return ()
        if self._schedule is not None:
            with warnings.catch_warnings():
                # A step that closes without an update ticks before the optimizer's first step: torch warns of that.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
                for _ in range(tick - self._ticks):
                    self._schedule.step()
            self._ticks = max(self._ticks, tick)
        lr = tuple(float(group["lr"]) for group in self._optimizer.param_groups)
        self._optimizer.step()
        return lr


def _piece(mean: torch.Tensor, piece: Slice) -> torch.Tensor:
    """The slice's elements of the flat floating region."""
    start = piece.offset // 4
    return mean[start : start + piece.stop - piece.start]
