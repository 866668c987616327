import math
import pickle
import sys
from typing import Any

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics.classification import MulticlassCohenKappa, MulticlassConfusionMatrix

from psgd.errors import ConfigurationError
from psgd.training.losses import resolve_loss
from psgd.training.metrics import Measured, check_metrics, evaluate, prepare_evaluation, resolve_metrics

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
    assert metrics.scalars == {"loss": pytest.approx((4 * right + wrong) / 5), "accuracy": 0.8}
    assert metrics.arrays == {}


def test_numbers_have_an_error_and_a_part_that_is_explained() -> None:
    dataset = TensorDataset(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 4.0, 1.0]))
    measured = evaluate(Recorder(), dataset, resolve_loss("mse"), 2, CPU)
    assert measured.scalars == {
        "loss": pytest.approx(8 / 3),
        "rmse": pytest.approx(math.sqrt(8 / 3)),
        "r2": pytest.approx(1 - 8 / 6),
    }


def test_one_score_a_sample_has_an_accuracy_too() -> None:
    dataset = TensorDataset(torch.tensor([[0.2], [-0.1], [-3.0]]), torch.tensor([1, 1, 0]))
    assert evaluate(Recorder(), dataset, resolve_loss("hinge"), 2, CPU).scalars["accuracy"] == 2 / 3


def test_where_nothing_is_known_of_the_outputs_there_is_the_loss() -> None:
    def distance(output: Tensor, target: Tensor) -> Tensor:
        return (output.sum(dim=1) - target).abs().mean()

    dataset = TensorDataset(torch.ones(2, 3), torch.tensor([1.0, 4.0]))
    assert evaluate(Recorder(), dataset, distance, 1, CPU) == Measured({"loss": 1.5}, {})


