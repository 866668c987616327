import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from psgd.config import Loss
from psgd.training.losses import loss
from psgd.training.task import Task, infer_task

TEN = Task("multiclass", 10)
NUMBERS = Task("regression")
BINARY = Task("binary", 2)
PROBABILITIES = Task("binary", 2, probabilities=True)


def own(output: Tensor, target: Tensor) -> Tensor:
    return (output.flatten() - target.flatten()).abs().mean()


def labels(*values: int) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("outputs", "targets", "loss", "task"),
    [
        (torch.zeros(3, 10), labels(1, 2, 9), loss("cross-entropy"), TEN),
        (torch.zeros(3, 10), labels(1, 2, 9), nn.CrossEntropyLoss(), TEN),
        (torch.zeros(3, 10), labels(1, 2, 9), functional.cross_entropy, TEN),
        (torch.zeros(3, 10), labels(1, 2, 9), own, TEN),
        (torch.zeros(3, 10, 5), torch.zeros(3, 5, dtype=torch.uint8), own, TEN),
        (torch.zeros(3, 2), labels(0, 1, 1), loss("multi-class-hinge"), Task("multiclass", 2)),
        (torch.zeros(3, 10), torch.zeros(3, 10), loss("cross-entropy"), None),  # probabilities as targets
        (torch.zeros(3, 1), torch.zeros(3, 1), loss("mse"), NUMBERS),
        (torch.zeros(3, 1), torch.zeros(3), nn.MSELoss(), NUMBERS),
        (torch.zeros(3, 4), torch.zeros(3, 4), own, NUMBERS),
        (torch.zeros(3, 1), labels(0, 1, 1), loss("huber"), NUMBERS),  # the loss says so
        (torch.zeros(3, 1), labels(0, 1, 4), own, NUMBERS),  # counts
        (torch.zeros(3, 1), torch.zeros(3), own, NUMBERS),
        (torch.zeros(3, 1), labels(0, 1, 1), loss("bce-with-logits"), BINARY),
        (torch.zeros(3), torch.zeros(3), nn.BCEWithLogitsLoss(), BINARY),
        (torch.zeros(3), torch.zeros(3), loss("hinge"), BINARY),
        (torch.zeros(3, 4), torch.zeros(3, 4), loss("bce-with-logits"), BINARY),  # of each label
        (torch.zeros(3), labels(0, 1, 1), own, BINARY),
        (torch.zeros(3, 1), labels(-1, 1, 1), own, BINARY),
        (torch.zeros(3, 1), labels(0, 1, 1).bool(), own, BINARY),
        (torch.zeros(3, 1), labels(0, -1, 1), own, NUMBERS),
        (torch.zeros(3, 1), torch.zeros(3, 1), nn.BCELoss(), PROBABILITIES),
        (torch.zeros(3, 1), torch.zeros(3, 1), functional.binary_cross_entropy, PROBABILITIES),
        (torch.zeros(3, 4), torch.zeros(3), loss("mse"), None),
        (torch.zeros(3, 4), torch.zeros(2, 3), own, None),
        (torch.zeros(()), torch.zeros(()), own, None),
        (torch.zeros(3, dtype=torch.complex64), torch.zeros(3), own, None),
        ({"a": torch.zeros(3)}, torch.zeros(3), own, None),
        (torch.zeros(3), [torch.zeros(3)], own, None),
    ],
)
def test_what_outputs_and_targets_mean(outputs: object, targets: object, loss: Loss, task: Task | None) -> None:
    assert infer_task(outputs, targets, loss) == task


def test_logits_are_the_odds_of_probabilities() -> None:
    scores = torch.tensor([[0.5], [0.75], [0.0]])
    assert BINARY.logits(scores).tolist() == [0.5, 0.75, 0.0]
    odds = PROBABILITIES.logits(scores)
    assert odds[:2].tolist() == pytest.approx([0.0, 1.0986122886681098])  # ln 3
    assert -30 < float(odds[2]) < -20
