"""Losses: how they are named, and what they are: torch's formulas, over outputs and targets that are made to fit.

All are means over the samples of a batch, so that the mean over slots and micro-batches of one size is the mean over
all of them: shards average gradients over slots, and only for means is that the whole batch's gradient.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from psgd.config import Loss
from psgd.errors import ConfigurationError
from psgd.training.imports import import_callable
from psgd.training.names import unknown, unknown_argument


@dataclass(frozen=True, slots=True)
class SquaredError:
    """(s − t)², the mean over all numbers; targets (B,) fit outputs (B, 1)."""

    name: ClassVar[str] = "mse"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        return functional.mse_loss(output, _fit(self.name, output, target))


@dataclass(frozen=True, slots=True)
class AbsoluteError:
    """|s − t|, the mean over all numbers; targets (B,) fit outputs (B, 1)."""

    name: ClassVar[str] = "mae"

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        return functional.l1_loss(output, _fit(self.name, output, target))


@dataclass(frozen=True, slots=True)
class Huber:
    """(s − t)²/2 where |s − t| <= delta, else delta·(|s − t| − delta/2) (Huber 1964); the mean over all numbers."""

    name: ClassVar[str] = "huber"
    delta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what has no slope."""
        _check(self, "delta", "a number > 0", _is_number(self.delta) and self.delta > 0)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        return functional.huber_loss(output, _fit(self.name, output, target), delta=self.delta)


@dataclass(frozen=True, slots=True)
class SmoothAbsoluteError:
    """(s − t)²/(2·beta) where |s − t| < beta, else |s − t| − beta/2 (Girshick 2015); the mean over all numbers."""

    name: ClassVar[str] = "smooth-l1"
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a negative width."""
        _check(self, "beta", "a number >= 0", _is_number(self.beta) and self.beta >= 0)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        return functional.smooth_l1_loss(output, _fit(self.name, output, target), beta=self.beta)


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """−log softmax(s)ₜ of logits (B, classes, ...) for labels (B, ...), the mean over all labels.

    With class weights w it is the sum of w[t]·loss over the *number of labels*, as in Keras and scikit-learn. Torch
    divides by the sum of the labels' weights instead: then each slot's and each micro-batch's mean has another
    divisor, and their mean is not the mean over the whole batch. (``torch.nn.CrossEntropyLoss(weight=...)``, given
    to Trainer, is left as it is.) Weights whose mean over the training labels is 1 leave the learning rate's scale.

    Attributes:
        weight: of each class.
        label_smoothing: share of the target that is spread over all classes (Szegedy et al. 2016).

    Example:
        >>> CrossEntropy(weight=(1.0, 3.0))(torch.zeros(2, 2), torch.tensor([0, 1]))  # ln 2 · (1 + 3)/2
        tensor(1.3863)
    """

    name: ClassVar[str] = "cross-entropy"
    weight: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights that are none, and more smoothing than there is."""
        object.__setattr__(self, "weight", _read_weights(self, "weight"))
        smooth = _is_number(self.label_smoothing) and 0 <= self.label_smoothing <= 1
        _check(self, "label_smoothing", "a number from 0 to 1", smooth)

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        _check_classes(self.name, output)
        weight, smoothing = _on(output, self.weight), self.label_smoothing
        if weight is None:
            return functional.cross_entropy(output, target, label_smoothing=smoothing)
        total = functional.cross_entropy(output, target, weight, label_smoothing=smoothing, reduction="sum")
        return total / _labels(output)


@dataclass(frozen=True, slots=True)
class NegativeLogLikelihood:
    """−sₜ of log-probabilities (B, classes, ...) for labels (B, ...); weights as in `CrossEntropy`."""

    name: ClassVar[str] = "nll"
    weight: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse weights that are none."""
        object.__setattr__(self, "weight", _read_weights(self, "weight"))

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse scores that are no log-probabilities, see `check_batch`."""
        if bool((output > 0).any()):
            raise ConfigurationError(
                f"loss {self.name} needs log-probabilities, got an output of {output.max().item():.3g}; end the model "
                "with LogSoftmax, or use cross-entropy"
            )

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        _check_classes(self.name, output)
        weight = _on(output, self.weight)
        if weight is None:
            return functional.nll_loss(output, target)
        return functional.nll_loss(output, target, weight, reduction="sum") / _labels(output)


