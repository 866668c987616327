"""The metrics that have a name: torchmetrics', fed with what they want of a model's outputs.

torchmetrics takes a second to import, so only who measures imports it: names, arguments and whether a metric goes
with a task are checked without.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from psgd.config import Loss
from psgd.errors import ConfigurationError
from psgd.training.losses import fit_targets
from psgd.training.names import unknown, unknown_argument
from psgd.training.task import Task, infer_task

if TYPE_CHECKING:  # a second
    from torchmetrics import Metric

CLASSES = ("binary", "multiclass")
MEANINGS = {"regression": "numbers", "binary": "two classes", "multiclass": "several classes"}
AVERAGES = ("macro", "micro", "weighted", "none")
TWO = 2
"""Fewer targets have no spread that R² could explain a part of."""


@dataclass(frozen=True, slots=True)
class NamedMetric:
    """A metric by name, as a `psgd.config.MetricFactory`.

    - ``accuracy``: the fraction of right labels; ``top-k:k=3`` or ``top3``: of those among the k highest scores;
    - ``precision``, ``recall``, ``f1``: of class 1 where there are two, else the mean over classes;
    - ``auroc``: the area under the ROC curve, of several classes the mean of one against the rest, without classes
      that are not there (or alone); NaN if none is left, or a score is NaN;
    - ``log-loss``: the mean of −log p of the right class; ``confusion-matrix``: counts, a row each *true* class;
    - ``rmse``, ``mae``, ``r2``: over all numbers; R² of several outputs is their mean, NaN below two samples.

    Those of classes take ``average=macro|micro|weighted|none``, as torchmetrics means them (auroc has no micro one);
    ``none`` gives an array, a value for each class. With an average, two classes are both averaged over.

    Attributes:
        name: one of ``METRICS``.
        args: ``average`` or ``k``.

    Raises:
        ConfigurationError: the name or the argument is unknown, or a value invalid.

    Example:
        >>> NamedMetric("f1", {"average": "none"}).key
        'f1_per_class'
    """

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what does not exist."""
        if self.name not in METRICS:
            raise unknown("metric", self.name, [*METRICS, "top5", "my.pkg:factory"])
        takes = ["k"] if self.name == "top-k" else ["average"] if self._kind.averages else []
        for key in self.args:
            if key not in takes:
                raise unknown_argument(f"metric {self.name}", key, takes)
        if self.average is not None and self.average not in self._kind.averages:
            known = ", ".join(self._kind.averages)
            raise ConfigurationError(f"metric {self.name}: average must be one of {known}, got {self.average!r}")
        if self.name == "top-k" and (type(self.args.get("k")) is not int or self.args["k"] < 1):
            raise ConfigurationError(f"metric top-k needs k >= 1, as in top-k:k=5, got {self.args.get('k')!r}")

    @property
    def _kind(self) -> "_Kind":
        return METRICS[self.name]

    @property
    def average(self) -> str | None:
        """What was asked for."""
        return self.args.get("average")

    @property
    def key(self) -> str:
        """How evaluations name it: ``top5``, ``f1``, ``f1_macro``, ``f1_per_class``, ``log_loss``."""
        if self.name == "top-k":
            return f"top{self.args['k']}"
        suffix = {None: "", "none": "_per_class"}.get(self.average, f"_{self.average}")
        return self.name.replace("-", "_") + suffix

    def check(self, outputs: object, targets: object, loss: Loss) -> Task:
        """Find the task out.

        Raises:
            ConfigurationError: the metric does not go with it.
        """
        task = infer_task(outputs, targets, loss)
        if task is None or task.kind not in self._kind.tasks:
            wanted = MEANINGS[self._kind.tasks[-1]] if len(self._kind.tasks) == 1 else "classes"
            got = "neither classes nor numbers" if task is None else MEANINGS[task.kind]
            raise ConfigurationError(
                f"metric {self.key} needs {wanted}, got {got}: outputs {_describe(outputs)} for targets "
                f"{_describe(targets)} under the loss {getattr(loss, '__name__', type(loss).__name__)}"
            )
        if self.name == "top-k" and self.args["k"] > task.classes:
            raise ConfigurationError(f"metric top-k needs k <= {task.classes}, the classes, got {self.args['k']}")
        if self.name == "auroc" and self.average is not None and task.kind == "binary":
            raise ConfigurationError(f"metric auroc of two classes has no average, got {self.average!r}; leave it out")
        return task

    def __call__(self, outputs: object, targets: object, loss: Loss) -> "NamedMeter":
        """A meter for such outputs and targets.

        Raises:
            ConfigurationError: the metric does not go with them.
        """
        task = self.check(outputs, targets, loss)
        prepare, metric = self._kind.build(self, task)
        return NamedMeter(self, prepare, metric)


