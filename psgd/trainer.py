"""`Trainer`: from a model, data and an optimizer to a `Result`, on shards and workers that Ray runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from torch import nn

from psgd.config import (
    ON_NONFINITE,
    PLANES,
    SHARD_DEVICES,
    Clip,
    DataFactory,
    Job,
    Loss,
    ModelFactory,
    OnNonfinite,
    OptimizerFactory,
    OwnLoop,
    Placement,
    Plane,
    Precision,
    ScheduleFactory,
    ShardDevice,
    Straggler,
    Training,
)
from psgd.core.corrections import Correction, DelayCompensation, GapAware, LagRate
from psgd.core.layout import Layout, Role
from psgd.core.local_steps import LocalSteps, mini_batches
from psgd.core.modes import Async, Mode, Rules, Sync
from psgd.data.batches import MapDataset
from psgd.deciding import check_callbacks, policies_of, schedule_of
from psgd.errors import ConfigurationError
from psgd.planning import (
    LayoutChoice,
    Plan,
    WarmStart,
    check_folder,
    check_monitors,
    check_schedule,
    check_shards,
    check_update,
    count_samples,
    data_factory,
    describe,
    first_model,
    keeps_whole,
    new_folder,
    rehearse,
    rehearse_update,
)
from psgd.raytrain import read_run, read_scaling
from psgd.result import Result
from psgd.running import run
from psgd.simulation.world import World
from psgd.training.callbacks import Callback
from psgd.training.groups import check_groups
from psgd.training.length import Pass, check_length
from psgd.training.losses import resolve_loss
from psgd.training.metrics import MetricLike, resolve_metrics
from psgd.training.optimizers import ConfiguredOptimizer
from psgd.training.outer import clip_of, update_of
from psgd.transport.compression import parse_wire
from psgd.transport.flat import layout_of, tensors_of

GPUS_PER_SHARD = 0.25
"""What a shard on a GPU reserves where nothing is said: it is idle while workers compute, so they may share it."""

BUILT_IN_LOOP_ONLY = (
    "train_data",
    "epochs",
    "steps",
    "evaluate_every",
    "accumulate",
    "precision",
    "overlap",
    "stragglers",
    "local_steps",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """One training run: give it once, `fit()` it.

    Nothing is opened, started or written before `fit()`; only values are checked. Factories and data sets travel to
    other processes, by pickle.

    Args:
        model: makes the model.
        optimizer: makes the optimizer from parameters, as in ``lambda params: torch.optim.SGD(params, lr=0.1)``; each
            shard has one over its slices, with ``local_steps`` each slot one over a copy of the parameters.
        train_data: a map-style data set of (input, target) pairs, or a function that makes it.
        val_data: of the same kind, for evaluations; None: no evaluation.
        loss: (output, target) to the mean over the batch; or its name, see `psgd.loss`.
        metrics: what evaluations measure beside the loss: names such as ``accuracy``, ``f1:average=macro``, ``top5``,
            ``auroc``, ``rmse``; or functions that make a ``torchmetrics.Metric``. None: accuracy of classes, rmse and
            r2 of numbers.
        lr_scheduler: makes the schedule from the optimizer; it ticks once for every ``slots`` iterations begun.
        clip: what the gradient of an update may be at most, with ``local_steps`` that of each inner step; None:
            anything.
        on_nonfinite: what becomes of a gradient with NaN or Inf, which no shard applies: the run goes on without it
            (``skip``), or fails.
        mode: `Sync` or `Async`.
        correction: what is done about late gradients in async mode: `LagRate`, `DelayCompensation`, `GapAware`, each
            by its paper's formula; the latter two take memory on the shards, which a note at the start tells.
        local_steps: `LocalSteps` that a slot makes with ``optimizer`` between a pull and a push, instead of pushing the
            gradient of one mini-batch; shards have an optimizer of their own then. An iteration has so many batches.
        workers: processes that compute; default 1. Or give Ray Train's ``scaling_config``.
        slots: units of data parallelism; default one a worker. What is computed depends on them, not on workers.
        shards: processes that hold the weights and update them.
        batch_size: samples a slot draws for one mini-batch.
        epochs: how long to train, in passes over the data; or give ``steps``.
        steps: how long to train, in iterations a slot.
        evaluate_every: steps between evaluations; default once an epoch.
        seed: of the weights, the order of samples and everything random.
        accumulate: micro-batches that a batch is computed in, to save memory.
        precision: of forward and backward, ``fp32`` or ``bf16``; weights stay float32.
        threads: torch threads a process; bits may depend on it.
        overlap: gradients leave while backward computes the rest of them, or all at its end; the bits are the same.
        stragglers: slots slowed on purpose.
        train_loop: a loop of your own, run once a worker, instead of the built-in one; called with
            ``train_loop_config`` if it takes an argument. The shards still need ``model`` and ``optimizer``.
        callbacks: told what happens, in this process; some decide: `EarlyStopping`, `StopAtTarget`,
            `StopAfter`, `ReduceLROnPlateau`, `ModelCheckpoint`, `LearningRateScheduler`.
        warm_start: weights to start from: a ``state_dict``, or the path of a .safetensors file.
        layout: whether shards cut tensors (``sliced``) or keep them ``whole``; ``auto`` keeps them whole only where
            the optimizer needs that.
        world: simulate the run in this world, in this process and in virtual time: the same shards, slots and
            gradients, the latter at weights as stale as the world makes them. None: really run it.
        plane: how tensors travel: ``shm`` within a host, ``rpc`` between hosts, ``auto`` as it fits for each pair of
            worker and shard; or ``memory`` for a run in this very process, without Ray.
        wire: how gradients are written there: ``float32``, as they are; ``bfloat16`` or ``float16``, weights, too; or,
            gradients alone, ``int8`` (by block), ``topk:0.01`` (the largest hundredth) or ``onebit``, these two with
            error feedback. Everything but float32 changes the result. On the shards all is float32.
        shard_device: where shards keep weights and optimizer state, ``cpu`` or ``cuda``; on a GPU, each also has room
            for one gradient of every slot, and reserves ``gpus_per_shard`` of ``placement``, a quarter if that is 0.
        placement: what each process reserves and where it goes. Or give Ray Train's ``scaling_config``.
        scaling_config: Ray Train's, for ``workers`` and ``placement``.
        run_config: Ray Train's, for ``out`` and the failures that the run survives.
        out: the folder for the log, TensorBoard's curves and the weights; ``auto``: a new one below ``runs``;
            None: nothing is written.
        progress: show the run on stderr.
        labels: goes into the log's header, such as the data set's name; plain JSON.

    Raises:
        ConfigurationError: if a value, or a combination of values, can not be run.

    Example:
        >>> trainer = Trainer(
        ...     model=lambda: torch.nn.Linear(2, 1),
        ...     loss=torch.nn.MSELoss(),
        ...     optimizer=lambda params: torch.optim.SGD(params, lr=0.1),
        ...     train_data=torch.utils.data.TensorDataset(torch.ones(8, 2), torch.ones(8, 1)),
        ...     batch_size=4, workers=2, shards=2, epochs=2, plane="memory", out=None, progress=False,
        ... )
        >>> trainer.fit().figures["steps"]
        2
    """

    model: ModelFactory
    optimizer: OptimizerFactory
    train_data: MapDataset | DataFactory | None = None
    val_data: MapDataset | DataFactory | None = None
    loss: Loss | str = "cross-entropy"
    metrics: Sequence[MetricLike] | None = None
    lr_scheduler: ScheduleFactory | None = None
    clip: Clip | None = None
    on_nonfinite: OnNonfinite = "skip"
    mode: Mode = field(default_factory=Sync)
    correction: Correction | None = None
    local_steps: LocalSteps | None = None
    workers: int | None = None
    slots: int | None = None
    shards: int = 1
    batch_size: int = 32
    epochs: int | None = None
    steps: int | None = None
    evaluate_every: int | None = None
    seed: int = 0
    accumulate: int = 1
    precision: Precision = "fp32"
    threads: int = 1
    overlap: bool = True
    stragglers: Sequence[Straggler] = ()
    train_loop: Callable[..., None] | None = None
    train_loop_config: dict[str, Any] | None = None
    callbacks: Sequence[Callback] = ()
    warm_start: WarmStart | None = None
    layout: LayoutChoice = "auto"
    world: World | None = None
    plane: Plane = "auto"
    wire: str = "float32"
    shard_device: ShardDevice = "cpu"
    placement: Placement | None = None
    scaling_config: Any = None
    run_config: Any = None
    out: Path | str | Literal["auto"] | None = "auto"
    progress: bool = True
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can never be run; whatever needs the data, the model or the disk comes with `plan()`."""
        for name in ("model", "optimizer"):
            value = getattr(self, name)
            if isinstance(value, nn.Module) or not callable(value):
                raise ConfigurationError(f"{name} must be a function that makes it, got {type(value).__name__}")
        if self.lr_scheduler is not None and not callable(self.lr_scheduler):
            raise ConfigurationError(
                f"lr_scheduler must be a function of the optimizer that makes it, got {self.lr_scheduler!r}"
            )
        for name in ("workers", "slots", "shards", "batch_size", "epochs", "steps", "evaluate_every", "accumulate"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise ConfigurationError(f"{name} must be a whole number, got {value!r}")
        if not isinstance(self.mode, Sync | Async):
            raise ConfigurationError(f"mode must be psgd.Sync(...) or psgd.Async(...), got {self.mode!r}")
        if self.correction is not None and not isinstance(self.correction, LagRate | DelayCompensation | GapAware):
            raise ConfigurationError(
                "correction must be psgd.LagRate(), psgd.DelayCompensation(...) or psgd.GapAware(...), "
                f"got {self.correction!r}"
            )
        if self.local_steps is not None and not isinstance(self.local_steps, LocalSteps):
            raise ConfigurationError(f"local_steps must be psgd.LocalSteps(steps=...), got {self.local_steps!r}")
        if self.clip is not None and not isinstance(self.clip, Clip):
            raise ConfigurationError(f"clip must be psgd.Clip(norm=...) or the like, got {self.clip!r}")
        parse_wire(self.wire)
        for name, known in (("plane", PLANES), ("shard_device", SHARD_DEVICES), ("on_nonfinite", ON_NONFINITE)):
            if getattr(self, name) not in known:
                raise ConfigurationError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.run_config is not None and self.out != "auto":
            raise ConfigurationError(f"out must be left out beside run_config, got {self.out}")
        self._check_length()
        self._check_evaluation()
        workers, placement = self.scale()
        self._rules(workers, self.steps, self.evaluate_every)
        self._training(placement)
        self._check_world(workers, placement)

    def fit(self) -> Result:
        """Train.

        Returns:
            The result, also when the run was stopped early.

        Raises:
            ConfigurationError: if the run can not be started as it was given; nothing has been written then.
            PsgdError: if the run has failed.
        """
        return self.run(self.plan())

    def run(self, plan: Plan) -> Result:
        """Train as planned: the second half of `fit()`, for those who want to look at the plan first.

        Raises:
            PsgdError: as `fit()`.
        """
        return run(plan, self.callbacks, self.progress)

    def plan(self) -> Plan:
        """Check everything that can be checked without starting anything: folder, data, model, optimizer.

        Raises:
            ConfigurationError: if the run can not be started.
        """
        out = self._destination()
        if out is not None:
            check_folder(out)
        workers, placement = self.scale()
        data, evaluation_data = self._factory("train_data"), self._factory("val_data")
        samples = None if data is None else count_samples("train_data", data)
        if evaluation_data is not None:
            count_samples("val_data", evaluation_data)
        one_pass = None if samples is None else self._pass(samples, workers)
        per_epoch, steps = None if one_pass is None else one_pass.batches, self._steps(one_pass)
        model = first_model(self.model, self.seed, self.warm_start)
        schedule = schedule_of(self.callbacks, self.lr_scheduler, per_epoch, mini_batches(self.local_steps))
        optimizer = check_update(model, self.optimizer)
        policies = policies_of(self.callbacks, max(float(group["lr"]) for group in optimizer.param_groups))
        check_schedule(schedule, optimizer, steps)  # behind it: the learning rates are those of its tick 0
        if policies.keeping is not None and out is None:
            raise ConfigurationError("callbacks: ModelCheckpoint needs a folder for the run, got out=None")
        tensors = tensors_of(model)
        layout = layout_of(tensors)
        self._check_layout(layout)
        training = self._training(placement)
        rehearse_update(model, self.optimizer)
        if data is not None and placement.gpus_per_worker == 0:  # a model for GPUs need not run here
            rehearse(self.model, training, data)
        check_monitors(policies, self.model, training, evaluation_data)
        update, clip = update_of(self.optimizer, schedule, self.local_steps)[0], clip_of(self.clip, self.local_steps)
        job = Job(
            rules=self._rules(workers, steps, self._evaluate_every(one_pass)),
            workers=workers,
            layout=layout,
            whole=keeps_whole(self.layout, update, layout, clip),
            model=self.model,
            optimizer=self.optimizer,
            schedule=schedule,
            training=training,
            data=data,
            evaluation_data=evaluation_data,
            own_loop=None if self.train_loop is None else OwnLoop(self.train_loop, self.train_loop_config),
            plane="memory" if self.world is not None else self.plane,
            wire=self.wire,
            shard_device=self.shard_device,
            clip=self.clip,
            on_nonfinite=self.on_nonfinite,
            saves_measured=policies.keeping is not None,
        )
        return Plan(
            job=job,
            placement=placement,
            initial={name: tensor.detach().cpu() for name, tensor in tensors.items()},
            policies=policies,
            out=out,
            settings={**self.labels, **describe(job, placement, optimizer, self.world)},
            world=self.world,
        )

    def _check_layout(self, layout: Layout) -> None:
        if isinstance(self.optimizer, ConfiguredOptimizer):
            check_groups([s.name for s in layout.tensors if s.role is Role.PARAMETER], self.optimizer.groups)
        check_shards(self.shards, layout)

    def count_steps(self) -> tuple[int, int] | None:
        """Steps of the run, and of one pass over its data; None with a ``train_loop``, which knows that itself.

        Raises:
            ConfigurationError: if the data can not be cut into steps.
        """
        data, (workers, _) = self._factory("train_data"), self.scale()
        if data is None:
            return None
        one_pass = self._pass(count_samples("train_data", data), workers)
        steps = self._steps(one_pass)
        return None if steps is None else (steps, one_pass.steps)

    def _check_length(self) -> None:
        """The built-in loop needs data and an end; an own loop brings both along."""
        if self.train_loop is None:
            if self.train_data is None:
                raise ConfigurationError("train_data must be given, unless train_loop is; got neither")
            check_length(self.epochs, self.steps)
            if self.train_loop_config is not None:
                raise ConfigurationError("train_loop_config must be left out without a train_loop")
            return
        for field_ in fields(self):
            if field_.name in BUILT_IN_LOOP_ONLY and getattr(self, field_.name) != field_.default:
                raise ConfigurationError(f"{field_.name} must be left out with a train_loop, which does that itself")

    def _check_evaluation(self) -> None:
        """Evaluations need data."""
        check_callbacks(
            self.callbacks, self.train_loop is not None, self.val_data is not None, self.lr_scheduler is not None
        )
        if self.val_data is None and self.evaluate_every is not None:
            raise ConfigurationError(f"evaluate_every needs val_data, got {self.evaluate_every} and no data")

    def _check_world(self, workers: int, placement: Placement) -> None:
        """What is simulated is computed here, and goes no real way."""
        if self.world is None:
            return
        if not isinstance(self.world, World):
            raise ConfigurationError(f"world must be psgd.World(...), got {self.world!r}")
        self.world.check_slots(self.slots or workers)
        if self.train_loop is not None:
            raise ConfigurationError("world must be left out with a train_loop: the built-in loop can be simulated")
        if self.plane not in ("auto", "memory"):
            raise ConfigurationError(f"plane must be left out with a world, whose network is its own, got {self.plane}")
        if placement.gpus_per_worker > 0 or self.shard_device != "cpu":
            raise ConfigurationError("world must be left out with GPUs: a simulation computes on the CPU")

    def scale(self) -> tuple[int, Placement]:
        """The number of workers, and what each process reserves."""
        workers, placement = self.workers, self.placement
        if self.scaling_config is not None:
            if workers is not None or placement is not None:
                raise ConfigurationError("workers and placement must be left out beside scaling_config")
            workers, placement = read_scaling(self.scaling_config)
        workers = 1 if workers is None else workers
        if workers < 1:  # said before slots, which follow from it, are refused
            raise ConfigurationError(f"workers must be >= 1, got {workers}")
        placement = self._reserve_for_shards(placement or Placement())
        if self.run_config is not None:
            placement = replace(placement, max_failures=read_run(self.run_config).max_failures)
        return workers, placement

    def _reserve_for_shards(self, placement: Placement) -> Placement:
        """The placement, with a share of a GPU for each shard if they are to be on one."""
        if self.shard_device == "cpu" and placement.gpus_per_shard > 0:
            raise ConfigurationError(
                f"gpus_per_shard must be 0 with shard_device cpu, got {placement.gpus_per_shard}; try shard_device cuda"
            )
        reserved = placement.gpus_per_shard > 0 or self.shard_device == "cpu"
        return placement if reserved else replace(placement, gpus_per_shard=GPUS_PER_SHARD)

    def _rules(self, workers: int, steps: int | None, evaluate_every: int | None) -> Rules:
        slots = workers if self.slots is None else self.slots
        clip = clip_of(self.clip, self.local_steps)
        clip_norm = None if clip is None else clip.norm
        return Rules(self.mode, slots, self.shards, steps, evaluate_every, clip_norm, self.local_steps, self.correction)

    def _training(self, placement: Placement) -> Training:
        return Training(
            loss=resolve_loss(self.loss),
            metrics=resolve_metrics(self.metrics),
            batch_size=self.batch_size,
            seed=self.seed,
            accumulate=self.accumulate,
            precision=self.precision,
            threads=self.threads,
            overlap=self.overlap and self.local_steps is None,  # nothing is final before the last of them
            use_gpu=placement.gpus_per_worker > 0,
            stragglers=tuple(self.stragglers),
        )

    def _destination(self) -> Path | None:
        if self.run_config is not None:
            return read_run(self.run_config).out
        if self.out == "auto":
            return new_folder(self.mode.name, datetime.now(UTC))
        return None if self.out is None else Path(self.out)

    def _factory(self, name: Literal["train_data", "val_data"]) -> DataFactory | None:
        data = getattr(self, name)
        return None if data is None else data_factory(name, data)

    def _pass(self, samples: int, workers: int) -> Pass:
        return Pass(samples, self.slots or workers, self.batch_size, self.local_steps)

    def _steps(self, one_pass: Pass | None) -> int | None:
        """Of the run."""
        return self.steps if one_pass is None or self.epochs is None else one_pass.steps_in(self.epochs)

    def _evaluate_every(self, one_pass: Pass | None) -> int | None:
        """Steps between evaluations."""
        return None if one_pass is None or self.val_data is None else self.evaluate_every or one_pass.steps
