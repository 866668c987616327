"""A shard's weights and optimizer state: real ``torch.optim`` optimizers over slices of one flat memory."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

from psgd.config import Clip, Job, OptimizerFactory, ScheduleFactory
from psgd.core.clipping import ExactSum, add_exactly
from psgd.core.corrections import Correction
from psgd.core.effects import How
from psgd.core.ids import Shard, Version
from psgd.core.layout import Layout, Part, Span
from psgd.core.modes import Async, Sync
from psgd.shard.lane import Gradient, Lane
from psgd.shard.workplace import InPlace, MakeWorkplace, workplace_on
from psgd.training.outer import clip_of, update_of

Share = TypeVar("Share")
Done = TypeVar("Done")

LANE_BYTES = 4 * 2**20
MOST_LANES = 8
"""More would wait for memory, not for cores."""


class ShardState:
    """The tensors of one shard, and the update.

    Lanes are to a shard what shards are to a job: parts that follow one another, each with an optimizer of its own.
    Their number changes no bit.

    Args:
        lanes: the parts that the shard's part is cut into, one a thread.
        optimizer: called by each lane with (name, slice) pairs of its trainable slices.
        schedule: called with that optimizer.
        whole: slices are whole tensors and keep their shape; otherwise they are flat.
        memory: zeroed, (bytes of all lanes,) uint8: the pushed part, then the frozen one.
        make_workplace: makes the place where the weights are updated.
        clip: what gradients may be at most.
        correction: of gradients that come late.
        gathers: gradients are added up, as they come, before they are applied.
    """

    def __init__(
        self,
        layout: Layout,
        lanes: Sequence[Part],
        optimizer: OptimizerFactory,
        schedule: ScheduleFactory | None,
        whole: bool,
        memory: torch.Tensor,
        make_workplace: MakeWorkplace = InPlace,
        clip: Clip | None = None,
        correction: Correction | None = None,
        gathers: bool = False,
    ) -> None:
        self.memory = memory
        """The pushed part, then the frozen one, as planes serve them."""
        start = lanes[0].pushed.start
        self.pushed_bytes = lanes[-1].pushed.stop - start
        self._spans = [Span(lane.pushed.start - start, lane.pushed.stop - start) for lane in lanes]
        self._workplace = make_workplace(memory, self.pushed_bytes)
        here = self._workplace.memory
        average = self._workplace.average
        self._lanes = [
            Lane(layout, lane, optimizer, schedule, whole, _cut(here, span), average, clip, correction, gathers)
            for lane, span in zip(lanes, self._spans, strict=True)
        ]
        self._threads = ThreadPoolExecutor(len(lanes), "psgd-lane") if len(lanes) > 1 else None

    @classmethod
    def of(cls, job: Job, shard: Shard, memory: torch.Tensor, cores: int) -> "ShardState":
        """The state of a job's shard, in as many lanes as pay.

        Args:
            memory: zeroed, (part.bytes,) uint8.
            cores: of the host.

        Raises:
            ResourceError: if the job wants a device for it that this process has not.
        """
        (optimizer, schedule), rules = update_of(job.optimizer, job.schedule, job.rules.local_steps), job.rules
        clip, gathers = clip_of(job.clip, rules.local_steps), isinstance(rules.mode, Async) and rules.mode.gather > 1

        def in_lanes(count: int) -> "ShardState":
            lanes, place = job.lanes(shard, count), workplace_on(job.shard_device)
            updating = (optimizer, schedule, job.whole)
            return cls(job.layout, lanes, *updating, memory, place, clip, rules.correction, gathers)

        alone, lanes = in_lanes(1), lanes_for(job, shard, cores)
        if lanes == 1:
            return alone
        several = in_lanes(lanes)
        # Lanes whose optimizers are made of other groups than the shard's would have no learning rates to show.
        groups = alone._lanes[0].groups()
        return several if all(lane.groups() in (0, groups) for lane in several._lanes) else alone

    def load(self, memory: torch.Tensor) -> None:
        """Take the first weights, then make the optimizers.

        Args:
            memory: as `memory` is.
        """
        self.memory.copy_(memory)
        self._workplace.load()
        for lane in self._lanes:
            lane.begin()

    def prepare(self, gradients: Sequence[torch.Tensor], ready: Span) -> None:
        """Average some bytes already, of gradients that will come whole.

        Args:
            gradients: (pushed_bytes,) uint8 each, in slot order.
            ready: bytes that are final in all of them.
        """
        here = self._workplace.bring(gradients, ready)
        for lane, span in zip(self._lanes, self._spans, strict=True):
            start, stop = max(ready.start, span.start), min(ready.stop, span.stop)
            if start < stop:
                share = [_cut(gradient, span) for gradient in here]
                lane.prepare(share, Span(start - span.start, stop - span.start))

    def forget(self) -> None:
        """What was prepared does not count."""
        self._workplace.forget()
        for lane in self._lanes:
            lane.forget()

    def measure(self, gradients: Sequence[torch.Tensor]) -> ExactSum:
        """Take the mean of the gradients; an update with the same ones, if it comes next, takes it as it is.

        Args:
            gradients: (pushed_bytes,) uint8 each, in slot order, at least one.

        Returns:
            The sum of the squares of the mean's parameters, exactly.
        """
        here = self._workplace.bring(gradients, Span(0, self.pushed_bytes))
        shares = [[_cut(gradient, span) for gradient in here] for span in self._spans]
        return add_exactly([each for sums in self._each(Lane.square_sums, shares) for each in sums])

    def apply(self, gradients: Sequence[Gradient], how: How) -> tuple[float, ...]:
        """Update once with the mean of the gradients, added in the order given.

        The mean is (g₀ + g₁ + …)/n in float32, in that order; a parameter that is absent from all of them is skipped.

        Args:
            gradients: at least one.

        Returns:
            The learning rates used, one a parameter group; empty without trainable slices.
        """
        used = self._each(partial(Lane.apply, how=how), self._shares(gradients))
        self._workplace.publish()
        self.forget()
        return next((lr for lr in used if lr), ())

    def hold(self, now: Version, versions: Sequence[Version]) -> None:
        """Have copies of exactly these versions of the weights, see `psgd.core.effects.HoldWeights`."""
        for lane in self._lanes:
            lane.hold(now, versions)

    def gather(self, gradient: Gradient, how: How, weight: float) -> tuple[float, ...]:
        """Add a gradient to those that the next update is made of; its memory is free again then.

        Args:
            weight: among them.

        Returns:
            The learning rates that it counts with, one a parameter group; empty without trainable slices.
        """
        shares = [share for (share,) in self._shares([gradient])]
        used = self._each(partial(Lane.gather, how=how, weight=weight), shares)
        self._workplace.finish_reading()
        self.forget()
        return next((lr for lr in used if lr), ())

    def apply_gathered(self, count: int, weight: float, how: How) -> tuple[float, ...]:
        """Update once with what was gathered since the last time.

        Args:
            count: of the gradients.
            weight: of all of them together.

        Returns:
            As `apply`.
        """
        used = self._each(partial(Lane.apply_gathered, weight=weight, how=how), [count] * len(self._lanes))
        self._workplace.publish()
        return next((lr for lr in used if lr), ())

    def _shares(self, gradients: Sequence[Gradient]) -> list[list[Gradient]]:
        """Each lane's part of the gradients, where it is updated."""
        here = self._workplace.bring([gradient.memory for gradient in gradients], Span(0, self.pushed_bytes))
        return [
            [Gradient(_cut(m, span), gradient.absent) for m, gradient in zip(here, gradients, strict=True)]
            for span in self._spans
        ]

    def _each(self, work: Callable[[Lane, Share], Done], shares: Sequence[Share]) -> list[Done]:
        """Let each lane do its share, all at the same time."""
        if self._threads is None:
            return [work(lane, share) for lane, share in zip(self._lanes, shares, strict=True)]
        return list(self._threads.map(work, self._lanes, shares))


def lanes_for(job: Job, shard: Shard, cores: int) -> int:
    """How many threads update a shard.

    In rounds the workers wait meanwhile, so the cores are free, and the shards of the host share them; on arrival the
    workers go on computing. A lane below `LANE_BYTES` is not worth its thread. On a device one thread is enough.
    """
    if job.shard_device != "cpu" or not isinstance(job.rules.mode, Sync):
        return 1
    size = job.parts()[shard].pushed.bytes
    return max(1, min(cores // job.rules.shards, size // LANE_BYTES, MOST_LANES))


def _cut(memory: torch.Tensor, span: Span) -> torch.Tensor:
    return memory[span.start : span.stop]
