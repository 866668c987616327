"""What the protocol wants done (effects), and what has happened on the shard itself (events beside messages)."""

from dataclasses import dataclass

from psgd.core.ids import Boundary, Shard, Slot, Step, Version
from psgd.core.messages import PeerMessage, Push, Reply, Request

Key = tuple[str, int, int, int]
"""What tells a request from others that may wait at the same time: its kind, slot, step (or boundary), incarnation."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Keep the payload of this push until it is applied or discarded."""

    slot: Slot
    step: Step
    absent: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Discard:
    """Drop the staged payload of a slot."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class MeasureMean:
    """Take the mean over the slots' staged gradients, added in this order; report `MeanMeasured`."""

    step: Step
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class How:
    """How an update is made.

    Args:
        tick: bring the schedule to this many ticks before it.
        lr_factor: multiply the schedule's learning rate with this. On arrival it is the grant's, as the tick is; the
            schedule does not go back for a late one.
        clip_scale: multiply the gradient with this.
        pulled: the version of the weights that it was computed from, a copy of which is held; None: the weights are
            the same still, or the correction for staleness does not look at them.
    """

    tick: int
    lr_factor: float = 1.0
    clip_scale: float = 1.0
    pulled: Version | None = None


@dataclass(frozen=True, slots=True)
class ApplyMean:
    """Update once with the mean over the slots' staged gradients, added in this order; report `Applied`."""

    step: Step
    slots: tuple[Slot, ...]
    how: How


@dataclass(frozen=True, slots=True)
class ApplyGradient:
    """Update once with the slot's staged gradient; report `Applied`."""

    slot: Slot
    step: Step
    how: How


@dataclass(frozen=True, slots=True)
class Gather:
    """Add the slot's staged gradient to the sum that the next update is made of; report `Gathered`.

    Args:
        weight: multiply the gradient with this, last of all.
    """

    slot: Slot
    step: Step
    how: How
    weight: float


@dataclass(frozen=True, slots=True)
class ApplyGathered:
    """Update once with the sum of what was gathered since the last one, divided; report `Applied`.

    Args:
        count: gradients that were gathered: by it buffers are divided.
        weight: the sum of their weights: by it gradients are divided.
    """

    count: int
    weight: float
    how: How


@dataclass(frozen=True, slots=True)
class HoldWeights:
    """Have copies of exactly these versions of the weights, for gradients to come that were computed from them.

    Args:
        now: the version of the weights as they are; all others of the versions have been copied before.
        versions: ascending.
    """

    now: Version
    versions: tuple[Version, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """Deliver the reply to everybody who waits for the request with this key."""

    key: Key
    reply: Reply


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message to another shard; it may get lost."""

    shard: Shard
    message: PeerMessage


@dataclass(frozen=True, slots=True)
class KeepSnapshot:
    """Copy the weights for the evaluation of a boundary, until they are let go."""

    boundary: Boundary


@dataclass(frozen=True, slots=True)
class DropSnapshots:
    """Let go of the snapshots before this boundary."""

    before: Boundary


@dataclass(frozen=True, slots=True)
class ReachBoundary:
    """Tell the coordinator (lead only): every iteration before this boundary's step is finished."""

    boundary: Boundary
    step: Step


Effect = (
    Stage
    | Discard
    | MeasureMean
    | ApplyMean
    | ApplyGradient
    | Gather
    | ApplyGathered
    | HoldWeights
    | Answer
    | Tell
    | KeepSnapshot
    | DropSnapshots
    | ReachBoundary
)


@dataclass(frozen=True, slots=True)
class Applied:
    """The update that an effect asked for has been made; reported before any other event.

    Args:
        lr: learning rates used, one a parameter group.
    """

    lr: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """The gradient that an effect asked for has been added; reported before any other event.

    Args:
        lr: learning rates that it counts with, one a parameter group.
    """

    lr: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class MeanMeasured:
    """The mean that an effect asked for has been taken; reported before any other event.

    Args:
        squares: the exact sum of the squares of its parameters' elements, see `psgd.core.clipping`.
    """

    squares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time has passed; what was not confirmed is sent again."""


Event = Request | Applied | Gathered | MeanMeasured | Ticked


def key_of(request: Request) -> Key:
    """The key of a request; a repeat has the key of the first, so one answer serves both.

    A push is one operation, whichever incarnation repeats it. All else is answered to the incarnation that asked,
    so that what is refused to a fenced one does not reach its successor.
    """
    if isinstance(request, Push):
        return push_key(request.slot, request.step)
    step = getattr(request, "step", getattr(request, "boundary", -1))
    return (type(request).__name__, getattr(request, "slot", -1), step, getattr(request, "incarnation", -1))


def push_key(slot: Slot, step: Step) -> Key:
    """The key of the push of a slot's step."""
    return (Push.__name__, slot, step, -1)
