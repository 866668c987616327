import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from psgd.errors import ConfigurationError
from psgd.training.losses import resolve_loss
from psgd.training.metrics import evaluate

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Passes its inputs on and remembers in which mode, and in which sizes of batch."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Dropout().eval()
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append((len(inputs), self.training, torch.is_inference_mode_enabled()))
        return inputs


SCORES = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 1, 0])


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_metrics_are_means_over_samples_whatever_the_batch_size(batch_size: int) -> None:
    metrics = evaluate(Recorder(), TensorDataset(SCORES, LABELS), resolve_loss(), batch_size, CPU)
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    assert metrics == {"loss": pytest.approx((4 * right + wrong) / 5), "accuracy": 0.8}


def test_a_regression_has_no_accuracy() -> None:
    dataset = TensorDataset(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [4.0]]))
    assert evaluate(Recorder(), dataset, resolve_loss("mse"), 1, CPU) == {"loss": 2.0}


def test_integer_targets_that_are_no_classes_have_no_accuracy() -> None:
    def distance(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().mean()

    dataset = TensorDataset(torch.tensor([[1.0], [2.0]]), torch.tensor([[1], [4]]))
    assert evaluate(Recorder(), dataset, distance, 1, CPU) == {"loss": 1.0}


def test_accuracy_counts_every_position_of_a_sequence() -> None:
    scores = torch.tensor([[[2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]])  # (B, classes, positions)
    metrics = evaluate(Recorder(), TensorDataset(scores, torch.tensor([[0, 1, 1]])), resolve_loss(), 1, CPU)
    assert metrics["accuracy"] == 2 / 3


def test_the_model_is_evaluated_in_eval_mode_and_left_as_it_was() -> None:
    model = Recorder()
    evaluate(model, TensorDataset(SCORES, LABELS), resolve_loss(), 2, CPU)
    assert model.seen == [(2, False, True), (2, False, True), (1, False, True)]
    assert (model.training, model.frozen.training) == (True, False)


def test_the_mode_is_restored_after_an_error() -> None:
    model = Recorder()
    with pytest.raises(ValueError, match="Expected input batch_size"):
        evaluate(model, TensorDataset(SCORES, LABELS), lambda output, _: resolve_loss()(output, LABELS), 2, CPU)
    assert (model.training, model.frozen.training) == (True, False)


@pytest.mark.parametrize(
    ("samples", "batch_size", "message"),
    [
        (0, 1, "the data set of an evaluation must have samples, got none"),
        (5, 0, "batch_size of an evaluation must be >= 1, got 0"),
    ],
)
def test_nothing_to_evaluate_is_refused(samples: int, batch_size: int, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        evaluate(Recorder(), TensorDataset(SCORES[:samples], LABELS[:samples]), resolve_loss(), batch_size, CPU)
    assert str(caught.value) == message
