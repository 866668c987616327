"""How long computations take in a simulated world."""

from collections.abc import Sequence

import numpy as np

from psgd.config import Straggler
from psgd.simulation.world import World
from psgd.worker.straggling import lingering


class ComputeTimes:
    """Drawn for each slot from a generator of its own.

    The n-th computation of a slot takes the same time in every mode with the same seed, so modes are compared on the
    same luck.

    Args:
        stragglers: slots slowed on purpose, as in a real run.
        seed: of everything random.
        batches: mini-batches of an iteration.
    """

    def __init__(self, world: World, stragglers: Sequence[Straggler], seed: int, batches: int = 1) -> None:
        self._world = world
        self._stragglers = tuple(stragglers)
        self._seed = seed
        self._batches = batches
        self._generators: dict[int, np.random.Generator] = {}

    def draw(self, step: int, slot: int) -> float:
        """Seconds of the slot's next computation, which is that of this step."""
        generator = self._generators.get(slot)
        if generator is None:
            generator = self._generators[slot] = np.random.default_rng([self._seed, slot])
        compute = self._world.compute_of(slot)
        took = sum(compute.draw(generator) for _ in range(self._batches))
        return took + lingering(self._stragglers, took, self._seed, step, slot)
