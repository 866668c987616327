"""Local steps: a slot trains by itself for some mini-batches, and leaves how far it has come in place of a gradient."""

import time
from collections.abc import Callable, Mapping
from typing import TypeGuard

import torch
from torch.nn.utils import get_total_norm

from psgd.config import Job
from psgd.core.ids import Slot
from psgd.core.slot import Compute
from psgd.training.clipping import clip_gradient
from psgd.training.ticking import TickingOptimizer
from psgd.worker.compute import Computation, Supervised
from psgd.worker.replica import dense


def held_apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors for a `psgd.worker.replica.Replica`, which rebinds parameters to memory that nobody may write to.

    Args:
        tensors: a model's, by name.

    Returns:
        The same ones, but another parameter in place of each that is trained: that of the model keeps its memory.
    """
    # `.data`: a version counter for each, as what is done to the model's parameter is not done to the other.
    return {
        name: torch.nn.Parameter(tensor.data) if _is_trained(tensor) else tensor for name, tensor in tensors.items()
    }


def _is_trained(tensor: torch.Tensor) -> TypeGuard[torch.nn.Parameter]:
    return isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad


class LocalTraining:
    """The computation of slots that take local steps, see `psgd.core.local_steps.LocalSteps`.

    Mini-batch h of iteration t is the one that step t · steps + h would have without local steps, and is seeded as
    that. Its gradient is clipped, if the job clips, before the inner optimizer steps; one that is not finite is left as
    it is, so that Δ is not, either. A parameter that had no gradient in any of them has none; else its ``.grad`` is Δ.
    Buffers, which the model shares with the replica, are left as the last mini-batch leaves them.

    Args:
        tensors: of the model, by name.
        pulled: what the replica holds, see `held_apart`; its parameters get Δ in ``.grad``.
        supervised: computes mini-batches with that model.
    """

    def __init__(
        self,
        job: Job,
        tensors: Mapping[str, torch.Tensor],
        pulled: Mapping[str, torch.Tensor],
        supervised: Supervised,
    ) -> None:
        self._own = {name: tensor for name, tensor in tensors.items() if _is_trained(tensor)}
        self._pulled = {name: pulled[name] for name in self._own}
        self._supervised = supervised
        self._make_optimizer = job.optimizer
        self._schedule = job.schedule
        self._clip = job.clip
        self._mini_batches = job.rules.mini_batches
        self._samples = job.iteration_samples
        self._inner: dict[Slot, TickingOptimizer] = {}

    def __call__(self, order: Compute, slot: Slot, _before_last: Callable[[], None]) -> Computation:
        """Leave Δ of the slot's iteration in ``.grad`` of what was pulled."""
        began = time.perf_counter()
        with torch.no_grad():
            torch._foreach_copy_(list(self._own.values()), list(self._pulled.values()))
        inner = self._inner_of(slot)
        shares: list[torch.Tensor] = []
        moved: set[str] = set()
        lr: tuple[float, ...] = ()
        for mini_batch in range(order.step * self._mini_batches, (order.step + 1) * self._mini_batches):
            self._clear_gradients()
            shares += self._supervised.backward(mini_batch, slot, _nothing)
            moved |= self._clip_gradients()
            lr = inner.step(order.tick, order.lr_factor)
        self._clear_gradients()
        if not self._leave_difference(moved):
            del self._inner[slot]  # or NaN would stay in its state
        loss = sum(share.item() for share in shares) / self._mini_batches
        self._supervised.linger(order.step, slot, began)
        return Computation(loss, self._samples, time.perf_counter() - began, lr)

    def _inner_of(self, slot: Slot) -> TickingOptimizer:
        """The slot's optimizer, made when the first weights are there, which it may keep a copy of."""
        if slot not in self._inner:
            self._inner[slot] = TickingOptimizer(self._make_optimizer(list(self._own.items())), self._schedule)
        return self._inner[slot]

    def _clip_gradients(self) -> set[str]:
        """Clip them, if the job does; a sparse one is refused, as without local steps.

        Returns:
            The names of the parameters that have one.
        """
        gradients = {name: dense(name, own.grad) for name, own in self._own.items() if own.grad is not None}
        if self._clip is not None:
            clip_gradient(list(gradients.values()), self._clip)
        return set(gradients)

    def _clear_gradients(self) -> None:
        for own in self._own.values():
            own.grad = None

    @torch.no_grad()
    def _leave_difference(self, moved: set[str]) -> bool:
        """Let Δ take the place of gradients.

        Returns:
            Whether all of it is finite.
        """
        for name in moved:
            self._pulled[name].grad = self._pulled[name] - self._own[name]
        norm = get_total_norm([pulled.grad for pulled in self._pulled.values() if pulled.grad is not None])
        return bool(norm.isfinite())


def _nothing() -> None:
    """What a backward pass completes is not final: others follow."""
