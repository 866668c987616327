import random

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from psgd.data.batches import collate, draw_batch, to_device
from psgd.data.datasets import load
from psgd.data.sampler import BatchPlan
from psgd.errors import ConfigurationError

INDICES = torch.tensor([3, 0, 3])


class Noisy(Dataset[tuple[Tensor, int]]):
    """Adds noise of all three generators to the index, like a data transform."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return index + torch.rand(()) + float(np.random.rand()) + random.random(), index


class Mirrored(TensorDataset):
    """A TensorDataset that changes every second sample, as an augmentation does, one index at a time."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        sign = -1 if index % 2 else 1
        return tuple(sign * tensor[index] for tensor in self.tensors)


def squares() -> TensorDataset:
    return TensorDataset(torch.arange(6.0), torch.arange(6) ** 2)


def test_tensors_are_gathered() -> None:
    inputs, targets = collate(squares(), INDICES)
    assert inputs.tolist() == [3.0, 0.0, 3.0]
    assert targets.tolist() == [9, 0, 9]


def test_a_subclass_is_asked_for_each_sample() -> None:
    inputs, targets = collate(Mirrored(*squares().tensors), INDICES)
    assert inputs.tolist() == [-3.0, 0.0, -3.0]
    assert targets.tolist() == [-9, 0, -9]


def test_a_subset_is_asked_for_all_samples_at_once() -> None:
    inputs, targets = collate(Subset(squares(), [5, 4, 3, 2]), INDICES)
    assert inputs.tolist() == [2.0, 5.0, 2.0]
    assert targets.tolist() == [4, 25, 4]


def test_the_built_in_data_sets_give_the_same_batch_as_sample_by_sample() -> None:
    digits = load("digits").test
    inputs, labels = collate(digits, INDICES)
    one_by_one = collate(Subset(digits, list(range(len(digits)))), INDICES)
    assert torch.equal(inputs, one_by_one[0])
    assert torch.equal(labels, one_by_one[1])


def test_samples_that_are_no_pairs_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"must be pairs of \(input, target\), got 1 values$"):
        collate(TensorDataset(torch.arange(6)), INDICES)
    with pytest.raises(ConfigurationError, match=r"must be pairs of \(input, target\), got Tensor$"):
        collate(torch.arange(6), INDICES)


def test_a_drawn_batch_is_a_function_of_step_and_slot_alone() -> None:
    plan = BatchPlan(samples=12, slots=2, batch_size=3, seed=5)
    first, _ = draw_batch(Noisy(), plan, step=1, slot=1)
    dropout = torch.rand(4)
    other, _ = draw_batch(Noisy(), plan, step=1, slot=0)
    again, targets = draw_batch(Noisy(), plan, step=1, slot=1)
    assert torch.equal(first, again)
    assert torch.equal(torch.rand(4), dropout)
    assert not torch.equal(first, other)
    assert torch.equal(targets, plan.indices(1, 1))


def test_every_tensor_of_a_nested_batch_moves() -> None:
    moved = to_device({"ids": torch.zeros(2), "pair": [torch.ones(1), (torch.ones(1), "name")]}, torch.device("meta"))
    assert moved["ids"].device.type == "meta"
    assert moved["pair"][0].device.type == "meta"
    assert moved["pair"][1][0].device.type == "meta"
    assert moved["pair"][1][1] == "name"
