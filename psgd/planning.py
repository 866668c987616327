"""From what the user gives to a job that can be launched: everything is checked here, and nothing started."""

import functools
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.utils.data import Dataset, Subset

from psgd.config import (
    Clip,
    DataFactory,
    Job,
    ModelFactory,
    OptimizerFactory,
    Placement,
    ScheduleFactory,
    Straggler,
    Training,
)
from psgd.core.layout import ALIGNMENT, Layout, Role
from psgd.data.batches import MapDataset, collate
from psgd.errors import ConfigurationError, blaming
from psgd.runlog import FILE_NAME
from psgd.simulation.timing import TimingJob
from psgd.simulation.world import World
from psgd.training.elementwise import explain_whole
from psgd.training.losses import check_batch
from psgd.training.metrics import check_metrics, evaluate
from psgd.training.models import check_model
from psgd.training.names import unknown
from psgd.training.optimizers import check_optimizer
from psgd.training.policies import Policies
from psgd.training.schedules import most_ticks
from psgd.training.warm_start import apply_weights, load_weights

MOST_REHEARSED = 2**24
"""Elements of a model with which an update is rehearsed: it takes the optimizer's state once more."""

SAID_OTHERWISE = ("loss", "metrics", "stragglers")
"""What of `Training` is no plain JSON."""

LayoutChoice = Literal["auto", "sliced", "whole"]
WarmStart = Mapping[str, Tensor] | Path | str


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that has been checked and can be launched.

    Args:
        initial: the first weights, by the layout's names.
        policies: what evaluations decide.
        out: the folder that the run is going to be written to; None writes nothing.
        settings: what the log's header says about the run.
        world: that it is to be simulated in; None: really run it.
    """

    job: Job
    placement: Placement
    initial: dict[str, Tensor]
    policies: Policies
    out: Path | None
    settings: dict[str, Any]
    world: World | None = None


def data_factory(field: str, data: Any) -> DataFactory:
    """A function that makes the data set, from the data set itself or from such a function.

    Raises:
        ConfigurationError: if it is neither.
    """
    if not isinstance(data, type) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return functools.partial(_same, data)
    if not callable(data):
        raise ConfigurationError(
            f"{field} must be a map-style data set (with len() and []) or a function without arguments that makes "
            f"one, got {_name(data)}"
        )
    return cast(DataFactory, data)


def _same(data: Any) -> Any:
    return data


def count_samples(field: str, factory: DataFactory) -> int:
    """How many samples the factory's data set has: it is made once here, so that what is wrong with it shows early.

    Raises:
        ConfigurationError: if it is no data set, or empty.
    """
    dataset = factory()
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
        raise ConfigurationError(f"{field} must make a map-style data set (with len() and []), got {_name(dataset)}")
    samples = len(cast(MapDataset, dataset))
    if samples == 0:
        raise ConfigurationError(f"{field} must have samples, got an empty {_name(dataset)}")
    return samples


def first_model(factory: ModelFactory, seed: int, warm_start: WarmStart | None) -> nn.Module:
    """The model with the weights that training starts from; the global random state is left alone.

    Raises:
        ConfigurationError: if shards can not train it, or the given weights do not fit.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        with blaming("model can not be made"):
            model = factory()
    check_model(model)
    if warm_start is not None:
        apply_weights(model, load_weights(warm_start))
    return model


def rehearse(factory: ModelFactory, training: Training, data: DataFactory) -> None:
    """Compute one small gradient, with a model of its own, so that what does not fit shows before anything starts.

    Raises:
        ConfigurationError: if model, loss, metrics and data do not go together.
    """
    dataset = cast(MapDataset, data())
    with torch.random.fork_rng():
        inputs, targets = collate(dataset, torch.arange(min(2, len(dataset))))  # BatchNorm wants more than one
        with blaming("model and loss fail on a batch of train_data"):
            outputs = factory()(inputs)
            value = training.loss(outputs, targets)
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else _name(value)
            raise ConfigurationError(f"loss must return one number, a tensor without shape, got {got}; try .mean()")
        if not value.requires_grad:
            raise ConfigurationError("loss must depend on the model's parameters, got a tensor that needs no gradient")
        check_batch(training.loss, outputs, targets)
        check_metrics(training.metrics, outputs, targets, training.loss)


def check_shards(shards: int, layout: Layout) -> None:
    """Refuse shards that would hold nothing.

    Raises:
        ConfigurationError: if there are more shards than blocks to hold.
    """
    blocks = layout.pushed_bytes // ALIGNMENT
    if shards > blocks:
        raise ConfigurationError(f"shards must be <= {blocks}, the model's blocks of {ALIGNMENT} bytes, got {shards}")


