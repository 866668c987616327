"""Slots slowed on purpose: by how much, as a pure function of (seed, step, slot), so that runs can be repeated."""

from collections.abc import Sequence

import numpy as np

from psgd.config import Straggler
from psgd.data.sampler import delay_seed


def lingering(stragglers: Sequence[Straggler], computed_s: float, seed: int, step: int, slot: int) -> float:
    """The seconds that an iteration takes longer for the stragglers of a job; each adds what it would add alone.

    Delays are drawn for every slot first, then for the slot alone: one more straggler leaves the other's delays as
    they are.

    Args:
        computed_s: that it took without.
        seed: the run's.

    Example:
        >>> lingering([Straggler(slot=1, factor=3.0)], computed_s=0.5, seed=0, step=7, slot=1)
        1.0
    """
    concerned = sorted((s for s in stragglers if s.slot in (None, slot)), key=lambda s: s.slot is not None)
    if not concerned:
        return 0.0
    generator = np.random.default_rng(delay_seed(seed, step, slot))
    return sum(computed_s * (each.factor - 1) + each.delay.draw(generator) for each in concerned)


def without_lingering(stragglers: Sequence[Straggler], took_s: float, seed: int, step: int, slot: int) -> float:
    """The seconds that an iteration would have taken without stragglers: what `lingering` has added is taken away.

    Args:
        took_s: with them.
        seed: the run's.

    Example:
        >>> without_lingering([Straggler(slot=1, factor=3.0)], took_s=1.5, seed=0, step=7, slot=1)
        0.5
    """
    delay = lingering(stragglers, 0.0, seed, step, slot)
    return (took_s - delay) / (1 + lingering(stragglers, 1.0, seed, step, slot) - delay)
