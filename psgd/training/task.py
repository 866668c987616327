"""What a model's outputs and its data's targets mean: numbers, two classes or several."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from psgd.config import Loss
from psgd.training.losses import (
    AbsoluteError,
    BinaryCrossEntropy,
    CrossEntropy,
    Hinge,
    Huber,
    MultiClassHinge,
    NegativeLogLikelihood,
    SmoothAbsoluteError,
    SquaredError,
    fit_targets,
)

Kind = Literal["regression", "binary", "multiclass"]

# Classes and functions that say what outputs and targets mean.
BY_LOSS: dict[Kind, tuple[object, ...]] = {
    "regression": (
        *(SquaredError, AbsoluteError, Huber, SmoothAbsoluteError),
        *(nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.SmoothL1Loss),
        *(functional.mse_loss, functional.l1_loss, functional.huber_loss, functional.smooth_l1_loss),
    ),
    "binary": (
        *(BinaryCrossEntropy, Hinge, nn.BCEWithLogitsLoss, nn.BCELoss),
        *(functional.binary_cross_entropy_with_logits, functional.binary_cross_entropy),
    ),
    "multiclass": (
        *(CrossEntropy, NegativeLogLikelihood, MultiClassHinge),
        *(nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss),
        *(functional.cross_entropy, functional.nll_loss, functional.multi_margin_loss),
    ),
}
OF_PROBABILITIES = (nn.BCELoss, functional.binary_cross_entropy)
LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True, slots=True)
class Task:
    """What outputs and targets mean.

    Attributes:
        kind: ``regression``: numbers, as many as targets; ``binary``: a score for each target, which is of class 1
            or not; ``multiclass``: outputs (B, classes, ...) and labels (B, ...).
        classes: how many; 0 of a regression.
        probabilities: the binary scores are probabilities, not logits.
    """

    kind: Kind
    classes: int = 0
    probabilities: bool = False

    def logits(self, outputs: Tensor) -> Tensor:
        """One number, float64 (N,), for each binary target: the logarithm of the odds of class 1."""
        scores = outputs.flatten().double()
        return torch.logit(scores, LEAST_PROBABILITY) if self.probabilities else scores


def infer_task(outputs: object, targets: object, loss: Loss) -> Task | None:
    """Find out what outputs and targets mean, from their types and shapes and from the loss.

    - Integers (or bools), (B, ...), beside outputs (B, classes, ...) with at least two classes: **multiclass**.
    - One output for each target, in shapes that differ by a last dimension of 1 at most: **binary** if the loss is
      a binary one (binary cross-entropy, hinge), **regression** if it is one of numbers (mse, mae, huber,
      smooth-l1). With a loss that does not tell, targets that are bools, or integers that are all 0 and 1 or all
      −1 and 1, are binary, all others a regression.

    Outputs count as logits, except with ``torch.nn.BCELoss``, which is a loss of probabilities.

    Args:
        outputs: of the model for one batch.
        targets: of that batch.

    Returns:
        None if there is nothing of these, such as outputs that are no tensor: then only the loss can be measured.

    Example:
        >>> infer_task(torch.zeros(4, 10), torch.tensor([1, 9, 0, 3]), nn.CrossEntropyLoss())
        Task(kind='multiclass', classes=10, probabilities=False)
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return None
    if outputs.is_complex() or targets.is_complex() or outputs.dim() == 0:
        return None
    told = next((kind for kind, losses in BY_LOSS.items() if _is_one_of(loss, losses)), None)
    if told in (None, "multiclass") and _are_labels(outputs, targets):
        return Task("multiclass", outputs.shape[1])
    if told == "multiclass" or fit_targets(outputs, targets) is None:
        return None
    if told == "binary" or (told is None and _are_binary(targets)):
        return Task("binary", 2, probabilities=_is_one_of(loss, OF_PROBABILITIES))
    return Task("regression")


def _is_one_of(loss: Loss, losses: tuple[object, ...]) -> bool:
    return any(loss is one or (isinstance(one, type) and isinstance(loss, one)) for one in losses)


def _are_labels(outputs: Tensor, targets: Tensor) -> bool:
    return (
        not targets.is_floating_point()
        and outputs.dim() >= 2
        and outputs.shape[1] >= 2
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )


def _are_binary(targets: Tensor) -> bool:
    values = set(targets.unique().tolist())
    return not targets.is_floating_point() and (values <= {0, 1} or values <= {-1, 1})