def check_update(model: nn.Module, optimizer: OptimizerFactory) -> Optimizer:
    """Make the optimizer once, so that what is wrong with it shows before anything starts.

    Returns:
        The optimizer, over the model's own parameters.

    Raises:
        ConfigurationError: if shards can not run it.
    """
    with blaming("optimizer fails on the model's parameters"):
        made = optimizer(model.named_parameters())
    check_optimizer(made)
    if not all("lr" in group for group in made.param_groups):
        raise ConfigurationError(f"optimizer must have an lr in each group, which schedules set, got {_name(made)}")
    taken = {id(parameter) for group in made.param_groups for parameter in group["params"]}
    left_out = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in taken]
    if left_out:
        raise ConfigurationError(
            f"optimizer must take every parameter that it is given, it left out {', '.join(left_out)}; "
            "to freeze one, set its requires_grad to False in the model"
        )
    return made


def check_schedule(schedule: ScheduleFactory | None, optimizer: Optimizer, steps: int | None = None) -> None:
    """Make the schedule once, so that what is wrong with it shows before anything starts.

    Args:
        optimizer: whose learning rates it changes.
        steps: of the run; None: nobody knows.

    Raises:
        ConfigurationError: if shards can not run it.
    """
    if schedule is None:
        return
    with blaming("lr_scheduler fails on the optimizer"):
        ticking: object = schedule(optimizer)
    if not isinstance(ticking, LRScheduler):
        raise ConfigurationError(f"lr_scheduler must make a torch.optim.lr_scheduler.LRScheduler, got {_name(ticking)}")
    if isinstance(ticking, ReduceLROnPlateau):
        raise ConfigurationError(
            "lr_scheduler must not be torch's ReduceLROnPlateau, as shards have no metrics: "
            "give callbacks=[psgd.ReduceLROnPlateau(...)], which evaluations feed"
        )
    most = most_ticks(ticking)
    if steps is not None and most is not None and steps > most:
        raise ConfigurationError(
            f"lr_scheduler is made for {most} steps (its total_steps), the run has {steps}: give it as many"
        )


