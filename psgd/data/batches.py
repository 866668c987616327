"""From the plan to tensors: the batch of a (step, slot)."""

from collections.abc import Sequence
from typing import Any, Protocol

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
