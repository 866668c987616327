"""Evaluation: the mean loss and the metrics of a model over a data set."""

import copy
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from psgd.config import Loss, Meter, MetricFactory
from psgd.data.batches import MapDataset, collate, to_device
from psgd.errors import ConfigurationError, blaming
from psgd.training.imports import import_callable
from psgd.training.named_metrics import METRICS, NamedMetric, plain
from psgd.training.task import infer_task

if TYPE_CHECKING:  # a second
    from torchmetrics import Metric, MetricCollection

OwnFactory = Callable[[], "Metric | MetricCollection"]
MetricLike = str | OwnFactory | tuple[str, OwnFactory] | NamedMetric
DEFAULTS = {
    "multiclass": (NamedMetric("accuracy"),),
    "binary": (NamedMetric("accuracy"),),
    "regression": (NamedMetric("rmse"), NamedMetric("r2")),
}
TOP = re.compile(r"top-?(\d+)")
PREPARED = 2
"""Samples: what is done for the first time takes as long with few of them."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What an evaluation has measured.

    Attributes:
        scalars: ``loss``, the mean over the samples, and the metrics that are one number, by name.
        arrays: the metrics that are not, as nested tuples: a value for each class, a confusion matrix by rows.
    """

    scalars: dict[str, float]
    arrays: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A torchmetrics metric of the user's own, as a `psgd.config.MetricFactory`.

    It sees outputs and targets as they are.

    Attributes:
        key: how evaluations name it; a collection's members have names of their own.
    """

    key: str
    make: OwnFactory

    def __call__(self, outputs: object, targets: object, loss: Loss) -> Meter:
        """A meter that has seen nothing."""
        return OwnMeter(self.key, self.make())


class OwnMeter:
    """A metric of the user's own that has seen some batches."""

    def __init__(self, key: str, metric: Any) -> None:
        self._key = key
        self._metric = metric

    def update(self, outputs: Any, targets: Any) -> None:
        """Take in one batch."""
        if isinstance(outputs, Tensor):
            self._metric.to(outputs.device)
        self._metric.update(outputs, targets)

    def result(self) -> dict[str, Any]:
        """The metric by its key, or those of a collection by theirs."""
        value = self._metric.compute()
        named = value if isinstance(value, Mapping) else {self._key: value}
        return {name: plain(torch.as_tensor(each)) for name, each in named.items()}


def resolve_metrics(metrics: Sequence[MetricLike] | None) -> tuple[MetricFactory, ...] | None:
    """What evaluations are to measure beside the loss.

    Args:
        metrics: names as in `NamedMetric`, such as ``f1``, ``f1:average=none``, ``top5`` or ``confusion-matrix``;
            ``my.pkg:factory``; functions that make a ``torchmetrics.Metric``, such metrics, or ``(name, function)``.
            None measures what goes with outputs, targets and loss: ``accuracy`` of classes, ``rmse`` and ``r2`` of
            numbers.

    Raises:
        ConfigurationError: there is no such metric or argument, two have one name, or one is no metric.

    Example:
        >>> [metric.key for metric in resolve_metrics(["accuracy", "top-k:k=3", "f1:average=macro"])]
        ['accuracy', 'top3', 'f1_macro']
    """
    if metrics is None:
        return None
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        raise ConfigurationError(f"metrics must be a list of names and functions, got {metrics!r}")
    found = [_resolve(metric) for metric in metrics]
    seen = {"loss"}
    for metric in found:
        if metric.key in seen:
            raise ConfigurationError(f"metrics must have names of their own, got {metric.key} twice")
        seen.add(metric.key)
    return tuple(found)


def _resolve(metric: Any) -> NamedMetric | OwnMetric:
    if isinstance(metric, NamedMetric):
        return metric
    if isinstance(metric, str):
        return _parse(metric)
    if isinstance(metric, tuple) and len(metric) == 2 and isinstance(metric[0], str):
        return _own(metric[1], metric[0])
    return _own(metric)


def _parse(text: str) -> NamedMetric | OwnMetric:
    name, colon, rest = text.partition(":")
    if match := TOP.fullmatch(text):
        return NamedMetric("top-k", {"k": int(match[1])})
    if colon and name not in METRICS and "=" not in rest:
        return _own(import_callable("metric", text), rest)
    pairs = [item.partition("=") for item in rest.split(",")] if colon else []
    if not all(key and equals for key, equals, _ in pairs):
        raise ConfigurationError(f"metric {text}: arguments are written name=value, as in f1:average=macro")
    return NamedMetric(name, {key.strip(): _read(value) for key, _, value in pairs})


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _own(factory: Any, key: str | None = None) -> OwnMetric:
    """A metric of the user's own, made once to see that it is one."""
    from torchmetrics import Metric, MetricCollection

    made, make = factory, factory
    if isinstance(factory, Metric | MetricCollection):
        make = functools.partial(copy.deepcopy, factory)
    elif callable(factory):
        with blaming(f"metric {_name(factory)} can not be made"):
            made = factory()
    if not isinstance(made, Metric | MetricCollection):
        raise ConfigurationError(
            f"a metric must be a name or a function that makes a torchmetrics.Metric, got {_name(factory)}"
        )
    return OwnMetric(key or type(made).__name__, make)


