"""The apply rule of async mode: a push is applied on arrival, by itself or as the last of those that are gathered."""

from dataclasses import dataclass, replace

from psgd.core.clipping import clip_scale
from psgd.core.effects import (
    Answer,
    ApplyGathered,
    ApplyGradient,
    Effect,
    Gather,
    HoldWeights,
    How,
    Stage,
    key_of,
)
from psgd.core.ids import Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.messages import Advance, Pull, Push, Receipt, Refused, Status
from psgd.core.modes import Async, Rules
from psgd.core.pulled import PulledVersions
from psgd.errors import InternalError


@dataclass(frozen=True, slots=True)
class _Verdict:
    """How an iteration ends, but for the version: an update may raise it before the slot hears of the end.

    Args:
        weight: of the gradient among those that are gathered.
    """

    request: Push | Advance
    status: Status
    reason: str
    lag: int = 0
    lr: tuple[float, ...] = ()
    clip_scale: float = 1.0
    weight: float = 1.0


@dataclass(slots=True)
class _Window:
    """What has been gathered for the next update."""

    count: int = 0
    weight: float = 0.0
    last: Push | None = None


class Arrivals:
    """One shard's arrivals: every slot's iterations in their order, slots in the order in which they come.

    Args:
        mode: of the rules.
        ledger: shared with the protocol, which consults it first.
    """

    def __init__(self, rules: Rules, mode: Async, shard: Shard, ledger: Ledger) -> None:
        self.version = Version(0)
        self.accepted = 0
        self.nonfinite = 0
        self._rules = rules
        self._mode = mode
        self._shard = shard
        self._ledger = ledger
        self._pulled = PulledVersions()
        self._dropped = 0
        self._ended = 0
        self._window = _Window()
        self._under_way: _Verdict | None = None

    @property
    def dropped(self) -> int:
        """Iterations that ended without an update, or whose update has not come: it may never, if the run ends."""
        return self._dropped + self._window.count

    def finished(self, slot: Slot) -> int:
        """Iterations of the slot that this shard has answered."""
        return self._ledger.finished(slot)

    def weights_for(self, pull: Pull) -> Step:
        """Weights are given as they are."""
        return pull.step

    def gave(self, pull: Pull) -> None:
        """The slot has got the weights as they are; nobody waits for those of an iteration that has ended."""
        if self._rules.keeps_pulled and pull.step == self._ledger.finished(pull.slot):
            self._pulled.gave(pull, self.version)

    def push(self, push: Push) -> list[Effect]:
        """A new gradient is whole: apply or gather it, unless another shard will refuse it, too."""
        refused = self._unfit(push)
        if refused is not None:
            return [Answer(key_of(push), refused)]
        lag = self.version - push.pulled
        if not push.finite:
            self.nonfinite += 1
            reason = f"slot {push.slot} pushed NaN or Inf in iteration {push.step}"
            return self._end(_Verdict(push, Status.NONFINITE, reason, lag))
        self._ledger.stage(push.slot, push.step)
        staged = Stage(push.slot, push.step, push.absent)
        weight = 1.0 if self._rules.correction is None else self._rules.correction.lr_factor(lag)
        how = How(push.tick, push.lr_factor * weight, self._clip(push), self._compared(push))
        reason = f"iteration {push.step} applied on arrival"
        self._under_way = _Verdict(push, Status.ACCEPTED, reason, lag, (), how.clip_scale, weight)
        if self._mode.gather > 1:
            return [staged, Gather(push.slot, push.step, how, weight)]
        return [staged, *self._hold(push), ApplyGradient(push.slot, push.step, how)]

    def _clip(self, push: Push) -> float:
        """Every shard comes to the same scale, as the norm is the whole gradient's."""
        limit = self._rules.clip_norm
        return 1.0 if limit is None or push.norm is None else clip_scale(push.norm, limit)

    def _compared(self, push: Push) -> Version | None:
        """The weights that a correction compares with those as they are."""
        return push.pulled if self._rules.keeps_pulled and push.pulled != self.version else None

    def _hold(self, request: Push | Advance) -> list[Effect]:
        """Before an update: copies of what slots may be computing at, and of what this push was computed from."""
        if not self._rules.keeps_pulled:
            return []
        versions = self._pulled.beside(request.slot)
        if isinstance(request, Push) and request.pulled != self.version:
            versions.add(request.pulled)
        return [HoldWeights(self.version, tuple(sorted(versions)))]

    def gathered(self, lr: tuple[float, ...]) -> list[Effect]:
        """The gradient is part of the next update: the slot gets its receipt, at once unless it is the last one."""
        verdict, window = self._concluded(), self._window
        if not isinstance(verdict.request, Push):
            raise InternalError(f"shard {self._shard} gathered a gradient that no push brought")
        window.count += 1
        window.weight += verdict.weight
        window.last = verdict.request
        reason = f"{window.count} of {self._mode.gather} gathered for update {self.version + 1}"
        return self._end(replace(verdict, reason=reason, lr=lr))

    def applied(self, lr: tuple[float, ...]) -> list[Effect]:
        """The update is made: the slot gets its receipt."""
        verdict = self._concluded()
        self.version = Version(self.version + 1)
        if self._mode.gather == 1:
            self.accepted += 1
            return self._answer(replace(verdict, lr=lr))
        self.accepted += self._window.count
        self._window = _Window()
        return self._answer(verdict)

    def _concluded(self) -> _Verdict:
        verdict, self._under_way = self._under_way, None
        if verdict is None:
            raise InternalError(f"shard {self._shard} applied an update that no push asked for")
        return verdict

    def advance(self, advance: Advance) -> list[Effect]:
        """Another shard applied this iteration, this one missed it: the clock moves on without an update."""
        refused = self._unfit(advance)
        if refused is not None:
            return [Answer(key_of(advance), refused)]
        reason = f"iteration {advance.step} reached another shard only"
        return self._end(_Verdict(advance, Status.ADVANCED, reason))

    def _end(self, verdict: _Verdict) -> list[Effect]:
        """An iteration ends like this; an update comes first if nothing more is to be gathered for it."""
        self._ended += 1
        if verdict.status is not Status.ACCEPTED:
            self._dropped += 1
        window, last = self._window, self._window.last
        if last is None or (window.count < self._mode.gather and self._ended != self._rules.budget):
            return self._answer(verdict)
        self._under_way = verdict
        how = How(last.tick, last.lr_factor * (window.weight / window.count))
        return [*self._hold(verdict.request), ApplyGathered(window.count, window.weight, how)]

    def _answer(self, verdict: _Verdict) -> list[Effect]:
        request, version = verdict.request, self.version
        if isinstance(request, Push) and self._rules.keeps_pulled:
            self._pulled.pushed(request.slot, version if self._mode.receipt_renews else None)
        receipt = Receipt(
            request.step,
            verdict.status,
            verdict.reason,
            version,
            verdict.lag,
            verdict.lr,
            None,
            clip_scale=verdict.clip_scale,
        )
        self._ledger.answer(request.slot, receipt)
        return [Answer(key_of(request), receipt)]

    def _unfit(self, request: Push | Advance) -> Refused | None:
        reason = self._contradiction(request) if isinstance(request, Push) else None
        if reason is not None:
            return Refused(reason)
        expected = self._ledger.finished(request.slot)
        if request.step == expected:
            return None
        return Refused(f"iteration {request.step} of slot {request.slot} came before iteration {expected}")

    def _contradiction(self, push: Push) -> str | None:
        """What a push says that can not be."""
        slot, pulled, names_norm = push.slot, push.pulled, self._rules.push_names_norm
        if pulled > self.version:
            return f"slot {slot} pushed from version {pulled}, the shard is at {self.version}"
        if self._rules.keeps_pulled and not self._pulled.has(slot, pulled):
            return f"slot {slot} pushed from version {pulled}, which it has not pulled"
        if push.finite and (push.norm is None) == names_norm:
            wanted = "is needed to clip it" if names_norm else "must be left out where nobody clips it"
            return f"the norm of a gradient {wanted}, got {push.norm} from slot {slot}"
        return None
