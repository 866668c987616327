"""What ``psgd bench step | train | plane | scale`` can be told; without torch, as in `psgd.cli.train_config`."""

from dataclasses import dataclass
from typing import Any, Literal

from psgd.bench.peers import PEERS
from psgd.cli.options import option
from psgd.errors import ConfigurationError

PLANE = "how psgd's tensors travel"
WIRE = "how psgd's gradients are written there, as in psgd train"
AS_JSON = "print the figures as JSON, on the last line of stdout"
MEASURED = 500_000_000
"""Parameters of all measured steps of a run together, where the number of steps is not given."""
FEWEST, MOST = 10, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """The options of ``psgd bench step``.

    Raises:
        ConfigurationError: if a number is out of range, or a peer is unknown.
    """

    params: int = option(25_000_000, "Model", "float32 parameters in all")
    tensors: int = option(10, "Model", "equal tensors that they are cut into")

    workers: int = option(2, "Processes", "processes that compute gradients")
    shards: int = option(1, "Processes", "of psgd: processes that hold the weights and update them")
    mode: Literal["sync", "async"] = option(
        "sync", "Processes", "async: also psgd's wall time a push; everything else stays synchronous, for the ratios"
    )
    plane: Literal["auto", "shm", "rpc"] = option("auto", "Processes", PLANE)
    wire: str = option("float32", "Processes", WIRE)
    use_gpu: bool = option(False, "Processes", "workers compute on GPUs, which they share if there are fewer")
    shard_device: Literal["cpu", "cuda"] = option("cpu", "Processes", "where psgd's shards update")
    peers: tuple[str, ...] | None = option(
        tuple(PEERS), "Processes", f"whom to measure beside psgd: of {', '.join(PEERS)}, or none", "NAME,..."
    )

    rounds: int = option(3, "Run", "how often everybody is measured, in turn, in fresh processes")
    steps: int | None = option(None, "Run", "measured steps a round (default: by the size, 10 to 300)")
    warmup: int = option(5, "Run", "steps before these")
    json: bool = option(False, "Run", AS_JSON)

    def __post_init__(self) -> None:
        """Check each number, and the peers' names."""
        check_at_least(self, 1, "tensors", "workers", "shards", "rounds", "steps")
        check_at_least(self, 0, "warmup")
        if self.params < self.tensors:
            raise ConfigurationError(f"params must be >= tensors ({self.tensors}), got {self.params}")
        for name in self.peers or ():
            if name not in PEERS:
                raise ConfigurationError(f"peers must be of {', '.join(PEERS)}, or none, got {name!r}")
        if self.use_gpu and self.peers:
            raise ConfigurationError(f"peers compute on the CPU: they must be none with use_gpu, got {self.peers[0]}")

    @property
    def trainer_options(self) -> dict[str, Any]:
        """What only psgd is told: keywords of `psgd.Trainer`."""
        return {"plane": self.plane, "wire": self.wire}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputConfig:
    """The options of ``psgd bench train``.

    Raises:
        ConfigurationError: if a number is out of range.
    """

    data: str = option("digits", "Data and model", "digits (built in), mnist or fashion-mnist")
    data_dir: str | None = option(None, "Data and model", "folder with the data set's original IDX files", "DIR")
    model: str = option("mlp", "Data and model", "mlp, cnn, linear, or my.pkg:factory for a model of your own")

    workers: int = option(2, "Processes", "of psgd; and as many independent single processes")
    shards: int = option(1, "Processes", "processes that hold the weights and update them")
    plane: Literal["auto", "shm", "rpc"] = option("auto", "Processes", PLANE)
    wire: str = option("float32", "Processes", WIRE)

    optimizer: str = option("adam", "Optimization", "any of torch.optim: sgd, adam, rmsprop, adagrad, ...")
    lr: float = option(0.002, "Optimization", "learning rate")
    batch_size: int = option(32, "Optimization", "samples that a slot, or a single process, draws for one iteration")

    rounds: int = option(3, "Run", "how often each is measured, in turn")
    steps: int = option(300, "Run", "measured iterations a process and round")
    warmup: int = option(50, "Run", "iterations before these")
    json: bool = option(False, "Run", AS_JSON)

    def __post_init__(self) -> None:
        """Check each number; what else must hold is said by the Trainer."""
        check_at_least(self, 1, "workers", "shards", "rounds", "steps", "batch_size")
        check_at_least(self, 0, "warmup")

    @property
    def trainer_options(self) -> dict[str, Any]:
        """What only psgd is told: keywords of `psgd.Trainer`."""
        return {"plane": self.plane, "wire": self.wire}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneConfig:
    """The options of ``psgd bench plane``.

    Raises:
        ConfigurationError: if a number is out of range.
    """

    plane: Literal["rpc", "shm"] = option("rpc", "Plane", "whose connection is measured; shm: a push moves no byte")
    mbytes: int = option(100, "Plane", "10^6 bytes of a push, and of a pull")
    rounds: int = option(10, "Run", "how often each is measured, in turn")
    warmup: int = option(2, "Run", "rounds before these")
    json: bool = option(False, "Run", AS_JSON)

    def __post_init__(self) -> None:
        """Check each number."""
        check_at_least(self, 1, "mbytes", "rounds")
        check_at_least(self, 0, "warmup")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleConfig:
    """The options of ``psgd bench scale``: three series, in each of which one number grows.

    Raises:
        ConfigurationError: if a number is none, or out of range.
    """

    workers: tuple[str, ...] = option(("1", "2", "4", "8", "16"), "Series", "numbers of workers", "N,...")
    shards: tuple[str, ...] = option(("1", "2", "4", "8"), "Series", "numbers of shards", "N,...")
    params: tuple[str, ...] = option(("1e5", "1e6", "1e7", "1e8"), "Series", "numbers of parameters", "N,...")

    base_workers: int = option(2, "Elsewhere", "workers where shards or parameters grow")
    base_shards: int = option(1, "Elsewhere", "shards where workers or parameters grow")
    base_params: int = option(1_000_000, "Elsewhere", "parameters where workers or shards grow")
    tensors: int = option(10, "Elsewhere", "equal tensors that the parameters are cut into")
    plane: Literal["auto", "shm", "rpc"] = option("auto", "Elsewhere", PLANE)
    wire: str = option("float32", "Elsewhere", WIRE)

    steps: int | None = option(None, "Run", "measured steps of each run (default: by the size, 10 to 300)")
    warmup: int = option(5, "Run", "steps before these")
    draw: str | None = option(None, "Run", "draw it, as PNG, SVG or PDF; takes pip install 'psgd[plots]'", "FILE")
    json: bool = option(False, "Run", AS_JSON)

    def __post_init__(self) -> None:
        """Check each number."""
        check_at_least(self, 1, "base_workers", "base_shards", "tensors", "steps")
        check_at_least(self, 0, "warmup")
        for name, least in (("workers", 1), ("shards", 1), ("params", self.tensors)):
            if min(self.numbers(name)) < least:
                raise ConfigurationError(f"{name} must all be >= {least}, got {', '.join(getattr(self, name))}")
        check_at_least(self, self.tensors, "base_params")

    def numbers(self, name: str) -> tuple[int, ...]:
        """The numbers of a series.

        Raises:
            ConfigurationError: if one is no whole number, or there is none.
        """
        try:
            numbers = tuple(_whole(text) for text in getattr(self, name))
        except ValueError:
            numbers = ()
        if not numbers:
            raise ConfigurationError(f"{name} must be whole numbers, got {', '.join(getattr(self, name)) or 'none'}")
        return numbers

    @property
    def trainer_options(self) -> dict[str, Any]:
        """What only psgd is told: keywords of `psgd.Trainer`."""
        return {"plane": self.plane, "wire": self.wire}


def _whole(text: str) -> int:
    """A whole number, also as ``1e6``."""
    if not float(text).is_integer():
        raise ValueError(text)
    return int(float(text))


def steps_for(steps: int | None, params: int) -> int:
    """Measured steps as given; else fewer, the more there is to move in each.

    Example:
        >>> steps_for(None, 25_000_000)
        20
    """
    return steps or max(FEWEST, min(MOST, MEASURED // params))


def check_at_least(config: Any, least: int, *names: str) -> None:
    """Refuse numbers that are too small; None is left to whoever chooses then.

    Raises:
        ConfigurationError: if one is.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ConfigurationError(f"{name} must be >= {least}, got {value}")
