"""The apply rule of async mode: a push is applied on arrival, with its own gradient."""

from psgd.core.clipping import clip_scale
from psgd.core.effects import Answer, ApplyGradient, Effect, How, Stage, key_of
from psgd.core.ids import Shard, Slot, Step, Version
from psgd.core.ledger import Ledger
from psgd.core.messages import Advance, Pull, Push, Receipt, Refused, Status
from psgd.core.modes import Rules
from psgd.errors import InternalError


class Arrivals:
    """One shard's arrivals: every slot's iterations in their order, slots in the order in which they come.

    Args:
        ledger: shared with the protocol, which consults it first.
    """

    def __init__(self, rules: Rules, shard: Shard, ledger: Ledger) -> None:
        self.version = Version(0)
        self.accepted = 0
        self.dropped = 0
        self.nonfinite = 0
        self._rules = rules
        self._shard = shard
        self._ledger = ledger
        self._applying: Push | None = None
        self._scale = 1.0

    def finished(self, slot: Slot) -> int:
        """Iterations of the slot that this shard has answered."""
        return self._ledger.finished(slot)

    def weights_for(self, pull: Pull) -> Step:
        """Weights are given as they are."""
        return pull.step

    def push(self, push: Push) -> list[Effect]:
        """A new gradient is whole: apply it, unless another shard will refuse it, too."""
        refused = self._unfit(push)
        if refused is not None:
            return [Answer(key_of(push), refused)]
        if not push.finite:
            self.nonfinite += 1
            return self._answer(push, Status.NONFINITE, f"slot {push.slot} pushed NaN or Inf in iteration {push.step}")
        self._applying, self._scale = push, self._clip(push)
        self._ledger.stage(push.slot, push.step)
        how = How(push.tick, push.lr_factor, self._scale)
        return [Stage(push.slot, push.step, push.absent), ApplyGradient(push.slot, push.step, how)]

    def _clip(self, push: Push) -> float:
        """Every shard comes to the same scale, as the norm is the whole gradient's."""
        limit = self._rules.clip_norm
        return 1.0 if limit is None or push.norm is None else clip_scale(push.norm, limit)

    def applied(self, lr: tuple[float, ...]) -> list[Effect]:
        """The update is made: the slot gets its receipt."""
        push, self._applying = self._applying, None
        if push is None:
            raise InternalError(f"shard {self._shard} applied an update that no push asked for")
        return self._answer(push, Status.ACCEPTED, f"iteration {push.step} applied on arrival", lr, self._scale)

    def advance(self, advance: Advance) -> list[Effect]:
        """Another shard applied this iteration, this one missed it: the clock moves on without an update."""
        refused = self._unfit(advance)
        if refused is not None:
            return [Answer(key_of(advance), refused)]
        self.dropped += 1
        reason = f"iteration {advance.step} reached another shard only"
        receipt = Receipt(advance.step, Status.ADVANCED, reason, self.version, 0, (), None)
        self._ledger.answer(advance.slot, receipt)
        return [Answer(key_of(advance), receipt)]

    def _unfit(self, request: Push | Advance) -> Refused | None:
        if isinstance(request, Push) and request.pulled > self.version:
            return Refused(f"slot {request.slot} pushed from version {request.pulled}, the shard is at {self.version}")
        if isinstance(request, Push) and request.finite and (request.norm is None) == self._rules.push_names_norm:
            wanted = "is needed to clip it" if self._rules.push_names_norm else "must be left out where nobody clips it"
            return Refused(f"the norm of a gradient {wanted}, got {request.norm} from slot {request.slot}")
        expected = self._ledger.finished(request.slot)
        if request.step == expected:
            return None
        return Refused(f"iteration {request.step} of slot {request.slot} came before iteration {expected}")

    def _answer(
        self, push: Push, status: Status, reason: str, lr: tuple[float, ...] = (), clip_scale: float = 1.0
    ) -> list[Effect]:
        lag = self.version - push.pulled
        if status is Status.ACCEPTED:
            self.version = Version(self.version + 1)
            self.accepted += 1
        else:
            self.dropped += 1
        receipt = Receipt(push.step, status, reason, self.version, lag, lr, None, clip_scale=clip_scale)
        self._ledger.answer(push.slot, receipt)
        return [Answer(key_of(push), receipt)]