def test_accuracy_counts_every_position_of_a_sequence() -> None:
    scores = torch.tensor([[[2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]])  # (B, classes, positions)
    metrics = evaluate(Recorder(), TensorDataset(scores, torch.tensor([[0, 1, 1]])), resolve_loss(), 1, CPU)
    assert metrics.scalars["accuracy"] == 2 / 3


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


def test_the_metrics_asked_for_take_the_place_of_the_default_ones() -> None:
    asked = resolve_metrics(["confusion-matrix", "top2", "f1:average=none"])
    measured = evaluate(Recorder(), TensorDataset(SCORES, LABELS), resolve_loss(), 2, CPU, asked)
    assert measured.scalars.keys() == {"loss", "top2"}
    assert measured.arrays == {"confusion_matrix": ((2, 0), (1, 2)), "f1_per_class": (0.8, 0.8)}
    assert evaluate(Recorder(), TensorDataset(SCORES, LABELS), resolve_loss(), 2, CPU, ()).scalars.keys() == {"loss"}


class Largest(torchmetrics.Metric):
    """A metric of the user's own."""

    largest: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("largest", torch.tensor(0.0))

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.largest = torch.maximum(self.largest, outputs.max())

    def compute(self) -> Tensor:
        return self.largest


def collection() -> torchmetrics.MetricCollection:
    return torchmetrics.MetricCollection({"most": Largest(), "kappa": MulticlassCohenKappa(2)})


def test_metrics_of_the_users_own_are_made_anew_for_each_evaluation() -> None:
    used = Largest()
    used.update(torch.tensor([1.0]), torch.tensor([0]))
    used.reset()
    asked = resolve_metrics([Largest, ("by_name", Largest), ("used", used), ("all", collection)])
    assert asked is not None
    asked = pickle.loads(pickle.dumps(asked))
    for _ in range(2):
        measured = evaluate(Recorder(), TensorDataset(SCORES, LABELS), resolve_loss(), 2, CPU, asked)
        kappa = pytest.approx(0.6153846)  # (0.8 - 0.48)/(1 - 0.48)
        expected = {"Largest": 2.0, "by_name": 2.0, "used": 2.0, "most": 2.0, "kappa": kappa}
        assert {name: value for name, value in measured.scalars.items() if name != "loss"} == expected


def test_a_metric_of_the_users_own_may_be_an_array() -> None:
    asked = resolve_metrics([MulticlassConfusionMatrix(2)])
    measured = evaluate(Recorder(), TensorDataset(SCORES, LABELS), resolve_loss(), 2, CPU, asked)
    assert measured.arrays == {"MulticlassConfusionMatrix": ((2, 0), (1, 2))}


def test_metrics_are_named_in_text() -> None:
    names = ["accuracy", "top5", "top-3", "top-k:k=2", "f1", "f1:average=micro", "recall:average=none", "log-loss"]
    found = resolve_metrics(names)
    assert found is not None
    assert [getattr(metric, "key", None) for metric in found] == [
        *("accuracy", "top5", "top3", "top2", "f1", "f1_micro", "recall_per_class", "log_loss")
    ]
    assert resolve_metrics(None) is None
    (imported,) = resolve_metrics(["torchmetrics:MeanSquaredError"]) or ()
    assert getattr(imported, "key", None) == "MeanSquaredError"


def nothing() -> None:
    return None


def broken() -> Largest:
    raise ValueError("no")


KNOWN = (
    "metric must be one of accuracy, auroc, confusion-matrix, f1, log-loss, mae, my.pkg:factory, precision, r2, "
    "recall, rmse, top-k, top5, got "
)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["acuracy"], f"{KNOWN}'acuracy'; did you mean accuracy or auroc?"),
        (["f2:average=macro"], f"{KNOWN}'f2'"),
        ("accuracy", "metrics must be a list of names and functions, got 'accuracy'"),
        (["f1:avg=macro"], "metric f1 has no argument 'avg'; it takes average"),
        (["rmse:average=macro"], "metric rmse has no argument 'average'; it takes none"),
        (["f1:macro"], "metric f1:macro: arguments are written name=value, as in f1:average=macro"),
        (
            ["f1:average=mean"],
            "metric f1: average must be one of macro, micro, weighted, none, got 'mean'",
        ),
        (["auroc:average=micro"], "metric auroc: average must be one of macro, weighted, none, got 'micro'"),
        (["top-k"], "metric top-k needs k >= 1, as in top-k:k=5, got None"),
        (["top0"], "metric top-k needs k >= 1, as in top-k:k=5, got 0"),
        (["top-k:k=many"], "metric top-k needs k >= 1, as in top-k:k=5, got 'many'"),
        (["f1", "f1"], "metrics must have names of their own, got f1 twice"),
        ([("loss", Largest)], "metrics must have names of their own, got loss twice"),
        ([3], "a metric must be a name or a function that makes a torchmetrics.Metric, got 3"),
        ([nothing], "a metric must be a name or a function that makes a torchmetrics.Metric, got nothing"),
        ([broken], "metric broken can not be made: ValueError: no"),
        (["no_such_module:make"], "metric no_such_module:make: can not import no_such_module (ModuleNotFoundError: "),
    ],
)
def test_what_is_no_metric_is_refused(metrics: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_metrics(metrics)
    assert str(caught.value).startswith(message)


NUMBERS, CLASSES = (torch.zeros(2, 1), torch.zeros(2, 1)), (torch.zeros(2, 3), torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("name", "batch", "loss", "message"),
    [
        (
            "auroc",
            NUMBERS,
            "mse",
            "metric auroc needs classes, got numbers: outputs (2, 1) float32 for targets (2, 1) float32 under the loss "
            "SquaredError",
        ),
        (
            "r2",
            CLASSES,
            "cross-entropy",
            "metric r2 needs numbers, got several classes: outputs (2, 3) float32 for targets (2,) int64 under the "
            "loss CrossEntropy",
        ),
        (
            "accuracy",
            (torch.zeros(2, 3), torch.zeros(2)),
            "mse",
            "metric accuracy needs classes, got neither classes nor numbers: outputs (2, 3) float32 for targets (2,) "
            "float32 under the loss SquaredError",
        ),
        ("top5", CLASSES, "cross-entropy", "metric top-k needs k <= 3, the classes, got 5"),
        (
            "top2",
            NUMBERS,
            "hinge",
            "metric top2 needs several classes, got two classes: outputs (2, 1) float32 for targets (2, 1) float32 "
            "under the loss Hinge",
        ),
        (
            "auroc:average=macro",
            NUMBERS,
            "hinge",
            "metric auroc of two classes has no average, got 'macro'; leave it out",
        ),
        (
            "torchmetrics:MeanSquaredError",
            CLASSES,
            "cross-entropy",
            "metric MeanSquaredError fails on a batch of train_data: RuntimeError: Predictions and targets are "
            "expected to have the same shape, but got torch.Size([2, 3]) and torch.Size([2]).",
        ),
    ],
)
def test_a_metric_that_does_not_go_with_the_model_is_refused_before(
    name: str, batch: tuple[Tensor, Tensor], loss: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_metrics(resolve_metrics([name]), *batch, resolve_loss(loss))
    assert str(caught.value) == message


def test_metrics_that_go_with_the_model_pass() -> None:
    check_metrics(None, *CLASSES, resolve_loss())
    check_metrics(resolve_metrics(["f1", "top3", Largest]), *CLASSES, resolve_loss())
    check_metrics(resolve_metrics(["r2", "mae"]), *NUMBERS, resolve_loss("mse"))


def test_names_are_resolved_and_checked_without_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)  # to import it would fail now
    check_metrics(resolve_metrics(["f1", "top3", "auroc:average=none"]), *CLASSES, resolve_loss())


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


def test_an_evaluation_is_prepared_with_few_samples_and_nothing_is_computed_from_them() -> None:
    class OfMany(torchmetrics.SumMetric):
        def update(self, outputs: Tensor, targets: Tensor) -> None:  # type: ignore[override]
            super().update(targets)

        def compute(self) -> Tensor:
            raise AssertionError("two samples are too few for some metrics")

    model = Recorder().eval()
    prepare_evaluation(model, TensorDataset(SCORES, LABELS), resolve_loss(), CPU, resolve_metrics([OfMany]))
    prepare_evaluation(model, TensorDataset(SCORES[:1], LABELS[:1]), resolve_loss(), CPU)
    assert model.seen == [(2, False, True), (1, False, True)]
    with pytest.raises(ConfigurationError, match="must have samples, got none"):
        prepare_evaluation(model, TensorDataset(SCORES[:0], LABELS[:0]), resolve_loss(), CPU)
