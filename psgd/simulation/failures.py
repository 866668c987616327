"""How long workers live in a simulated world, and how long they are missed."""

import math

import numpy as np

from psgd.simulation.world import World

OF_FAILURES = 2**32 - 2
"""In the place where generators of compute times have a slot."""


class Failures:
    """Drawn for each worker from a generator of its own.

    As long as a worker runs it fails at the same moments with the same seed, whatever the mode, the shards and the
    network: these are compared on the same luck.

    Args:
        seed: of everything random.
    """

    def __init__(self, world: World, seed: int) -> None:
        self._mtbf = world.mtbf
        self._downtime = world.downtime
        self._seed = seed
        self._generators: dict[int, np.random.Generator] = {}

    def lifetime(self, worker: int) -> float:
        """Seconds until the worker's next failure, from when it starts; infinite where none fails."""
        return self._mtbf * self._of(worker).standard_exponential() if math.isfinite(self._mtbf) else math.inf

    def downtime(self, worker: int) -> float:
        """Seconds until the worker, which has failed, is replaced."""
        return self._downtime.draw(self._of(worker))

    def _of(self, worker: int) -> np.random.Generator:
        generator = self._generators.get(worker)
        if generator is None:
            generator = self._generators[worker] = np.random.default_rng([self._seed, OF_FAILURES, worker])
        return generator
