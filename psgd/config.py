"""What a job is: frozen values that validate themselves, made once by the driver and handed to every process."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, get_args

import torch
from torch.utils.data import Dataset

from psgd.core.layout import Layout, Part, partition
from psgd.core.modes import Rules
from psgd.durations import NONE, Duration
from psgd.errors import ConfigurationError

ModelFactory = Callable[[], torch.nn.Module]
Loss = Callable[[Any, Any], torch.Tensor]
"""(output, target) to the mean over the batch, ()."""
NamedTensors = Iterable[tuple[str, torch.Tensor]]
OptimizerFactory = Callable[[NamedTensors], torch.optim.Optimizer]
ScheduleFactory = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
DataFactory = Callable[[], "Dataset[Any]"]


class Meter(Protocol):
    """What a metric has seen of one evaluation so far."""

    def update(self, outputs: Any, targets: Any, /) -> None:
        """Take in one batch."""

    def result(self) -> dict[str, Any]:
        """The metric by name: a number, or nested tuples of numbers."""


MetricFactory = Callable[[Any, Any, Loss], Meter]
"""(outputs and targets of a first batch, the loss) to a meter for such, which has seen nothing yet."""
Precision = Literal["fp32", "bf16"]
Plane = Literal["auto", "shm", "rpc", "memory"]
PLANES: tuple[Plane, ...] = get_args(Plane)
ShardDevice = Literal["cpu", "cuda"]
OnNonfinite = Literal["skip", "fail"]
ON_NONFINITE: tuple[OnNonfinite, ...] = get_args(OnNonfinite)
SHARD_DEVICES: tuple[ShardDevice, ...] = get_args(ShardDevice)


@dataclass(frozen=True, slots=True)
class Straggler:
    """A slot slowed on purpose, to see what that costs.

    Args:
        slot: None: every slot, each on its own.
        delay: added to each of its iterations; drawn anew each time, from (seed, step, slot).
        factor: its compute time is stretched to this multiple.

    Raises:
        ConfigurationError: if it is none that could be slower.

    Example:
        >>> Straggler(slot=None, delay=parse_duration("exp:50ms")).delay.mean
        0.05
    """

    slot: int | None
    delay: Duration = NONE
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.slot is not None and self.slot < 0:
            raise ConfigurationError(f"straggler slot must be >= 0, or None for every slot, got {self.slot}")
        if not isinstance(self.delay, Duration):
            raise ConfigurationError(
                f"straggler delay must be a duration, such as psgd.parse_duration('50ms'), got {self.delay!r}"
            )
        if self.delay.mean < 0:
            raise ConfigurationError(f"straggler delay must be >= 0 s, got {self.delay}")
        if not 1 <= self.factor < math.inf:
            raise ConfigurationError(f"straggler factor must be a finite number >= 1, got {self.factor}")


def check_stragglers(stragglers: Sequence[Straggler], slots: int) -> None:
    """Refuse stragglers that are not there, or are said twice.

    Args:
        slots: of the job.

    Raises:
        ConfigurationError: if one is.
    """
    slowed = [straggler.slot for straggler in stragglers]
    if len(set(slowed)) != len(slowed):
        named = ", ".join("every slot" if slot is None else str(slot) for slot in slowed)
        raise ConfigurationError(f"stragglers must name each slot once, and every slot once, got {named}")
    for slot in slowed:
        if slot is not None and slot >= slots:
            raise ConfigurationError(f"straggler slot must be < slots ({slots}), got {slot}")


@dataclass(frozen=True, slots=True)
class Training:
    """How a slot computes its gradient.

    Args:
        batch_size: samples a slot draws for one mini-batch; an iteration has one, with local steps several.
        accumulate: micro-batches that the batch is computed in, to save memory.
        precision: of forward and backward; weights stay float32.
        threads: torch threads a process; bits may depend on it.
        overlap: gradients leave while backward computes the rest of them; of the built-in loop.
        seed: of the weights, the order of samples, and everything random in (step, slot).
        metrics: what evaluations measure beside the loss; None: what goes with outputs, targets and loss.
    """

    loss: Loss
    batch_size: int
    seed: int = 0
    accumulate: int = 1
    precision: Precision = "fp32"
    threads: int = 1
    use_gpu: bool = False
    overlap: bool = True
    stragglers: tuple[Straggler, ...] = ()
    metrics: tuple[MetricFactory, ...] | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("threads", self.threads),
        ):
            if value < 1:
                raise ConfigurationError(f"{name} must be >= 1, got {value}")
        if self.accumulate > self.batch_size:
            raise ConfigurationError(f"accumulate must be <= batch_size ({self.batch_size}), got {self.accumulate}")
        if self.precision not in ("fp32", "bf16"):
            raise ConfigurationError(f"precision must be fp32 or bf16, got {self.precision}")
        if not 0 <= self.seed < 2**63:
            raise ConfigurationError(f"seed must be in 0 … 2**63 - 1, got {self.seed}")


@dataclass(frozen=True, slots=True)
class Clip:
    """What the gradient of an update may be at most: in rounds the mean over the slots, on arrival the one pushed.

    With local steps it is the gradient of each inner step that slots clip, before their optimizer gets it, as in DiLoCo
    (`psgd.core.local_steps.LocalSteps`); what they push then is not clipped. Exactly one of the three is given. Buffers
    are never clipped.

    Args:
        norm: the global norm, over all tensors on all shards, as `torch.nn.utils.clip_grad_norm_`.
        value: the size of each element, as `torch.nn.utils.clip_grad_value_`.
        tensor_norm: the norm of each tensor on its own; shards that clip keep tensors whole then.

    Raises:
        ConfigurationError: if none or several are given, or it is not positive.

    Example:
        >>> Clip(norm=1.0)
        Clip(norm=1.0, value=None, tensor_norm=None)
    """

    norm: float | None = None
    value: float | None = None
    tensor_norm: float | None = None

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise ConfigurationError(f"clip must be one of norm, value and tensor_norm, got {got}")
        for name, limit in given.items():
            if not isinstance(limit, int | float) or not (math.isfinite(limit) and limit > 0):
                raise ConfigurationError(f"clip {name} must be a finite number > 0, got {limit}")


@dataclass(frozen=True, slots=True)
class OwnLoop:
    """A user's own training loop, run once a slot.

    Args:
        function: called with ``config`` if it takes an argument, else with nothing.
    """

    function: Callable[..., None]
    config: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """What the processes of a job need, and where they go.

    Args:
        cpus_per_worker: CPUs that Ray reserves for a worker.
        gpus_per_worker: GPUs that Ray reserves for a worker; 0 keeps it on the CPU.
        cpus_per_shard: CPUs that Ray reserves for a shard.
        gpus_per_shard: GPUs that Ray reserves for a shard whose weights live on one; 0 keeps them on the CPU.
        strategy: of the workers' placement group: PACK on few nodes, or SPREAD over many. Shards always spread.
        max_failures: how often workers may be replaced before the run gives up; -1: without end.
    """

    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    cpus_per_shard: float = 1.0
    gpus_per_shard: float = 0.0
    strategy: Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"] = "PACK"
    max_failures: int = 3

    def __post_init__(self) -> None:
        for name in ("cpus_per_worker", "gpus_per_worker", "cpus_per_shard", "gpus_per_shard"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.gpus_per_shard > 1:
            raise ConfigurationError(f"gpus_per_shard must be <= 1, as a shard uses one, got {self.gpus_per_shard}")
        if self.strategy not in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"):
            raise ConfigurationError(f"strategy must be PACK or SPREAD, got {self.strategy}")
        if self.max_failures < -1:
            raise ConfigurationError(f"max_failures must be >= -1, got {self.max_failures}")


@dataclass(frozen=True, slots=True)
class Job:
    """One training run, as every process of it knows it.

    Args:
        rules: mode, slots, shards, steps, local steps.
        workers: processes that run the slots; at most one a slot.
        layout: the tensors of ``model()``.
        whole: shards keep tensors whole.
        optimizer: what shards update with; with local steps what slots do, see `psgd.core.local_steps`.
        schedule: of that optimizer.
        data: the training set (called once a worker); None with an own loop.
        evaluation_data: the set that the evaluator measures; None: no evaluation.
        own_loop: replaces the built-in loop.
        plane: how tensors travel; ``auto``: shared memory within a host, rpc between hosts.
        wire: how they are written there, see `psgd.transport.compression.parse_wire`.
        shard_device: where shards keep weights and optimizer state, and update them; planes go on serving host memory.
        clip: what gradients may be at most; without local steps its norm is also among the rules.
        saves_measured: weights that the evaluator has measured are read once more, to be written.
        on_nonfinite: what becomes of a gradient with NaN or Inf: no shard updates, and the run goes on or fails.
    """

    rules: Rules
    workers: int
    layout: Layout
    whole: bool
    model: ModelFactory
    optimizer: OptimizerFactory
    schedule: ScheduleFactory | None
    training: Training
    data: DataFactory | None
    evaluation_data: DataFactory | None = None
    own_loop: OwnLoop | None = None
    plane: Plane = "auto"
    wire: str = "float32"
    shard_device: ShardDevice = "cpu"
    clip: Clip | None = None
    on_nonfinite: OnNonfinite = "skip"
    saves_measured: bool = False

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigurationError(f"workers must be >= 1, got {self.workers}")
        if self.workers > self.rules.slots:
            raise ConfigurationError(f"workers must be <= slots ({self.rules.slots}), got {self.workers}")
        if self.own_loop is not None and self.rules.local_steps is not None:
            raise ConfigurationError(f"local_steps must be left out with an own loop, got {self.rules.local_steps}")
        if self.own_loop is not None and self.workers != self.rules.slots:
            raise ConfigurationError(
                f"an own loop runs one slot a worker: slots must be {self.workers}, got {self.rules.slots}"
            )
        check_stragglers(self.training.stragglers, self.rules.slots)

    @property
    def iteration_samples(self) -> int:
        """How many a slot draws for one iteration."""
        return self.rules.mini_batches * self.training.batch_size

    def parts(self) -> tuple[Part, ...]:
        """What each shard holds, indexed by shard."""
        return partition(self.layout, self.rules.shards, self.whole)

    def lanes(self, shard: int, count: int) -> tuple[Part, ...]:
        """The parts that ``count`` threads of a shard share its own part in."""
        finer = partition(self.layout, self.rules.shards * count, self.whole)
        return finer[shard * count : (shard + 1) * count]
