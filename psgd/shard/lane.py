"""A lane: a share of a shard's slices with an optimizer of its own, updated by one thread."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from psgd.config import Clip, OptimizerFactory, ScheduleFactory
from psgd.core.corrections import Correction
from psgd.core.effects import How
from psgd.core.ids import Version
from psgd.core.layout import Layout, Part, Role, Slice, Span
from psgd.core.spans import without
from psgd.errors import InternalError
from psgd.shard.corrections import PastWeights, corrector_of
from psgd.shard.gathering import GatheredGradients
from psgd.shard.mean import Average
from psgd.training.clipping import SquareSums, clip_each
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
        correction: of gradients that come late, one by one, each clipped before.
        gathers: gradients are added up, as they come, before they are applied.
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
        correction: Correction | None = None,
        gathers: bool = False,
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
        self._mean_grads = self._cut(self._mean)
        self._weights = [parameter.detach() for _, parameter in self._parameters]
        self._corrector = corrector_of(correction)
        self._past = PastWeights(self._floats(memory))
        self._gathered = GatheredGradients(self._mean) if gathers else None
        self._sum_squares = SquareSums(layout, part)
        self._clip_each = None if clip is None or clip.norm is not None else clip
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
        mean = self._corrected(mean, skipped, how)
        return self._update(mean, self._grads(mean), skipped, self._counts(gradients[0]), how)

    def hold(self, now: Version, versions: Sequence[Version]) -> None:
        """Have copies of exactly these versions of the weights, see `psgd.core.effects.HoldWeights`."""
        self._past.hold(now, versions)

    def gather(self, gradient: Gradient, how: How, weight: float) -> tuple[float, ...]:
        """Add a gradient to those that the next update is made of; its memory is free again then.

        Args:
            weight: among them.

        Returns:
            The learning rates that it counts with, one a parameter group; empty without trainable slices.
        """
        values = self._limited(self._floats(gradient.memory), how.clip_scale)
        values = self._corrected(values, gradient.absent, how)
        if weight != 1.0:
            values = self._own(values)
            torch._foreach_mul_(self._mean_grads, weight)
        self._sums.add(values, gradient.absent, self._counts(gradient))
        if self._optimizer is None:
            return ()
        return self._optimizer.rates(how.tick, how.lr_factor)

    def apply_gathered(self, count: int, weight: float, how: How) -> tuple[float, ...]:
        """Update once with what was gathered.

        Args:
            count: of the gradients: what buffers are divided by.
            weight: of all of them together: what they are divided by.

        Returns:
            As `apply`.
        """
        sums, grads = self._sums, self._cut(self._sums.sum)
        sums.close(grads, weight, [_piece(sums.sum, piece) for piece, _ in self._buffers], count)
        return self._update(sums.sum, grads, sums.absent, sums.counts, how)

    @property
    def _sums(self) -> GatheredGradients:
        if self._gathered is None:
            raise InternalError("gradients are to be gathered in a lane that was made for single ones")
        return self._gathered

    def _update(
        self,
        mean: torch.Tensor,
        grads: Sequence[torch.Tensor],
        skipped: frozenset[int],
        counts: Sequence[torch.Tensor],
        how: How,
    ) -> tuple[float, ...]:
        """Let the optimizer step, then take over buffers and counters."""
        for grad, (piece, parameter) in zip(grads, self._parameters, strict=True):
            parameter.grad = None if piece.tensor in skipped else grad
        lr = self._step(how, self._positions(skipped))
        for piece, buffer in self._buffers:
            buffer.copy_(_piece(mean, piece))
        for (_, counter), count in zip(self._counters, counts, strict=True):
            counter.copy_(count)
        for _, parameter in self._parameters:
            parameter.grad = None  # the gradient's memory goes back to the plane
        return lr

    def _counts(self, gradient: Gradient) -> list[torch.Tensor]:
        """The gradient's counters, where they lie."""
        return [
            view(gradient.memory, piece.offset, counter.numel(), str(counter.dtype).removeprefix("torch."))
            for piece, counter in self._counters
        ]

    def _positions(self, absent: frozenset[int]) -> frozenset[int]:
        """The lane's parameters among these tensors of the layout."""
        return frozenset(n for n, (piece, _) in enumerate(self._parameters) if piece.tensor in absent)

    def _corrected(self, values: torch.Tensor, absent: frozenset[int], how: How) -> torch.Tensor:
        """The gradient, made up for what the weights have changed since; a copy if it is not as it was."""
        if self._corrector is None:
            return values
        missing = self._positions(absent)
        self._corrector.see(self._grads(values), missing)
        if how.pulled is None:
            return values
        values = self._own(values)
        pulled = self._cut(self._past.of(how.pulled))
        self._corrector.correct(self._mean_grads, self._weights, pulled, missing)
        return values

    def _limited(self, mean: torch.Tensor, scale: float) -> torch.Tensor:
        """The mean, clipped; of a single gradient the clipped one is a copy, as the memory is not the shard's own."""
        if scale == 1.0 and self._clip_each is None:
            return mean
        mean = self._own(mean)
        if scale != 1.0:
            torch._foreach_mul_(self._mean_grads, scale)
        if self._clip_each is not None:
            clip_each(self._mean_grads, self._clip_each)
        return mean

    def _grads(self, mean: torch.Tensor) -> list[torch.Tensor]:
        """The mean, cut and shaped as the parameters are."""
        return self._mean_grads if mean is self._mean else self._cut(mean)

    def _cut(self, values: torch.Tensor) -> list[torch.Tensor]:
        return [_piece(values, piece).view_as(parameter) for piece, parameter in self._parameters]

    def _own(self, values: torch.Tensor) -> torch.Tensor:
        """The same values in memory that may be changed."""
        return values if values is self._mean else self._mean.copy_(values)

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

    def _step(self, how: How, skipped: frozenset[int]) -> tuple[float, ...]:
        if self._optimizer is None:
            return ()
        if self._corrector is not None:
            rates = self._optimizer.rates_of([parameter for _, parameter in self._parameters], how.tick, how.lr_factor)
            self._corrector.watch(self._weights, rates, skipped)
        lr = self._optimizer.step(how.tick, how.lr_factor)
        if self._corrector is not None:
            self._corrector.moved(self._weights)
        return lr


def _places(gradients: Sequence[torch.Tensor]) -> tuple[int, ...]:
    return tuple(gradient.data_ptr() for gradient in gradients)


def _piece(mean: torch.Tensor, piece: Slice) -> torch.Tensor:
    """The slice's elements of the flat floating region."""
    start = piece.offset // 4
    return mean[start : start + piece.stop - piece.start]