def _describe(part: object) -> str:
    if isinstance(part, Tensor):
        return f"{tuple(part.shape)} {str(part.dtype).removeprefix('torch.')}"
    return type(part).__name__


_Prepare = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
_Built = tuple[_Prepare, "Metric"]


class NamedMeter:
    """A metric that has seen some batches.

    Args:
        prepare: what the metric is to see of outputs and targets.
    """

    def __init__(self, named: NamedMetric, prepare: _Prepare, metric: "Metric") -> None:
        self._named = named
        self._prepare = prepare
        self._metric = metric

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in one batch."""
        if self._metric.device != outputs.device:
            self._metric.to(outputs.device)
        self._metric.update(*self._prepare(outputs, targets))

    def result(self) -> dict[str, Any]:
        """The metric by its key: a number, or nested tuples."""
        return {self._named.key: plain(_compute(self._named, self._metric))}


def plain(value: Tensor) -> Any:
    """A number, or nested tuples of numbers."""
    return _tuples(value.tolist())


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _compute(named: NamedMetric, metric: Any) -> Tensor:
    if named.name == "r2" and metric.total < TWO:
        return torch.tensor(math.nan)
    if named.name == "auroc":
        return _auroc(named, metric)
    computed: Tensor = metric.compute()
    return computed


def _auroc(named: NamedMetric, metric: Any) -> Tensor:
    """The area, NaN where there is nothing to tell apart; torchmetrics says 0 there, and warns."""
    from torchmetrics.utilities import dim_zero_cat

    scores, labels = dim_zero_cat(metric.preds), dim_zero_cat(metric.target)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets", category=UserWarning)
        areas: Tensor = metric.compute()
    counts = torch.bincount(labels, minlength=areas.numel() if areas.dim() else TWO)
    empty = (counts == 0) | (counts == len(labels)) | scores.isnan().any()
    if areas.dim() == 0:
        return areas.masked_fill(empty.any(), math.nan)
    if named.average == "none":
        return areas.masked_fill(empty, math.nan)
    weights = counts if named.average == "weighted" else torch.ones_like(counts)
    return (areas * weights)[~empty].sum() / weights[~empty].sum()


def _build_labelled(named: NamedMetric, task: Task) -> _Built:
    """Metrics of decisions: accuracy, precision, recall, f1."""
    from torchmetrics import classification

    name = {"accuracy": "Accuracy", "precision": "Precision", "recall": "Recall", "f1": "F1Score"}[named.name]
    if task.kind == "binary" and named.average is None:
        made = getattr(classification, f"Binary{name}")(sync_on_compute=False)
    else:
        average = named.average or ("micro" if named.name == "accuracy" else "macro")
        made = getattr(classification, f"Multiclass{name}")(task.classes, average=average, sync_on_compute=False)
    return _decide(task), made.set_dtype(torch.float64)  # counts of float32 would end at 2**24


def _build_top(named: NamedMetric, task: Task) -> _Built:
    from torchmetrics.classification import MulticlassAccuracy

    made = MulticlassAccuracy(task.classes, top_k=named.args["k"], average="micro", sync_on_compute=False)
    return _as_they_are, made.set_dtype(torch.float64)


def _build_confusion(_: NamedMetric, task: Task) -> _Built:
    from torchmetrics.classification import MulticlassConfusionMatrix

    return _decide(task), MulticlassConfusionMatrix(task.classes, sync_on_compute=False)


def _build_auroc(_: NamedMetric, task: Task) -> _Built:
    from torchmetrics.classification import BinaryAUROC, MulticlassAUROC

    # Whether outputs are logits torchmetrics would guess anew for each batch, from their range.
    if task.kind == "multiclass":
        return _classify, MulticlassAUROC(task.classes, average="none", sync_on_compute=False)

    def score(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        return task.logits(outputs).sigmoid(), _label(outputs, targets)

    return score, BinaryAUROC(sync_on_compute=False)


def _build_log_loss(_: NamedMetric, task: Task) -> _Built:
    from torchmetrics import MeanMetric

    def binary(outputs: Tensor, targets: Tensor) -> tuple[Tensor]:
        labels = _label(outputs, targets).double()
        return (functional.binary_cross_entropy_with_logits(task.logits(outputs), labels, reduction="none"),)

    def multiclass(outputs: Tensor, targets: Tensor) -> tuple[Tensor]:
        return (functional.cross_entropy(outputs.double(), targets.long(), reduction="none"),)

    metric = MeanMetric(nan_strategy="disable", sync_on_compute=False).set_dtype(torch.float64)
    return binary if task.kind == "binary" else multiclass, metric


def _build_regression(named: NamedMetric, _: Task) -> _Built:
    from torchmetrics import regression

    if named.name == "r2":
        made: Metric = regression.R2Score(sync_on_compute=False)
        return _rows, made.set_dtype(torch.float64)
    if named.name == "mae":
        return _numbers, regression.MeanAbsoluteError(sync_on_compute=False).set_dtype(torch.float64)
    return _numbers, regression.MeanSquaredError(squared=False, sync_on_compute=False).set_dtype(torch.float64)


def _fit(outputs: Tensor, targets: Tensor) -> Tensor:
    """One target for each output, float64: in float32 large numbers would cancel each other."""
    fitting = fit_targets(outputs.double(), targets)
    if fitting is None:
        raise ConfigurationError(
            f"metrics need one target for each output, got outputs {_describe(outputs)}, targets {_describe(targets)}"
        )
    return fitting


def _label(outputs: Tensor, targets: Tensor) -> Tensor:
    """Labels 0 and 1, int64 (N,), of binary targets, which may also be −1 and 1, or of any type."""
    return (_fit(outputs, targets).flatten() > 0).long()


def _decide(task: Task) -> _Prepare:
    """Decided and true labels."""
    if task.kind == "multiclass":
        return _as_they_are  # torchmetrics takes the highest score
    return lambda outputs, targets: ((task.logits(outputs) > 0).long(), _label(outputs, targets))


def _as_they_are(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return outputs, targets.long()


def _classify(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities (N, classes) and labels (N,)."""
    probabilities = outputs.double().softmax(dim=1)
    return probabilities.movedim(1, -1).reshape(-1, outputs.shape[1]), targets.flatten().long()


