"""The slot machine: join → ask → pull → compute → push, for one slot over all shards, without I/O.

Where the mode lets it, the weights of the next iteration come with the receipts of a push: then there is no pull.

The built-in worker loop, `DistributedOptimizer` and the simulator all drive this one. Each phase sends its requests
and gathers their replies; the table `_GATHERED` says what follows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from psgd.core.ids import LEAD, Incarnation, Shard, Slot, Step, Version
from psgd.core.messages import (
    Advance,
    Ask,
    Ended,
    Granted,
    Join,
    Joined,
    Pull,
    Pulled,
    Push,
    Receipt,
    Refused,
    Reply,
    SlotRequest,
)
from psgd.core.modes import Rules
from psgd.errors import InternalError


class Phase(StrEnum):
    """Where a slot stands."""

    NEW = "new"
    JOINING = "joining"
    ADVANCING = "advancing"
    ASKING = "asking"
    READY = "ready"
    PULLING = "pulling"
    COMPUTING = "computing"
    PUSHING = "pushing"
    ENDED = "ended"
    HALTED = "halted"


# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class Started:
    """The worker is up."""


@dataclass(frozen=True, slots=True)
class Replied:
    """A shard has answered ``request``."""

    shard: Shard
    request: SlotRequest
    reply: Reply


@dataclass(frozen=True, slots=True)
class Chosen:
    """The worker runs this slot next.

    Args:
        have: the version of each shard's weights that the worker holds, indexed by shard; None: no weights yet, so
            the frozen part is pulled, too.
    """

    have: Sequence[Version | None]


@dataclass(frozen=True, slots=True)
class Computed:
    """The gradient is there.

    Args:
        finite: whether all of it is, on all shards.
        absent: indices, in the layout, of the parameters that have none.
        renew: have the newest weights come with the receipts; whatever computes at them has ended.
        norm: of the whole gradient as it is sent; None where nobody asks for it.
    """

    finite: bool
    absent: tuple[int, ...]
    renew: bool = False
    norm: float | None = None


SlotEvent = Started | Replied | Chosen | Computed

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request to the shard; report `Replied`. A push carries the shard's part of the gradient."""

    shard: Shard
    request: SlotRequest


@dataclass(frozen=True, slots=True)
class Compute:
    """Compute the gradient of (step, slot) at the weights that were pulled; report `Computed`.

    Args:
        tick: from the grant, for slots that take local steps.
        lr_factor: from the grant, for the same.
    """

    step: Step
    tick: int
    lr_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Finish:
    """The iteration has its final answers, one a shard, indexed by shard."""

    step: Step
    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True)
class End:
    """There is no further iteration."""


@dataclass(frozen=True, slots=True)
class Halt:
    """A shard refuses this slot; the reason says why."""

    reason: str


SlotEffect = Send | Compute | Finish | End | Halt


