"""A lane: a share of a shard's slices with an optimizer of its own, updated by one thread."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from psgd.config import Clip, OptimizerFactory, ScheduleFactory
from psgd.core.clipping import clip_scale
from psgd.core.effects import How
from psgd.core.layout import Layout, Part, Role, Slice, Span
from psgd.core.spans import without
from psgd.shard.mean import Average
from psgd.training.clipping import SquareSums, norm
from psgd.training.ticking import TickingOptimizer
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


class Lane:
    """The tensors of one part's pushed span, and their update.

    Args:
        optimizer: called with (name, slice) pairs of the trainable slices.
        schedule: called with that optimizer.
        whole: slices are whole tensors and keep their shape; otherwise they are flat.
        memory: (part.pushed.bytes,) uint8, for the weights; gradients come on its device.
        average: takes their mean.
        clip: what their mean may be at most; its global norm comes as a scale with each update.
    """

    def __init__(
        self,
        layout: Layout,
        part: Part,
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None,
        whole: bool,
        memory: torch.Tensor,
        average: Average,
        clip: Clip | None = None,
    ) -> None:
        self._memory = memory
        self._take_mean = average
        self._floating = min(max(layout.floating_bytes - part.pushed.start, 0), part.pushed.bytes)
        self._mean = torch.empty(self._floating // 4, dtype=torch.float32, device=memory.device)
        self._prepared: list[Span] = []
        self._prepared_of: tuple[int, ...] = ()
        self._parameters: list[tuple[Slice, torch.nn.Parameter]] = []
        self._buffers: list[tuple[Slice, torch.Tensor]] = []
        self._counters: list[tuple[Slice, torch.Tensor]] = []
        self._place(layout, part, whole)
        self._named = [(layout.tensors[piece.tensor].name, parameter) for piece, parameter in self._parameters]
        self._mean_grads = [_piece(self._mean, piece).view_as(parameter) for piece, parameter in self._parameters]
        self._sum_squares = SquareSums(layout, part)
        self._clip_value = None if clip is None else clip.value
        self._clip_tensor_norm = None if clip is None else clip.tensor_norm
        self._make_optimizer = optimizer
        self._make_schedule = schedule
        self._optimizer: TickingOptimizer | None = None

    def _place(self, layout: Layout, part: Part, whole: bool) -> None:
        for piece in part.slices:
            spec = layout.tensors[piece.tensor]
            if spec.role is Role.FROZEN:
                continue
            tensor = view(self._memory, piece.offset, piece.stop - piece.start, spec.dtype)
            if spec.role is Role.PARAMETER:
                parameter = torch.nn.Parameter(tensor.view(spec.shape) if whole else tensor)
                self._parameters.append((piece, parameter))
            elif spec.role is Role.BUFFER:
                self._buffers.append((piece, tensor))
            else:
                self._counters.append((piece, tensor))

    def groups(self) -> int | None:
        """How many parameter groups the job's optimizer makes of this lane's slices; None: it does not take them."""
        if not self._named:
            return 0
        try:
            return len(self._make_optimizer(self._named).param_groups)
        except Exception:  # of the user's factory: with all slices of the shard it may do, or will be heard of
            return None

    def begin(self) -> None:
        """The first weights are there: make the optimizer, which may keep a copy of what it is to train."""
        if self._named:
            self._optimizer = TickingOptimizer(self._make_optimizer(self._named), self._make_schedule)

    def square_sums(self, gradients: Sequence[torch.Tensor]) -> list[float]:
        """Take the mean of the gradients, which an update with the same ones will use.

        Args:
            gradients: the lane's part of them, in slot order, at least one.

        Returns:
            Of the mean, see `psgd.training.clipping.SquareSums`.
        """
        mean = self._average(gradients)
        self._prepared_of, self._prepared = _places(gradients), [Span(0, self._mean.numel())]
        return self._sum_squares(mean)

    def apply(self, gradients: Sequence[Gradient], how: How) -> tuple[float, ...]:
        """Update once with the mean of the gradients, added in the order given.

        Args:
            gradients: the lane's part of them, at least one.

        Returns:
            The learning rates used, one a parameter group; empty without trainable slices.
        """
        mean = self._limited(self._average([gradient.memory for gradient in gradients]), how.clip_scale)
        skipped = frozenset.intersection(*(gradient.absent for gradient in gradients))
        for grad, (piece, parameter) in zip(self._grads(mean), self._parameters, strict=True):
            parameter.grad = None if piece.tensor in skipped else grad
        lr = () if self._optimizer is None else self._optimizer.step(how.tick, how.lr_factor)
        for piece, buffer in self._buffers:
            buffer.copy_(_piece(mean, piece))
        for piece, counter in self._counters:
            newest = view(gradients[0].memory, piece.offset, counter.numel(), str(counter.dtype).removeprefix("torch."))
            counter.copy_(newest)
        for _, parameter in self._parameters:
            parameter.grad = None  # the gradient's memory goes back to the plane
        return lr

    def _limited(self, mean: torch.Tensor, scale: float) -> torch.Tensor:
        """The mean, clipped; of a single gradient the clipped one is a copy, as the memory is not the shard's own."""
        if scale == 1.0 and self._clip_value is None and self._clip_tensor_norm is None:
            return mean
        if mean is not self._mean:
            mean = self._mean.copy_(mean)
        if scale != 1.0:
            torch._foreach_mul_(self._mean_grads, scale)
        for grad in self._mean_grads:
            if self._clip_value is not None:
                grad.clamp_(-self._clip_value, self._clip_value)
            if self._clip_tensor_norm is not None:
                grad.mul_(clip_scale(norm(grad.view(-1)), self._clip_tensor_norm))
        return mean

    def _grads(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """The mean, cut and shaped as the parameters are."""
        if mean is self._mean:
            return self._mean_grads
        return [_piece(mean, piece).view_as(parameter) for piece, parameter in self._parameters]

    def prepare(self, gradients: Sequence[torch.Tensor], ready: Span) -> None:
        """Average some bytes already, of gradients that will come whole.

        Args:
            gradients: the lane's part of them, in slot order.
            ready: bytes of the lane that are final in all of them.
        """
        places = _places(gradients)
        if places != self._prepared_of:
            self._prepared_of, self._prepared = places, []
        span = Span(-(-ready.start // 4), min(ready.stop, self._floating) // 4)  # elements that are there whole
        if span.bytes > 0 and len(gradients) > 1:
            self._average_over([self._floats(gradient) for gradient in gradients], span)
            self._prepared.append(span)

    def forget(self) -> None:
        """What was prepared does not count."""
        self._prepared_of, self._prepared = (), []

    def _floats(self, memory: torch.Tensor) -> torch.Tensor:
        return memory[: self._floating].view(torch.float32)

    def _average(self, gradients: Sequence[torch.Tensor]) -> torch.Tensor:
        """(g₀ + g₁ + …)/n in float32, in that order: (floating elements,)."""
        floats = [self._floats(gradient) for gradient in gradients]
        if len(floats) == 1:
            return floats[0]
        prepared = self._prepared if _places(gradients) == self._prepared_of else []
        for rest in without(Span(0, self._mean.numel()), prepared):
            self._average_over(floats, rest)
        return self._mean

    def _average_over(self, gradients: Sequence[torch.Tensor], span: Span) -> None:
        """Average some elements."""
        cut = slice(span.start, span.stop)
        self._take_mean([gradient[cut] for gradient in gradients], self._mean[cut])


def _places(gradients: Sequence[torch.Tensor]) -> tuple[int, ...]:
    return tuple(gradient.data_ptr() for gradient in gradients)


def _piece(mean: torch.Tensor, piece: Slice) -> torch.Tensor:
    """The slice's elements of the flat floating region."""
    start = piece.offset // 4
    return mean[start : start + piece.stop - piece.start]
