"""The messages between slots, shards, evaluators and the driver; every plane carries the same ones.

Tensor bytes are never part of a message: they travel beside it as a payload (push: the shard's part of the
gradient; pull, snapshot and a receipt that renews: its part of the weights; load: both parts, see
`psgd.core.layout`).
"""

from dataclasses import dataclass
from enum import StrEnum

from psgd.core.ids import Boundary, Generation, Incarnation, Shard, Slot, Step, Version


class Status(StrEnum):
    """The verdict over a push."""

    ACCEPTED = "accepted"
    """It took part in an update, or was gathered for one."""
    LATE = "late"
    """The step had closed without it."""
    NONFINITE = "nonfinite"
    """It, or in rounds another slot's gradient of the step, held NaN or Inf: no shard updated."""
    ADVANCED = "advanced"
    """This shard missed the iteration, another one applied it: the clock moved on without an update."""


# ------------------------------------------------------------------ a slot asks, a shard answers


@dataclass(frozen=True, slots=True)
class Join:
    """A new incarnation of a slot introduces itself; older ones are fenced off from here on."""

    slot: Slot
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Joined:
    """Where the shard stands with the slot.

    Args:
        finished: iterations of the slot that this shard has answered on arrival; 0 in rounds, where the lead's open
            step says all.
    """

    finished: int


@dataclass(frozen=True, slots=True)
class Ask:
    """May the slot start iteration ``step``? It has finished all before. Only the lead is asked."""

    slot: Slot
    incarnation: Incarnation
    step: Step


@dataclass(frozen=True, slots=True)
class Granted:
    """The slot may start.

    Args:
        step: the iteration to compute; with backups it may lie ahead of the one asked for.
        tick: how often the schedule has ticked by the samples drawn before this iteration.
        lr_factor: what evaluations so far have made of the schedule's learning rate.
    """

    step: Step
    tick: int
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
    """The budget of the run is used up: there is no further iteration."""


@dataclass(frozen=True, slots=True)
class Pull:
    """The slot wants weights for ``step``.

    Args:
        have: the version that the worker holds already; if it is still the shard's, no bytes are sent.
        whole: also the frozen part, which never changes: wanted once an incarnation.
    """

    slot: Slot
    incarnation: Incarnation
    step: Step
    have: Version | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    """One consistent state of the shard's weights; its payload is empty when ``unchanged``.

    Args:
        version: the updates that they hold.
        step: the step that they are for: on arrival the one asked for; in rounds the open one, which lies ahead of
            the one asked for when that has closed without the slot.
        unchanged: the version is the one that the worker had.
    """

    version: Version
    step: Step
    unchanged: bool


@dataclass(frozen=True, slots=True)
class Push:
    """The final message of a push: all bytes of the slot's gradient for this shard are staged.

    Args:
        step: the iteration; (job, slot, step) is the operation's identity.
        tick: from the grant.
        lr_factor: what the grant's comes to for the update; on arrival it counts, in rounds the commit's does.
        pulled: the version of this shard's weights that the gradient was computed from.
        finite: whether the *whole* gradient is finite, on all shards.
        absent: indices, in the layout, of the parameters that have no gradient.
        renew: the weights at the receipt are to come with it, as the payload of the reply.
        norm: Euclidean, of the *whole* gradient as it is sent; where it is clipped by its norm on arrival, else None.
    """

    slot: Slot
    incarnation: Incarnation
    step: Step
    tick: int
    pulled: Version
    finite: bool
    absent: tuple[int, ...] = ()
    renew: bool = False
    norm: float | None = None
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """The shard's final answer to a push; a repeat gets the same one.

    Args:
        step: the iteration that was pushed.
        status: accepted, or why not.
        reason: one line that says so in words.
        version: the shard's version after the answer.
        lag: version when applied − version when pulled.
        lr: learning rates used, one a parameter group: of several gradients that an update averages, each has its own;
            empty when nothing was applied, or for a shard without trainable slices.
        following: the lead's grant of the following iteration where it is already decided, else None: ask.
        renewed: the weights of ``version`` come along, as the push wanted. They do not where they are those that the
            gradient was computed from, nor with a repeated answer that newer ones have overtaken.
        clip_scale: what the gradient that was applied, in rounds the mean, was multiplied by for its global norm.
        held_s: how long the push lay here, whole, until the step was decided, on the shard's own clock; 0 on arrival,
            and where the step had been decided before.
    """

    step: Step
    status: Status
    reason: str
    version: Version
    lag: int
    lr: tuple[float, ...]
    following: Granted | Ended | None
    renewed: bool = False
    clip_scale: float = 1.0
    held_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Advance:
    """Iteration ``step`` of the slot was applied by another shard before its worker died: let it pass."""

    slot: Slot
    incarnation: Incarnation
    step: Step