@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy:
    """−t·log p − (1 − t)·log(1 − p) with p = 1/(1 + exp(−s)) of logits s; the mean over all of them.

    Targets are 0 or 1, of any type (or shares between), in the outputs' shape: (B,) and (B, 1) fit one another.

    Attributes:
        pos_weight: multiplies the loss of targets 1: a number, or one for each output.
    """

    name: ClassVar[str] = "binary-cross-entropy"
    pos_weight: float | tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse weights that are none."""
        if _is_number(self.pos_weight):
            _check(self, "pos_weight", "a number >= 0", self.pos_weight >= 0)  # type: ignore[operator]  # a number
        else:
            object.__setattr__(self, "pos_weight", _read_weights(self, "pos_weight"))

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse targets that are neither labels nor shares, see `check_batch`."""
        _check_labels(self.name, target, bool(((target >= 0) & (target <= 1)).all()), "from 0 to 1")

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        fitting = _fit(self.name, output, target)
        return functional.binary_cross_entropy_with_logits(output, fitting, pos_weight=_on(output, self.pos_weight))


@dataclass(frozen=True, slots=True)
class Hinge:
    """max(0, margin − y·s) with y = 1 where the target is > 0, else −1 (Cortes and Vapnik 1995); the mean.

    So labels may be 0 and 1 or −1 and 1; (B,) and (B, 1) fit one another.
    """

    name: ClassVar[str] = "hinge"
    margin: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a margin that separates nothing."""
        _check(self, "margin", "a number > 0", _is_number(self.margin) and self.margin > 0)

    def check(self, output: Tensor, target: Tensor) -> None:
        """Refuse targets that are no labels, see `check_batch`."""
        known = (target == 0) | (target == 1) | (target == -1)
        _check_labels(self.name, target, bool(known.all()), "0 and 1, or -1 and 1")

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        positive = _fit(self.name, output, target) > 0
        return (self.margin - torch.where(positive, output, -output)).clamp(min=0).mean()


@dataclass(frozen=True, slots=True)
class MultiClassHinge:
    """Σ max(0, margin − sₜ + sⱼ)ᵖ over the classes j ≠ t, divided by their number, t included; the mean.

    Of Weston and Watkins (1999), as ``torch.nn.MultiMarginLoss`` has it; scores (B, classes), labels (B,).

    Attributes:
        p: 1 or 2.
        weight: of each class, by the target's; the divisor stays the number of samples.
    """

    name: ClassVar[str] = "multi-class-hinge"
    p: int = 1
    margin: float = 1.0
    weight: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what torch has no formula for."""
        _check(self, "p", "1 or 2", self.p in (1, 2))
        _check(self, "margin", "a number > 0", _is_number(self.margin) and self.margin > 0)
        object.__setattr__(self, "weight", _read_weights(self, "weight"))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """The mean over the batch: ()."""
        _check_classes(self.name, output)
        return functional.multi_margin_loss(output, target, self.p, self.margin, _on(output, self.weight))


LOSSES: dict[str, Callable[..., Loss]] = {
    "cross-entropy": CrossEntropy,
    "nll": NegativeLogLikelihood,
    "binary-cross-entropy": BinaryCrossEntropy,
    "bce-with-logits": BinaryCrossEntropy,
    "hinge": Hinge,
    "multi-class-hinge": MultiClassHinge,
    "mse": SquaredError,
    "mae": AbsoluteError,
    "l1": AbsoluteError,
    "huber": Huber,
    "smooth-l1": SmoothAbsoluteError,
}


def loss(name: str, **args: Any) -> Loss:
    """A loss by name, for ``Trainer(loss=...)``; as `resolve_loss`.

    Example:
        >>> loss("huber", delta=0.5)
        Huber(delta=0.5)
    """
    return resolve_loss(name, args)


def resolve_loss(loss: str | Loss = "cross-entropy", args: Mapping[str, Any] | None = None) -> Loss:
    """The loss that a name stands for; a loss of the user's own passes through.

    Args:
        loss: one of ``LOSSES``; or ``my.pkg:loss``, a function (output, target, **args) or a class whose objects are
            such functions; or a callable (output, target). All return the mean over the batch.
        args: of the loss that is named, such as ``{"label_smoothing": 0.1}``.

    Raises:
        ConfigurationError: there is no such name or argument, or the loss is torch's and does not return the mean.

    Example:
        >>> resolve_loss("cross-entropy", {"label_smoothing": 0.1})
        CrossEntropy(weight=None, label_smoothing=0.1)
    """
    args = args or {}
    if isinstance(loss, str):
        return _check_mean(_import_loss(loss, args) if ":" in loss else _named(loss, args))
    if args:
        raise ConfigurationError(f"loss arguments need a loss's name, got {', '.join(args)} without one")
    if not callable(loss):
        raise ConfigurationError(f"loss must be a name or a callable (output, target), got {type(loss).__name__}")
    return _check_mean(loss)


