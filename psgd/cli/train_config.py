"""What ``psgd train`` can be told; without torch, so that help and refusals come at once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from psgd.cli.correction_grammar import parse_correction
from psgd.cli.options import about, option
from psgd.cli.values import Entries, parse_metric_value
from psgd.core.corrections import Correction
from psgd.core.local_steps import LocalSteps
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ConfigurationError

EPOCHS = 10
"""How long to train where nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """The options of ``psgd train``.

    Raises:
        ConfigurationError: if options contradict each other; what the numbers may be is said by the classes of
            `psgd.config` that they become part of.
    """

    data: str = option(
        "digits", "Data and model", "digits or diabetes (built in: classes, and regression), mnist or fashion-mnist"
    )
    data_dir: str | None = option(None, "Data and model", "folder with the data set's original IDX files", "DIR")
    limit: int | None = option(
        None, "Data and model", "train with so many samples only, drawn once with --seed (default: all)"
    )
    model: str = option("mlp", "Data and model", "mlp, cnn, linear, or my.pkg:factory for a model of your own")
    warm_start: str | None = option(None, "Data and model", "weights to start from", "FILE.safetensors")
    loss: str | None = option(
        None, "Data and model", "cross-entropy, mse, huber, hinge, ... or my.pkg:loss (default: as the data wants it)"
    )
    loss_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about("Data and model", "its arguments: label_smoothing=0.1,weight=[1,2],...", "K=V,..."),
    )
    metrics: tuple[str, ...] = option(
        (),
        "Data and model",
        "measured beside the loss: accuracy, top5, f1:average=macro, auroc, rmse, confusion-matrix, ... "
        "(default: accuracy; with numbers to predict rmse and r2)",
        "NAME,...",
    )

    mode: Literal["sync", "async"] = option(
        "sync", "Mode", "sync: one update a step, averaged over the slots; async: one for each gradient that arrives"
    )
    backups: int | None = option(None, "Mode", "sync: slots that a step does not wait for (default: 0)")
    staleness: int | None = option(
        None, "Mode", "async: how many iterations a slot may run ahead of the slowest (default: no bound)"
    )
    gather: int | None = option(None, "Mode", "async: how many gradients an update averages (default: 1)", "K")
    correction: str | None = option(
        None,
        "Mode",
        "async, of late gradients: lag-lr (rate / lag), dc or dca (delay compensation, constant or adaptive), gap "
        "(gap-aware); with other numbers than the papers' as in dc=0.04, dca=2:0.95, gap=0.999 (default: none)",
        "NAME[=X[:Y]]",
    )

    local_steps: int | None = option(
        None,
        "Mode",
        "mini-batches that a slot trains with by itself, with --optimizer and --clip-*, before it pushes how far it "
        "has come (default: it pushes the gradient of one)",
    )
    outer_lr: float | None = option(
        None, "Mode", "with --local-steps: learning rate at which shards take that in (default: 0.7)"
    )
    outer_momentum: float | None = option(None, "Mode", "with --local-steps: their Nesterov momentum (default: 0.9)")

    workers: int = option(2, "Processes", "processes that compute gradients")
    slots: int | None = option(None, "Processes", "units of data parallelism, fixed for a run (default: one a worker)")
    shards: int = option(2, "Processes", "processes that hold the weights and update them")
    threads: int = option(1, "Processes", "torch threads a process; bits may depend on it")
    layout: Literal["auto", "sliced", "whole"] = option(
        "auto", "Processes", "whether shards cut tensors; auto: they stay whole where the optimizer needs that"
    )
    overlap: bool = option(True, "Processes", "gradients leave while backward computes the rest; same bits either way")
    plane: Literal["auto", "shm", "rpc", "memory"] = option(
        "auto", "Processes", "how tensors travel; auto: shm within a host, rpc between; memory: one process, no Ray"
    )
    wire: str = option(
        "float32", "Processes", "how gradients are written there: float32, bfloat16, float16, int8, topk:0.01 or onebit"
    )
    use_gpu: bool = option(False, "Processes", "workers compute on GPUs")
    gpus_per_worker: float | None = option(
        None, "Processes", "with --use-gpu: GPUs, or share of one, that Ray reserves for a worker (default: 1)"
    )
    shard_device: Literal["cpu", "cuda"] = option(
        "cpu", "Processes", "where shards keep weights and optimizer state; cuda: also a gradient of every slot"
    )
    gpus_per_shard: float | None = option(
        None, "Processes", "with --shard-device cuda: share of a GPU that Ray reserves for a shard (default: 0.25)"
    )
    cpus_per_worker: float = option(1.0, "Processes", "CPUs that Ray reserves for a worker")
    placement: Literal["pack", "spread"] = option("pack", "Processes", "workers on few nodes, or over many")

    optimizer: str = option(
        "adam", "Optimization", "any of torch.optim, ema-momentum, rmsprop-inner, ftrl, lamb, or my.pkg:MyOptimizer"
    )
    lr: float = option(0.002, "Optimization", "learning rate")
    optimizer_args: dict[str, Any] = field(
        default_factory=dict, metadata=about("Optimization", "its other arguments: momentum=0.9,...", "K=V,...")
    )
    groups: Entries = field(
        default_factory=Entries,
        metadata=about(
            "Optimization",
            "other arguments for parameters whose name matches, once a pattern: '*bias=weight_decay=0,lr=0.1'",
            "PATTERN=K=V,...",
        ),
    )
    l1: float = option(0.0, "Optimization", "proximal: weights become exactly 0")
    l2: float = option(0.0, "Optimization", "coupled: added to the gradient, for any optimizer")
    decay: float = option(0.0, "Optimization", "decoupled weight decay, for any optimizer")
    decay_biases: bool = option(True, "Optimization", "l2 and weight decay also for biases and normalization layers")
    clip_norm: float | None = option(None, "Optimization", "the gradient's global norm, over all shards, at most")
    clip_value: float | None = option(None, "Optimization", "each element of the gradient at most")
    clip_tensor_norm: float | None = option(None, "Optimization", "the norm of each tensor's gradient at most")
    on_nonfinite: Literal["skip", "fail"] = option(
        "skip", "Optimization", "what becomes of a gradient with NaN or Inf, which no shard applies"
    )
    schedule: str | None = option(
        None, "Optimization", "any of torch.optim.lr_scheduler: cosine, step, ...; A+B: multiplied, A,B: in turn"
    )
    schedule_args: dict[str, Any] = field(
        default_factory=dict,
        metadata=about("Optimization", "its arguments, counted in steps: T_max=100,...", "K=V,..."),
    )
    warmup_steps: int = option(
        0, "Optimization", "steps in which the learning rate grows linearly, before the schedule"
    )
    plateau: dict[str, Any] | None = field(
        default=None,
        metadata=about(
            "Optimization",
            "lower the learning rate when --monitor has stopped improving: patience=3,factor=0.5,... (default: never)",
            "K=V,...",
        ),
    )
    batch_size: int = option(32, "Optimization", "samples that a slot draws for one mini-batch")
    accumulate: int = option(1, "Optimization", "micro-batches that a batch is computed in, to save memory")
    precision: Literal["fp32", "bf16"] = option("fp32", "Optimization", "of forward and backward; weights stay float32")

    epochs: int | None = option(None, "Length", f"passes over the data (default: {EPOCHS}, without --steps)")
    steps: int | None = option(None, "Length", "instead of --epochs: iterations a slot, on average")
    evaluate_every: int | None = option(None, "Length", "steps between evaluations (default: once an epoch)")
    patience: int | None = option(
        None, "Length", "stop early after so many evaluations in which --monitor has not improved (default: never)"
    )
    until: str | None = option(
        None, "Length", "stop once an evaluation has it: test_accuracy=0.95 (default: never)", "METRIC=VALUE"
    )
    max_seconds: float | None = option(
        None, "Length", "stop after so many seconds of training, as soon as evaluations notice (default: never)"
    )
    monitor: str | None = option(
        None, "Length", "the metric that --patience, --plateau and --keep-best go by (default: test_loss)"
    )
    monitor_mode: Literal["min", "max"] | None = option(
        None, "Length", "whether it is to fall or to rise (default: fall if it is a loss or an error)"
    )
    keep_best: bool = option(False, "Length", "write the weights of the best evaluation, and of the last")

    seed: int = option(0, "Run", "of the weights, the order of samples and everything random")
    straggler: tuple[str, ...] = option(
        (), "Run", "slow a slot on purpose: 0:3x, 0:50ms or at random 0:exp:50ms; *: every slot", "SLOT:SLOWER,..."
    )
    out: str | None = option(
        None, "Run", "folder for the log, TensorBoard and the weights (default: a new one in runs)", "DIR"
    )
    json: bool = option(False, "Run", "print the figures as JSON, on the last line of stdout")
    dry_run: bool = option(False, "Run", "check everything, print what would be run, and exit")
    plot: bool = option(False, "Run", "draw the learning rate over the steps: schedule.png, in the run's folder")

    def __post_init__(self) -> None:
        """Refuse what belongs to the other mode, two lengths, and GPUs that are none."""
        for name in ("staleness", "gather", "correction"):
            value = getattr(self, name)
            if self.mode == "sync" and value is not None:
                raise ConfigurationError(f"{name} must be left out with mode sync, got {value}; try mode async")
        if self.mode == "async" and self.backups is not None:
            raise ConfigurationError(f"backups must be left out with mode async, got {self.backups}; try mode sync")
        for name in ("outer_lr", "outer_momentum"):
            if self.local_steps is None and getattr(self, name) is not None:
                raise ConfigurationError(f"{name} must be left out without local_steps, got {getattr(self, name)}")
        self.choose_local_steps()
        if self.epochs is not None and self.steps is not None:
            raise ConfigurationError(f"epochs must be left out with steps, got {self.epochs} and {self.steps}")
        if self.monitor is not None and self.patience is None and self.plateau is None and not self.keep_best:
            raise ConfigurationError(
                f"monitor must be left out without patience, plateau and keep_best, got {self.monitor}"
            )
        if self.until is not None:
            parse_metric_value("until", self.until)
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit must be >= 1, got {self.limit}")
        for name in ("gpus_per_worker", "gpus_per_shard"):
            share = getattr(self, name)
            if share is not None and share <= 0:
                raise ConfigurationError(f"{name} must be > 0, got {share}")
        if self.gpus_per_worker is not None and not self.use_gpu:
            raise ConfigurationError(f"gpus_per_worker must be left out without use_gpu, got {self.gpus_per_worker}")
        self.choose_correction()

    def choose_mode(self) -> Mode:
        """The mode with its bound."""
        if self.mode == "sync":
            return Sync(self.backups or 0)
        return Async(self.staleness, 1 if self.gather is None else self.gather)

    def choose_correction(self) -> Correction | None:
        """What is done about late gradients."""
        return None if self.correction is None else parse_correction(self.correction)

    def choose_local_steps(self) -> LocalSteps | None:
        """What a slot does between a pull and a push; None: it computes one gradient.

        Raises:
            ConfigurationError: if a number is out of range.
        """
        if self.local_steps is None:
            return None
        outer = {"lr": self.outer_lr, "momentum": self.outer_momentum}
        return LocalSteps(self.local_steps, **{name: value for name, value in outer.items() if value is not None})
