"""From the plan to tensors: the batch of a (step, slot), and the same batches for people's own loops."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from psgd.data.datasets import ArrayDataset
from psgd.data.sampler import BatchPlan, seed_everything
from psgd.errors import ConfigurationError

Batch = tuple[Any, Any]  # inputs and targets: tensors, or what torch's default_collate makes of the samples


class MapDataset(Protocol):
    """What every map-style data set of torch offers; a sample is a pair of an input and a target."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """The sample at the index."""


def collate(dataset: MapDataset, indices: Tensor) -> Batch:
    """Put the samples at ``indices``, int64 (B,), into one batch.

    Data sets that are tensors already (psgd's own, ``TensorDataset``) cost one gather a tensor, others one
    call a sample.

    Returns:
        Inputs and targets, each with B in front.

    Raises:
        ConfigurationError: the samples are no pairs.
    """
    batch: object
    if isinstance(dataset, ArrayDataset):
        batch = dataset.batch(indices)
    elif type(dataset) is TensorDataset:  # a subclass may do something else in __getitem__
        batch = dataset[indices]
    elif hasattr(dataset, "__getitems__"):
        batch = default_collate(dataset.__getitems__(indices.tolist()))
    else:
        batch = default_collate([dataset[index] for index in indices.tolist()])
    if not isinstance(batch, Sequence) or len(batch) != 2:
        kind = f"{len(batch)} values" if isinstance(batch, Sequence) else type(batch).__name__
        raise ConfigurationError(f"the data set's samples must be pairs of (input, target), got {kind}")
    return batch[0], batch[1]


def draw_batch(dataset: MapDataset, plan: BatchPlan, step: int, slot: int) -> Batch:
    """Seed everything for (step, slot) and draw its batch.

    The random state that this leaves is what the forward pass goes on with, so transforms and dropout are
    functions of (seed, step, slot), too.
    """
    seed_everything(plan.seed, step, slot)
    return collate(dataset, plan.indices(step, slot))


def to_device(value: Any, device: torch.device) -> Any:
    """Inputs or targets, nested as ``default_collate`` nests them, with every tensor on the device."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_device(item, device) for item in value]
    return value


class Batches(Iterator[Batch]):
    """The batches of one slot, step after step.

    Attributes:
        plan: the division of the data set into epochs, steps and slots.
        step: the step whose batch comes next, which is where to resume.
    """

    def __init__(self, dataset: MapDataset, plan: BatchPlan, *, slot: int, start: int, steps: int | None) -> None:
        """Iterate over the steps from ``start`` to before ``steps`` (None: without end)."""
        if not 0 <= slot < plan.slots:
            raise ConfigurationError(f"slot must be >= 0 and < slots = {plan.slots}, got {slot}")
        if start < 0:
            raise ConfigurationError(f"start must be >= 0, got {start}")
        self._dataset = dataset
        self._slot = slot
        self._steps = steps
        self.plan = plan
        self.step = start

    def __iter__(self) -> Self:
        """Go on at ``step``."""
        return self

    def __next__(self) -> Batch:
        """Seed everything for the next step and draw its batch."""
        if self._steps is not None and self.step >= self._steps:
            raise StopIteration
        batch = draw_batch(self._dataset, self.plan, self.step, self._slot)
        self.step += 1
        return batch


def batches(
    dataset: MapDataset,
    *,
    batch_size: int,
    slot: int,
    slots: int,
    seed: int,
    start: int = 0,
    steps: int | None = None,
) -> Batches:
    """The batches that the built-in loop would draw for a slot, for a loop of your own.

    Args:
        dataset: a map-style data set of (input, target) pairs.
        batch_size: samples a slot draws in one step.
        slot: which slot, from 0.
        slots: how many there are.
        seed: the run's seed.
        start: the step to begin with; to resume, the ``step`` that the interrupted iterable had.
        steps: the run's number of steps, counted from 0 and not from ``start``; None goes on without end.

    Raises:
        ConfigurationError: a number is out of range, or the data set is smaller than one step.

    Example:
        >>> dataset = TensorDataset(torch.arange(8.0), torch.arange(8))
        >>> drawn = batches(dataset, batch_size=2, slot=0, slots=2, seed=0, steps=3)
        >>> [inputs.shape for inputs, targets in drawn], drawn.step
        ([torch.Size([2]), torch.Size([2]), torch.Size([2])], 3)
    """
    plan = BatchPlan(samples=len(dataset), slots=slots, batch_size=batch_size, seed=seed)
    return Batches(dataset, plan, slot=slot, start=start, steps=steps)