def _name(value: object) -> str:
    return getattr(value, "__name__", None) or repr(value)


def check_metrics(metrics: Sequence[MetricFactory] | None, outputs: object, targets: object, loss: Loss) -> None:
    """Refuse metrics that do not go with a model, its data and its loss, before anything is trained.

    Args:
        outputs: of the model for a small batch.
        targets: of that batch.

    Raises:
        ConfigurationError: one does not.
    """
    for metric in metrics or ():
        if isinstance(metric, NamedMetric):
            metric.check(outputs, targets, loss)
            continue
        with blaming(f"metric {getattr(metric, 'key', _name(metric))} fails on a batch of train_data"):
            metric(outputs, targets, loss).update(outputs, targets)


def evaluate(
    model: nn.Module,
    dataset: MapDataset,
    loss: Loss,
    batch_size: int,
    device: torch.device,
    metrics: Sequence[MetricFactory] | None = None,
) -> Measured:
    """Compute a model's metrics over a whole data set, batch after batch, in the order of the data set.

    The model is evaluated in eval mode and without gradients, and left in the mode it was in.

    Args:
        model: the model, on ``device``.
        dataset: a map-style data set of (input, target) pairs.
        loss: (output, target) to the mean over the batch.
        batch_size: samples a batch; the last one may be smaller. It changes results in their last bits only.
        device: where to compute.
        metrics: as `resolve_metrics` gives them.

    Raises:
        ConfigurationError: the data set is empty, ``batch_size`` is not positive, or a metric does not go with what
            outputs and targets are (see `psgd.training.task.infer_task`).
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size of an evaluation must be >= 1, got {batch_size}")
    _check_samples(dataset)
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _evaluate(model, dataset, loss, batch_size, device, metrics)
    finally:
        for module, flag in training.items():
            module.training = flag


@torch.inference_mode()
def prepare_evaluation(
    model: nn.Module,
    dataset: MapDataset,
    loss: Loss,
    device: torch.device,
    metrics: Sequence[MetricFactory] | None = None,
) -> None:
    """Do beforehand what takes long in a first evaluation: above all import torchmetrics, and make the metrics.

    A few samples are computed and measured, and what comes of it is forgotten; torch's random state stays as it is.

    Args:
        model: the model, on ``device`` and in eval mode.
        dataset: as `evaluate` will get it, as are the others.

    Raises:
        ConfigurationError: as of `evaluate`.
    """
    _check_samples(dataset)
    with torch.random.fork_rng(devices=[]):
        outputs, targets = _compute(model, dataset, torch.arange(min(PREPARED, len(dataset))), device)
        loss(outputs, targets)
        for meter in _make_meters(outputs, targets, loss, metrics):
            meter.update(outputs, targets)


def _check_samples(dataset: MapDataset) -> None:
    if len(dataset) == 0:
        raise ConfigurationError("the data set of an evaluation must have samples, got none")


@torch.inference_mode()
def _evaluate(
    model: nn.Module,
    dataset: MapDataset,
    loss: Loss,
    batch_size: int,
    device: torch.device,
    metrics: Sequence[MetricFactory] | None,
) -> Measured:
    loss_sum = 0.0
    meters: Sequence[Meter] | None = None
    for indices in torch.split(torch.arange(len(dataset)), batch_size):
        outputs, targets = _compute(model, dataset, indices, device)
        loss_sum += float(loss(outputs, targets)) * len(indices)
        if meters is None:
            meters = _make_meters(outputs, targets, loss, metrics)
        for meter in meters:
            meter.update(outputs, targets)
    results = {name: value for meter in meters or () for name, value in meter.result().items()}
    scalars = {name: float(value) for name, value in results.items() if not isinstance(value, tuple)}
    arrays = {name: value for name, value in results.items() if isinstance(value, tuple)}
    return Measured({"loss": loss_sum / len(dataset), **scalars}, arrays)


def _compute(model: nn.Module, dataset: MapDataset, indices: Tensor, device: torch.device) -> tuple[Any, Any]:
    """Outputs and targets of the samples at ``indices``, int64 (B,)."""
    inputs, targets = (to_device(part, device) for part in collate(dataset, indices))
    return model(inputs), targets


def _make_meters(outputs: Any, targets: Any, loss: Loss, metrics: Sequence[MetricFactory] | None) -> Sequence[Meter]:
    chosen = _default(outputs, targets, loss) if metrics is None else metrics
    return [metric(outputs, targets, loss) for metric in chosen]


def _default(outputs: object, targets: object, loss: Loss) -> Sequence[MetricFactory]:
    task = infer_task(outputs, targets, loss)
    return () if task is None else DEFAULTS[task.kind]
