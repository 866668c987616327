"""Numbers that must not be mixed up."""

from typing import NewType

Slot = NewType("Slot", int)
"""A unit of data parallelism: a numbered stream of mini-batches, 0 … slots − 1."""

Shard = NewType("Shard", int)
"""A parameter-server shard, 0 … shards − 1."""

Step = NewType("Step", int)
"""In rounds: one optimizer update of the whole job. On arrival: one iteration of one slot."""

Version = NewType("Version", int)
"""Updates that a shard has applied."""

Incarnation = NewType("Incarnation", int)
"""Number of the process that runs a slot; every restart gets a higher one."""

Generation = NewType("Generation", int)
"""Number of the membership; only the coordinator raises it."""

Boundary = NewType("Boundary", int)
"""Number of an evaluation boundary, 1 … the last one at the end of the run."""

LEAD = Shard(0)
"""The shard that grants iterations and commits steps."""