def _numbers(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 (N,)."""
    return outputs.double().flatten(), _fit(outputs, targets).flatten()


def _rows(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 (B, numbers a sample)."""
    numbers, fitting = _numbers(outputs, targets)
    return numbers.view(len(outputs), -1), fitting.view(len(outputs), -1)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A metric: the tasks that it goes with, what makes it, and the averages that it can be."""

    tasks: tuple[str, ...]
    build: Callable[[NamedMetric, Task], _Built]
    averages: tuple[str, ...] = ()


METRICS: dict[str, _Kind] = {
    "accuracy": _Kind(CLASSES, _build_labelled, AVERAGES),
    "top-k": _Kind(("multiclass",), _build_top),
    "precision": _Kind(CLASSES, _build_labelled, AVERAGES),
    "recall": _Kind(CLASSES, _build_labelled, AVERAGES),
    "f1": _Kind(CLASSES, _build_labelled, AVERAGES),
    "auroc": _Kind(CLASSES, _build_auroc, ("macro", "weighted", "none")),
    "log-loss": _Kind(CLASSES, _build_log_loss),
    "confusion-matrix": _Kind(CLASSES, _build_confusion),
    "rmse": _Kind(("regression",), _build_regression),
    "mae": _Kind(("regression",), _build_regression),
    "r2": _Kind(("regression",), _build_regression),
}