class SlotMachine:
    """One incarnation of one slot.

    Args:
        rules: the same for every party of the job.
    """

    def __init__(self, slot: Slot, incarnation: Incarnation, rules: Rules) -> None:
        self.slot = slot
        self.incarnation = incarnation
        self.phase = Phase.NEW
        self.clock = Step(0)
        """The iteration that comes next, or is under way."""
        self._shards = tuple(Shard(k) for k in range(rules.shards))
        self._receipt_renews = rules.mode.receipt_renews
        self._update_factor = rules.update_factor
        self._left_at: tuple[Version, ...] | None = None
        self._granted = Granted(Step(0), 0)
        self._versions: dict[Shard, Version] = {}
        self._outstanding: dict[Shard, SlotRequest] = {}
        self._replies: dict[Shard, Reply] = {}

    def handle(self, event: SlotEvent) -> list[SlotEffect]:
        """Take an event, return what is to be done about it, in this order."""
        match event:
            case Started():
                self._expect(Phase.NEW)
                join = Join(self.slot, self.incarnation)
                return self._send(Phase.JOINING, dict.fromkeys(self._shards, join))
            case Chosen(have):
                self._expect(Phase.READY)
                return self._start(have)
            case Computed():
                self._expect(Phase.COMPUTING)
                return self._push(event)
            case Replied():
                return self._replied(event)

    def _expect(self, phase: Phase) -> None:
        if self.phase is not phase:
            raise InternalError(f"slot {self.slot} is {self.phase}, not {phase}")

    def _send(self, phase: Phase, requests: "dict[Shard, SlotRequest]") -> list[SlotEffect]:
        self.phase = phase
        self._outstanding, self._replies = dict(requests), {}
        return [Send(shard, request) for shard, request in requests.items()]

    def _replied(self, event: Replied) -> list[SlotEffect]:
        if self._outstanding.get(event.shard) != event.request:
            return []  # the answer to something that nobody waits for any more
        del self._outstanding[event.shard]
        if isinstance(event.reply, Refused):
            self.phase, self._outstanding = Phase.HALTED, {}
            return [Halt(event.reply.reason)]
        self._replies[event.shard] = event.reply
        return [] if self._outstanding else _GATHERED[self.phase](self)

    # ------------------------------------------------------------------ what follows when all have answered

    def _joined(self) -> list[SlotEffect]:
        """Go on behind the highest iteration that any shard applied; those who missed it let it pass."""
        finished = {shard: reply.finished for shard, reply in self._replies.items() if isinstance(reply, Joined)}
        self.clock = Step(max(finished.values()))
        behind = [shard for shard, count in finished.items() if count < self.clock]
        if any(finished[shard] < self.clock - 1 for shard in behind):
            self.phase = Phase.HALTED
            return [Halt(f"shards {behind} are more than one iteration behind {self.clock} of slot {self.slot}")]
        if not behind:
            return self._ask()
        advance = Advance(self.slot, self.incarnation, Step(self.clock - 1))
        return self._send(Phase.ADVANCING, dict.fromkeys(behind, advance))

    def _ask(self) -> list[SlotEffect]:
        return self._send(Phase.ASKING, {LEAD: Ask(self.slot, self.incarnation, self.clock)})

    def _asked(self) -> list[SlotEffect]:
        reply = self._replies[LEAD]
        if not isinstance(reply, Granted | Ended):
            raise InternalError(f"the lead answered an ask of slot {self.slot} with {reply}")
        return self._follow(reply)

    def _follow(self, granted: Granted | Ended) -> list[SlotEffect]:
        if isinstance(granted, Ended):
            self.phase = Phase.ENDED
            return [End()]
        self.phase, self._granted, self.clock = Phase.READY, granted, granted.step
        return []

    def _start(self, have: Sequence[Version | None]) -> list[SlotEffect]:
        """Compute at the weights that came with the last receipts, if they did and the mode lets them do; or pull."""
        if self._receipt_renews and tuple(have) == self._left_at:
            return self._compute(dict(zip(self._shards, self._left_at, strict=True)))
        return self._send(
            Phase.PULLING,
            {
                shard: Pull(self.slot, self.incarnation, self.clock, have=have[shard], whole=have[shard] is None)
                for shard in self._shards
            },
        )

    def _pulled(self) -> list[SlotEffect]:
        """Compute, unless the step has closed on some shard in the meantime: then its gradient would be late."""
        pulled = {shard: reply for shard, reply in self._replies.items() if isinstance(reply, Pulled)}
        newest = max(reply.step for reply in pulled.values())
        if newest > self.clock:
            self.clock = newest
            return self._ask()
        return self._compute({shard: reply.version for shard, reply in pulled.items()})

    def _compute(self, versions: dict[Shard, Version]) -> list[SlotEffect]:
        self.phase, self._versions = Phase.COMPUTING, versions
        return [Compute(self.clock, self._granted.tick, self._granted.lr_factor)]

    def _push(self, computed: Computed) -> list[SlotEffect]:
        return self._send(
            Phase.PUSHING,
            {
                shard: Push(
                    self.slot,
                    self.incarnation,
                    self.clock,
                    self._granted.tick,
                    self._versions[shard],
                    computed.finite,
                    computed.absent,
                    computed.renew,
                    computed.norm,
                    self._update_factor(self._granted.lr_factor),
                )
                for shard in self._shards
            },
        )

    def _pushed(self) -> list[SlotEffect]:
        receipts = tuple(reply for _, reply in sorted(self._replies.items()) if isinstance(reply, Receipt))
        finish = Finish(self.clock, receipts)
        self._left_at = tuple(receipt.version for receipt in receipts)
        self.clock = Step(self.clock + 1)
        following = receipts[LEAD].following
        return [finish, *(self._ask() if following is None else self._follow(following))]


_GATHERED = {
    Phase.JOINING: SlotMachine._joined,
    Phase.ADVANCING: SlotMachine._ask,
    Phase.ASKING: SlotMachine._asked,
    Phase.PULLING: SlotMachine._pulled,
    Phase.PUSHING: SlotMachine._pushed,
}
