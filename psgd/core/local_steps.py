"""Local steps: how far a slot trains by itself between its pull and its push, and how shards take that in."""

import re
from dataclasses import dataclass
from math import isfinite

from psgd.errors import ConfigurationError

NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
"""A number without a sign, also as Python writes a large or a small one: ``1e+06``."""
LOCAL = re.compile(rf"(?P<steps>\d+)(?::(?P<lr>{NUMBER})(?::(?P<momentum>{NUMBER}))?)?")


@dataclass(frozen=True, slots=True)
class LocalSteps:
    """Slots take steps of their own, and push what has come of them.

    An iteration is ``steps`` mini-batches: the slot pulls the weights θ, makes one step of the job's optimizer (the
    inner one) with each of them on a copy of θ, and pushes Δ = θ − what it has come to. Shards take Δ for a gradient,
    with SGD and Nesterov momentum (the outer optimizer): in rounds the mean over the slots, on arrival each Δ. That is
    DiLoCo (Douillard et al. 2023, "DiLoCo: Distributed Low-Communication Training of Language Models", Algorithm 1);
    with plain SGD inside, lr 1 and momentum 0 it is local SGD (Stich 2019, "Local SGD Converges Fast and Communicates
    Little"), or federated averaging (McMahan et al. 2017).

    Where gradients are to be clipped, slots clip that of each inner step; Δ is left as it is.

    The inner optimizer's schedule, and what evaluations make of its learning rate, change with iterations, not with
    mini-batches; the outer learning rate stays. A slot keeps the state of its inner optimizer from one iteration to the
    next. It is nowhere else: a slot whose worker was replaced begins with a fresh one, and so does one whose Δ was NaN
    or Inf, which would stay in it.

    A worker needs memory for its own copy of the parameters, for one Δ, and for an inner optimizer's state for each of
    its slots; a shard for the momentum.

    Args:
        steps: mini-batches an iteration.
        lr: of the outer optimizer.
        momentum: of the outer optimizer; 0: none.

    Raises:
        ConfigurationError: if a number is out of range.

    Example:
        >>> LocalSteps(steps=8)
        LocalSteps(steps=8, lr=0.7, momentum=0.9)
    """

    steps: int
    lr: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 1:
            raise ConfigurationError(f"local steps must be a whole number >= 1, got {self.steps!r}")
        if not isinstance(self.lr, int | float) or not (isfinite(self.lr) and self.lr > 0):
            raise ConfigurationError(f"the outer lr of local steps must be a finite number > 0, got {self.lr!r}")
        if not isinstance(self.momentum, int | float) or not 0 <= self.momentum < 1:
            raise ConfigurationError(f"the outer momentum of local steps must be >= 0 and < 1, got {self.momentum!r}")

    def __str__(self) -> str:
        """As `parse_local` reads it, without what is as usual."""
        usual = LocalSteps(self.steps)
        numbers = [] if self == usual else [self.lr] if self.momentum == usual.momentum else [self.lr, self.momentum]
        return ":".join([str(self.steps), *map(_in_words, numbers)])


def _in_words(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(number)


def mini_batches(local_steps: LocalSteps | None) -> int:
    """How many a slot draws for one iteration."""
    return 1 if local_steps is None else local_steps.steps


def parse_local(text: str) -> LocalSteps:
    """Local steps from ``STEPS``, ``STEPS:LR`` or ``STEPS:LR:MOMENTUM``, the last two the outer optimizer's.

    Raises:
        ConfigurationError: if they are written in another way, or a number is out of range.

    Example:
        >>> parse_local("8:1:0"), str(parse_local("8:0.7:0.9"))
        (LocalSteps(steps=8, lr=1.0, momentum=0.0), '8')
    """
    match = LOCAL.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"local must be STEPS, STEPS:LR or STEPS:LR:MOMENTUM, such as 8 or 8:0.7:0.9, got {text!r}"
        )
    outer = {name: float(match[name]) for name in ("lr", "momentum") if match[name] is not None}
    return LocalSteps(int(match["steps"]), **outer)