def rehearse_update(model: nn.Module, optimizer: OptimizerFactory) -> None:
    """Step once with small gradients, on parameters of its own, so that what a rule raises shows before it runs.

    Models that are too large for that pass.

    Raises:
        ConfigurationError: if the step fails.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if sum(parameter.numel() for _, parameter in trained) > MOST_REHEARSED:
        return
    copies = [(name, nn.Parameter(parameter.detach().clone())) for name, parameter in trained]
    with torch.random.fork_rng(), blaming("optimizer fails in its first step"):
        made = optimizer(copies)
        for _, copy in copies:
            copy.grad = torch.full_like(copy, 1e-3)
        made.step()


def check_monitors(
    policies: Policies, factory: ModelFactory, training: Training, evaluation_data: DataFactory | None
) -> None:
    """Find a metric which evaluations will not have before anything starts.

    Raises:
        ConfigurationError: if a rule goes by one.
    """
    if not policies.monitors or evaluation_data is None:
        return
    names = measured_names(factory, training, evaluation_data)
    for monitor in policies.monitors:
        if monitor not in names:
            raise unknown("monitor", monitor, names)


def measured_names(factory: ModelFactory, training: Training, evaluation_data: DataFactory) -> list[str]:
    """What evaluations are going to measure, found out by measuring two samples.

    Raises:
        ConfigurationError: if that fails.
    """
    dataset = cast(MapDataset, evaluation_data())
    few = Subset(cast("Dataset[Any]", dataset), range(min(2, len(dataset))))
    with torch.random.fork_rng(), blaming("model, loss and metrics fail on val_data"):
        cpu = torch.device("cpu")
        measured = evaluate(factory(), cast(MapDataset, few), training.loss, 2, cpu, training.metrics)
    return [f"test_{name}" for name in measured.scalars]


def keeps_whole(choice: LayoutChoice, optimizer: OptimizerFactory, layout: Layout, clip: Clip | None = None) -> bool:
    """Whether shards keep tensors whole: as chosen, else where the optimizer or clipping needs that.

    Raises:
        ConfigurationError: if they are to be cut, and may not be.
    """
    if choice not in ("auto", "sliced", "whole"):
        raise ConfigurationError(f"layout must be auto, sliced or whole, got {choice!r}")
    if choice == "whole":
        return True
    if clip is not None and clip.tensor_norm is not None:
        if choice == "sliced":
            raise ConfigurationError("layout must be whole or auto to clip by tensor_norm, got sliced")
        return True
    shapes = {spec.name: spec.shape for spec in layout.tensors if spec.role is Role.PARAMETER}
    reason = explain_whole(optimizer, shapes)
    if reason is not None and choice == "sliced":
        raise ConfigurationError(reason)
    return reason is not None


def new_folder(what: str, now: datetime) -> Path:
    """A folder for what the user has named none for: ``runs/<UTC time>-<what>``, numbered if that is taken."""
    name = f"{now:%Y%m%d-%H%M%S}-{what}"
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(path for path in (Path("runs", name) for name in names) if not path.exists())


def check_folder(out: Path) -> None:
    """Refuse a folder that can not take the run, before anything is written.

    Raises:
        ConfigurationError: if it holds a run already, is a file, or can not be written.
    """
    if (out / FILE_NAME).exists():
        raise ConfigurationError(f"out must be without a run, got {out}: {FILE_NAME} is there; choose another folder")
    existing = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ConfigurationError(f"out must be a folder, got {out}: {existing} is a file")
    try:
        tempfile.TemporaryDirectory(dir=existing).cleanup()
    except OSError as error:
        raise ConfigurationError(f"out must be writable, got {out}: {existing} is not ({error.strerror})") from error


def describe(job: Job, placement: Placement, optimizer: Optimizer, world: World | None = None) -> dict[str, Any]:
    """What the log's header says about a run; all of it is plain JSON.

    Args:
        optimizer: one that the job's factory made.
        world: that the run is simulated in.
    """
    rules, training = job.rules, job.training
    return {
        "mode": rules.mode.name,
        **asdict(rules.mode),
        "correction": None if rules.correction is None else str(rules.correction),
        "workers": job.workers,
        "slots": rules.slots,
        "shards": rules.shards,
        "steps": rules.steps,
        "local_steps": None if rules.local_steps is None else asdict(rules.local_steps),
        "evaluate_every": rules.evaluate_every,
        "plane": job.plane,
        "wire": job.wire,
        "shard_device": job.shard_device,
        "layout": "whole" if job.whole else "sliced",
        "bytes": job.layout.bytes,
        "optimizer": type(optimizer).__name__,
        "optimizer_args": {key: value for key, value in optimizer.defaults.items() if _is_plain(value)},
        "schedule": None if job.schedule is None else getattr(job.schedule, "name", _name(job.schedule)),
        "own_loop": job.own_loop is not None,
        **{f.name: getattr(training, f.name) for f in fields(training) if f.name not in SAID_OTHERWISE},
        "loss": repr(training.loss) if is_dataclass(training.loss) else _name(training.loss),
        "metrics": None if training.metrics is None else [getattr(m, "key", _name(m)) for m in training.metrics],
        "clip": None if job.clip is None else asdict(job.clip),
        "on_nonfinite": job.on_nonfinite,
        "stragglers": _describe_stragglers(training.stragglers),
        "placement": asdict(placement),
        "world": None if world is None else world.describe(),
    }


def describe_timing(job: TimingJob, world: World) -> dict[str, Any]:
    """What the log's header says about a run without gradients."""
    rules = job.rules
    return {
        "mode": rules.mode.name,
        **asdict(rules.mode),
        "correction": None if rules.correction is None else str(rules.correction),
        "workers": job.workers,
        "slots": rules.slots,
        "shards": rules.shards,
        "steps": rules.steps,
        "local_steps": None if rules.local_steps is None else asdict(rules.local_steps),
        "batch_size": job.batch_size,
        "bytes": job.parameters * 4,
        "clip_norm": rules.clip_norm,
        "seed": job.seed,
        "stragglers": _describe_stragglers(job.stragglers),
        "gradients": "none",
        "world": world.describe(),
    }


def _describe_stragglers(stragglers: Sequence[Straggler]) -> list[dict[str, Any]]:
    return [{"slot": each.slot, "delay": str(each.delay), "factor": each.factor} for each in stragglers]


def explain_copies(job: Job) -> str | None:
    """What the correction takes of the shards' memory, for the user to know; None: nothing."""
    correction = job.rules.correction
    copies = 0 if correction is None else correction.copies(job.rules.slots)
    if copies == 0:
        return None
    size = copies * job.layout.floating_bytes / 1e6
    return (
        f"correction {correction}: shards keep up to {copies} copies of their weights, {size:,.1f} MB in all, as slots "
        "may be computing at them"
    )


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | None) or (isinstance(value, tuple) and all(map(_is_plain, value)))


def _name(value: object) -> str:
    """A function's or a class's own name, of anything else the name of its class."""
    return getattr(value, "__name__", type(value).__name__)