def _named(name: str, args: Mapping[str, Any]) -> Loss:
    if name not in LOSSES:
        raise unknown("loss", name, [*LOSSES, "my.pkg:loss"])
    takes = [field.name for field in dataclasses.fields(LOSSES[name])]  # type: ignore[arg-type]  # all are dataclasses
    for key in args:
        if key not in takes:
            raise unknown_argument(f"loss {name}", key, takes)
    return LOSSES[name](**args)


def _import_loss(spec: str, args: Mapping[str, Any]) -> Loss:
    own = import_callable("loss", spec)
    if not isinstance(own, type):
        return partial(own, **args) if args else own
    try:
        made: Loss = own(**args)
    except Exception as error:  # the user's own class may raise anything
        raise ConfigurationError(f"loss {spec} can not be made: {type(error).__name__}: {error}") from error
    return made


def _check_mean(loss: Loss) -> Loss:
    if getattr(loss, "reduction", "mean") != "mean":
        raise ConfigurationError(f"loss must have reduction='mean', got {getattr(loss, 'reduction', None)!r}")
    return loss


def check_batch(loss: Loss, output: Any, target: Any) -> None:
    """Refuse what a loss of ours would give a number for, and does not mean.

    Args:
        output: of the model, for a small batch.
        target: of that batch.

    Raises:
        ConfigurationError: it does not.
    """
    if isinstance(loss, NegativeLogLikelihood | BinaryCrossEntropy | Hinge):
        loss.check(output, target)


def fit_targets(output: Tensor, target: Tensor) -> Tensor | None:
    """One target for each output, in the outputs' shape; None where there is not.

    Shapes may differ by a last dimension of 1, which torch would broadcast to (B, B).

    Args:
        output: (B, ...), floating.
        target: (B, ...) or (B, ..., 1), of any type.

    Returns:
        The targets in the outputs' shape and type.
    """
    if output.shape not in (target.shape, (*target.shape, 1)) and target.shape != (*output.shape, 1):
        return None
    return target.reshape(output.shape).to(output.dtype)


def _fit(name: str, output: Tensor, target: Tensor) -> Tensor:
    fitting = fit_targets(output, target)
    if fitting is None:
        raise ConfigurationError(
            f"loss {name} needs one target for each output, got outputs {tuple(output.shape)} and "
            f"targets {tuple(target.shape)}; make the model's outputs fit, or for labels of several classes use "
            "cross-entropy or multi-class-hinge"
        )
    return fitting


def _check_labels(name: str, target: Tensor, meant: bool, what: str) -> None:
    if not meant:
        found = ", ".join(f"{value:.3g}" for value in target.flatten()[:4].tolist())
        raise ConfigurationError(f"loss {name} needs targets {what}, got {found}; for numbers use mse, mae or huber")


def _check_classes(name: str, output: Tensor) -> None:
    """Softmax over a single score is 1, whatever the score: such a loss would be 0 and teach nothing."""
    if output.dim() < 2 or output.shape[1] < 2:
        raise ConfigurationError(
            f"loss {name} needs a score for each of at least two classes, got outputs {tuple(output.shape)}; "
            "for one score a sample use binary-cross-entropy or hinge, for numbers mse"
        )


def _labels(output: Tensor) -> int:
    """How many labels outputs, (B, classes, ...), are for."""
    return output.numel() // output.shape[1]


def _on(output: Tensor, weight: float | tuple[float, ...] | None) -> Tensor | None:
    """A weight as a tensor where the outputs are."""
    return None if weight is None else torch.tensor(weight, dtype=output.dtype, device=output.device)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _read_weights(loss: Any, argument: str) -> tuple[float, ...] | None:
    given = getattr(loss, argument)
    if given is None:
        return None
    weights = given.tolist() if isinstance(given, Tensor) else given
    many = isinstance(weights, list | tuple) and len(weights) > 0
    _check(loss, argument, "a list of numbers >= 0", many and all(_is_number(w) and w >= 0 for w in weights))
    return tuple(map(float, weights))


def _check(loss: Any, argument: str, rule: str, holds: bool) -> None:
    if not holds:
        raise ConfigurationError(f"loss {loss.name}: {argument} must be {rule}, got {getattr(loss, argument)!r}")
