"""Which samples a slot draws in a step, and from which seed: pure functions of (seed, step, slot).

Nothing here remembers what was drawn before, so any worker can compute any slot's batch again, in any order.
"""

import random
import struct
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from psgd.errors import ConfigurationError

SEED_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """The division of a data set into epochs, steps and slots.

    An epoch is a permutation of the samples that is cut into runs of ``batch_size``; step t of the epoch
    gives run ``t * slots + slot`` to each slot. The remainder is dropped.

    Attributes:
        samples: the size of the data set.
        slots: how many slots draw from it.
        batch_size: samples a slot draws in one step.
        seed: the run's seed, from 0 to 2**63 - 1.
        shuffle: whether an epoch is a new permutation, or the order of the data set.

    Raises:
        ConfigurationError: a number is out of range, or the data set is smaller than one step.

    Example:
        >>> plan = BatchPlan(samples=10, slots=2, batch_size=2, seed=0, shuffle=False)
        >>> plan.steps_per_epoch, plan.indices(step=1, slot=0)
        (2, tensor([4, 5]))
    """

    samples: int
    slots: int
    batch_size: int
    seed: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Refuse what can not be divided."""
        for field, value in (("slots", self.slots), ("batch_size", self.batch_size)):
            if value < 1:
                raise ConfigurationError(f"{field} must be >= 1, got {value}")
        if not 0 <= self.seed < SEED_LIMIT:
            raise ConfigurationError(f"seed must be >= 0 and < 2**63, got {self.seed}")
        if self.steps_per_epoch == 0:
            raise ConfigurationError(
                f"slots * batch_size must be <= the {self.samples} samples of the data set, "
                f"got {self.slots} * {self.batch_size} = {self.slots * self.batch_size}; lower one of them"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in one pass over the data set."""
        return self.samples // (self.slots * self.batch_size)

    def indices(self, step: int, slot: int) -> Tensor:
        """The samples that ``slot`` draws in ``step`` (counted over all epochs), int64 (batch_size,)."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        start = (step_of_epoch * self.slots + slot) * self.batch_size
        if not self.shuffle:
            return torch.arange(start, start + self.batch_size)
        # A copy, so that nobody can write into the permutation that the next steps read.
        return _permutation(self.samples, self.seed, epoch)[start : start + self.batch_size].clone()


# Two, because the slots of an asynchronous run can be in neighbouring epochs.
@lru_cache(maxsize=2)
def _permutation(samples: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed(_hash(b"epoch", seed, epoch))
    return torch.randperm(samples, generator=generator)


def draw_seed(seed: int, step: int, slot: int) -> int:
    """The 64-bit seed of what ``slot`` draws at random in ``step``: data transforms, dropout."""
    return _hash(b"draw", seed, step, slot)


def delay_seed(seed: int, step: int, slot: int) -> int:
    """The 64-bit seed of the delays that are injected into (step, slot); no draw of the training depends on it."""
    return _hash(b"delay", seed, step, slot)


def seed_everything(seed: int, step: int, slot: int) -> None:
    """Seed torch (CPU and CUDA), numpy and ``random`` for one (step, slot)."""
    drawn = draw_seed(seed, step, slot)
    # torch.manual_seed() would do, but formats a stack trace for every absent device: 270 us instead of 1.
    torch.default_generator.manual_seed(drawn)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(drawn)
    np.random.seed([drawn & 0xFFFF_FFFF, drawn >> 32])  # numpy takes 32 bits a number
    random.seed(drawn)


def _hash(purpose: bytes, *numbers: int) -> int:
    packed = struct.pack(f"<{len(numbers)}q", *numbers)
    return int.from_bytes(blake2b(packed, digest_size=8, person=purpose).digest(), "little")
