"""Each named metric against values written out by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from psgd.config import Loss
from psgd.errors import ConfigurationError
from psgd.training.losses import loss
from psgd.training.metrics import resolve_metrics
from psgd.training.named_metrics import METRICS, NamedMetric

# Decided: 0 0 1 2 2 1; so the rows of the true classes are (2 0 1), (0 1 0), (0 1 1).
LABELS = torch.tensor([0, 0, 1, 2, 0, 2])
SCORES = torch.tensor(
    [
        [3.0, 0.0, 1.0],
        [2.0, 1.0, 0.0],
        [0.0, 4.0, 1.0],
        [1.0, 0.0, 2.0],
        [0.5, 0.0, 1.0],
        [0.0, 1.0, 0.5],
    ]
)
CROSS_ENTROPY = loss("cross-entropy")

# Decided by the sign: 1 1 0 0 1; true: 1 0 0 1 1.
ODDS = torch.tensor([2.0, 0.5, -1.0, -0.5, 0.25])
TRUTH = torch.tensor([1, 0, 0, 1, 1])
BINARY = loss("binary-cross-entropy")

NUMBERS = torch.tensor([[1.0], [2.0], [4.0]])
TARGETS = torch.tensor([[1.0], [4.0], [1.0]])
MSE = loss("mse")


def measure(name: str, outputs: Tensor, targets: Tensor, loss: Loss, batch: int = 2) -> Any:
    (metric,) = resolve_metrics([name]) or ()
    meter = metric(outputs[:batch], targets[:batch], loss)
    for start in range(0, len(outputs), batch):
        meter.update(outputs[start : start + batch], targets[start : start + batch])
    (value,) = meter.result().values()
    return value


def assert_near(value: Any, expected: Any, rel: float = 1e-12) -> None:
    """Numbers, or arrays of the same shape."""
    wanted = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(torch.tensor(value, dtype=torch.float64), wanted, rtol=rel, atol=0)


def softmax_loss(outputs: Tensor, targets: Tensor) -> float:
    rows = [row[label] - row.logsumexp(0) for row, label in zip(outputs.double(), targets, strict=True)]
    return float(-sum(rows) / len(rows))


@pytest.mark.parametrize("batch", [1, 2, 6])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 4 / 6),
        ("accuracy:average=macro", (2 / 3 + 1 + 1 / 2) / 3),
        ("accuracy:average=none", (2 / 3, 1.0, 0.5)),
        ("top1", 4 / 6),
        ("top2", 1.0),
        ("precision", (1 + 1 / 2 + 1 / 2) / 3),
        ("precision:average=weighted", (3 * 1 + 1 / 2 + 2 / 2) / 6),
        ("precision:average=none", (1.0, 0.5, 0.5)),
        ("recall", (2 / 3 + 1 + 1 / 2) / 3),
        ("recall:average=micro", 4 / 6),
        ("f1", (4 / 5 + 2 / 3 + 1 / 2) / 3),
        ("f1:average=macro", (4 / 5 + 2 / 3 + 1 / 2) / 3),
        ("f1:average=none", (4 / 5, 2 / 3, 1 / 2)),
        ("log-loss", softmax_loss(SCORES, LABELS)),
        ("confusion-matrix", ((2, 0, 1), (0, 1, 0), (0, 1, 1))),
    ],
)
def test_metrics_of_several_classes(name: str, expected: Any, batch: int) -> None:
    assert_near(measure(name, SCORES, LABELS, CROSS_ENTROPY, batch), expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 3 / 5),
        ("precision", 2 / 3),
        ("recall", 2 / 3),
        ("f1", 2 / 3),
        ("f1:average=none", (1 / 2, 2 / 3)),
        ("f1:average=macro", (1 / 2 + 2 / 3) / 2),
        ("f1:average=micro", 3 / 5),
        ("auroc", 4 / 6),  # of 3 * 2 pairs (2 > 0.5, 2 > -1, -0.5 > -1, 0.25 > -1) are in order
        ("confusion-matrix", ((1, 1), (1, 2))),
        (
            "log-loss",
            sum(math.log1p(math.exp(-odds)) for odds in (2.0, -0.5, 1.0, -0.5, 0.25)) / 5,
        ),
    ],
)
@pytest.mark.parametrize("shape", [(5,), (5, 1)])
def test_metrics_of_two_classes(name: str, expected: Any, shape: tuple[int, ...]) -> None:
    for truth in (TRUTH, TRUTH[:, None], TRUTH.float(), TRUTH.bool(), 2 * TRUTH - 1):
        assert_near(measure(name, ODDS.view(shape), truth, loss("hinge")), expected, rel=1e-6)


def test_probabilities_are_not_mistaken_for_logits_nor_the_other_way_round() -> None:
    probabilities = ODDS.sigmoid()
    for name in ("accuracy", "log-loss", "auroc", "f1"):
        by_logits = measure(name, ODDS, TRUTH.float(), BINARY, batch=1)
        by_probabilities = measure(name, probabilities, TRUTH.float(), nn.BCELoss(), batch=1)
        assert by_logits == pytest.approx(by_probabilities, rel=1e-6)
    small = torch.tensor([0.1, 0.3, 0.7])  # logits that look like probabilities: all mean class 1
    assert measure("accuracy", small, torch.tensor([1, 1, 1]), BINARY) == 1.0
    assert measure("auroc", SCORES / 100, LABELS, CROSS_ENTROPY) == measure(
        "auroc", (SCORES / 100).log_softmax(1), LABELS, loss("nll")
    )


def test_auroc_of_several_classes_is_of_each_against_the_rest() -> None:
    each = measure("auroc:average=none", SCORES, LABELS, CROSS_ENTROPY)
    probabilities = SCORES.double().softmax(1)
    for label in range(3):
        is_one = torch.eq(LABELS, label)
        positive, negative = probabilities[is_one, label], probabilities[~is_one, label]
        pairs = positive[:, None] - negative[None, :]
        assert each[label] == pytest.approx(float((pairs > 0).double().mean() + (pairs == 0).double().mean() / 2))
    assert measure("auroc", SCORES, LABELS, CROSS_ENTROPY) == pytest.approx(sum(each) / 3)
    weighted = (3 * each[0] + each[1] + 2 * each[2]) / 6
    assert measure("auroc:average=weighted", SCORES, LABELS, CROSS_ENTROPY) == pytest.approx(weighted)


@pytest.mark.parametrize("name", ["accuracy", "top2", "f1", "log-loss", "auroc", "confusion-matrix"])
def test_every_position_of_a_sequence_counts(name: str) -> None:
    sequence = SCORES.view(2, 3, 3).transpose(1, 2)  # (B, classes, positions)
    expected = measure(name, SCORES, LABELS, CROSS_ENTROPY)
    assert_near(measure(name, sequence, LABELS.view(2, 3), CROSS_ENTROPY, batch=1), expected)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("shape", [(3, 1), (3,)])
def test_metrics_of_numbers(shape: tuple[int, ...], batch: int) -> None:
    outputs, targets = NUMBERS.view(shape), TARGETS.view(shape)
    assert measure("rmse", outputs, targets, MSE, batch) == pytest.approx(math.sqrt((0 + 4 + 9) / 3), rel=1e-12)
    assert measure("mae", outputs, targets, MSE, batch) == pytest.approx((0 + 2 + 3) / 3, rel=1e-12)
    assert measure("r2", outputs, targets, MSE, batch) == pytest.approx(1 - 13 / 6, rel=1e-12)


def test_several_outputs_of_numbers() -> None:
    outputs, targets = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0]])
    assert measure("rmse", outputs, targets, MSE) == pytest.approx(1.0)
    assert measure("r2", outputs, targets, MSE) == pytest.approx((1 + 0.5) / 2)


def test_a_large_mean_does_not_swallow_the_spread() -> None:
    offset = 1e6
    outputs, targets = NUMBERS + offset, TARGETS + offset
    assert measure("r2", outputs, targets, MSE) == pytest.approx(1 - 13 / 6, rel=1e-6)


NAN = math.nan


def test_what_can_not_be_told_is_nan() -> None:
    one = torch.tensor([1, 1])
    assert math.isnan(measure("r2", NUMBERS[:1], TARGETS[:1], MSE))
    assert math.isnan(measure("auroc", ODDS[:2], one, BINARY))
    assert math.isnan(measure("auroc", SCORES[:2], one, CROSS_ENTROPY))
    absent = measure("auroc:average=none", SCORES[:3], LABELS[:3], CROSS_ENTROPY)
    assert absent[:2] == (1.0, 1.0)
    assert math.isnan(absent[2])
    assert measure("auroc", SCORES[:3], LABELS[:3], CROSS_ENTROPY) == 1.0


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_model_that_has_diverged_can_be_measured(name: str, bad: float) -> None:
    spec = "top2" if name == "top-k" else name
    batches = {
        "multiclass": (SCORES, LABELS, CROSS_ENTROPY),
        "binary": (ODDS, TRUTH, BINARY),
        "regression": (NUMBERS, TARGETS, MSE),
    }
    for task in METRICS[name].tasks:
        outputs, targets, loss_ = batches[task]
        value = measure(spec, torch.full_like(outputs, bad), targets, loss_)
        if name in ("rmse", "mae", "log-loss", "r2", "auroc") and math.isnan(bad):
            assert math.isnan(value)


def test_targets_that_do_not_fit_later_are_an_error_in_one_line() -> None:
    meter = NamedMetric("rmse")(NUMBERS, TARGETS, MSE)
    with pytest.raises(
        ConfigurationError, match=r"^metrics need one target for each output, got outputs \(3, 1\) float32"
    ):
        meter.update(NUMBERS, torch.zeros(3, 2))


def test_the_log_loss_is_the_loss_that_was_trained_with() -> None:
    expected = float(functional.cross_entropy(SCORES, LABELS))
    assert measure("log-loss", SCORES, LABELS, CROSS_ENTROPY) == pytest.approx(expected, rel=1e-6)