@dataclass(frozen=True, slots=True)
class Refused:
    """The request was not carried out and changed nothing."""

    reason: str


@dataclass(frozen=True, slots=True)
class Pending:
    """Not decided yet: send the same request again (a plane's long poll; planes resolve it themselves)."""


# ------------------------------------------------------------------ the driver and the evaluator


@dataclass(frozen=True, slots=True)
class Load:
    """The first weights of a shard, once a job; its payload is both parts, pushed and frozen."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The shard holds its weights and serves."""


@dataclass(frozen=True, slots=True)
class Announce:
    """The coordinator's membership: who runs each slot.

    Args:
        generation: older announcements than the last one are ignored.
        incarnations: indexed by slot.
    """

    generation: Generation
    incarnations: tuple[Incarnation, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """The evaluation of ``boundary`` is settled; what it decides takes effect at the following boundary.

    Args:
        stop: end the run at the following boundary.
        lr_factor: of the schedule's learning rate, from the following boundary on.
    """

    boundary: Boundary
    stop: bool
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Leave:
    """The slot's own loop has ended after ``finished`` iterations: nobody waits for it any more."""

    slot: Slot
    incarnation: Incarnation
    finished: int


@dataclass(frozen=True, slots=True)
class Read:
    """Read the snapshot of a boundary (in rounds: kept since the boundary's step closed; else: taken now).

    Args:
        keep: it will be read again, by the time that the following boundary is settled.
    """

    boundary: Boundary
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A consistent state of a shard's weights, both parts, for the evaluator; the shard lets go of older ones.

    Args:
        version: the updates that it holds.
    """

    boundary: Boundary
    version: Version


@dataclass(frozen=True, slots=True)
class Inspect:
    """Ask a shard for its figures."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a shard has counted.

    Args:
        version: updates applied.
        steps: rounds: steps closed; arrival: granted iterations ÷ slots, rounded down; lead only, else 0.
        accepted: pushes that took part in an update.
        dropped: iterations that ended without: late, skipped, advanced or not finite; and those that were gathered
            for an update which has not come, yet or at all.
        nonfinite: those of them that NaN or Inf, their own or another slot's, kept from taking part.
        max_clock_gap: the largest (iteration − slowest slot's finished iterations) at any grant; lead only, else 0.
        clocks: finished iterations, indexed by slot; lead only, else empty.
    """

    version: Version
    steps: int
    accepted: int
    dropped: int
    max_clock_gap: int
    clocks: tuple[int, ...]
    nonfinite: int = 0


@dataclass(frozen=True, slots=True)
class Done:
    """Carried out; nothing to say."""


# ------------------------------------------------------------------ among shards


@dataclass(frozen=True, slots=True)
class Held:
    """To the lead: this shard holds the slot's whole gradient for the step. A promise: it stays until the commit."""

    shard: Shard
    slot: Slot
    step: Step
    finite: bool


@dataclass(frozen=True, slots=True)
class Measure:
    """From the lead: the step will close with these slots; how large is the part of their mean that this shard holds?

    Args:
        accepted: slots, ascending.
    """

    step: Step
    accepted: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """To the lead: the answer to `Measure`.

    Args:
        squares: the exact sum of the squares of the shard's part of the mean, see `psgd.core.clipping`.
    """

    shard: Shard
    step: Step
    squares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """From the lead: the step closes with these slots, in slot order; kept until every shard has confirmed.

    Args:
        accepted: slots, ascending.
        update: False closes the step without an update (a gradient was not finite).
        clip_scale: what the mean is multiplied by for its global norm.
        lr_factor: what evaluations so far have made of the learning rate of the update.
    """

    step: Step
    accepted: tuple[Slot, ...]
    update: bool
    clip_scale: float = 1.0
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Confirm:
    """To the lead: this shard has closed the step."""

    shard: Shard
    step: Step


SlotRequest = Join | Ask | Pull | Push | Advance | Leave
ControlRequest = Load | Announce | Settle | Read | Inspect
PeerMessage = Held | Measure | Measured | Commit | Confirm
Request = SlotRequest | ControlRequest | PeerMessage
Reply = Joined | Granted | Ended | Pulled | Receipt | Loaded | Snapshot | Figures | Done | Refused | Pending
