"""What psgd takes over from Ray Train's ``ScalingConfig`` and ``RunConfig``; what it can not honour is refused.

Read by attribute, so that neither ray nor its version matters here.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal, cast

from psgd.config import Placement
from psgd.errors import ConfigurationError

Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
URI_MARK = "://"


def read_scaling(scaling: Any) -> tuple[int, Placement]:
    """The number of workers, and what each of them needs.

    Args:
        scaling: with ``num_workers``; ``use_gpu``, ``resources_per_worker`` (CPU, GPU) and ``placement_strategy``
            if they are there.

    Raises:
        ConfigurationError: if it asks for what psgd can not do.
    """
    _refuse_others("scaling_config", scaling, {"num_workers", "use_gpu", "resources_per_worker", "placement_strategy"})
    workers = getattr(scaling, "num_workers", None)
    if not isinstance(workers, int):
        raise ConfigurationError(f"scaling_config: num_workers must be an integer, got {workers!r}")
    use_gpu = getattr(scaling, "use_gpu", False)
    resources = dict(getattr(scaling, "resources_per_worker", None) or ({"GPU": 1} if use_gpu else {"CPU": 1}))
    if use_gpu:
        resources.setdefault("GPU", 1)
    others = resources.keys() - {"CPU", "GPU"}
    if others:
        raise ConfigurationError(
            f"scaling_config: resources_per_worker may hold CPU and GPU, got {', '.join(sorted(others))}"
        )
    return workers, Placement(
        cpus_per_worker=resources.get("CPU", 0),
        gpus_per_worker=resources.get("GPU", 0),
        strategy=cast(Strategy, getattr(scaling, "placement_strategy", "PACK")),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class RunSettings:
    """What a ``RunConfig`` says.

    Args:
        out: the run's folder, ``storage_path/name``.
        max_failures: its own default is 0, which is honoured: no worker is replaced.
    """

    out: Path
    max_failures: int


def read_run(run: Any) -> RunSettings:
    """Where the run goes, and how many failures it survives.

    Args:
        run: with ``name``, ``storage_path`` and ``failure_config``, as Ray Train's ``RunConfig`` fills them in.

    Raises:
        ConfigurationError: if it asks for what psgd can not do.
    """
    _refuse_others("run_config", run, {"name", "storage_path", "failure_config"})
    name, storage, failure = (getattr(run, field, None) for field in ("name", "storage_path", "failure_config"))
    if not name or not storage:
        raise ConfigurationError(f"run_config: name and storage_path must be given, got {name!r} and {storage!r}")
    if URI_MARK in str(storage):
        raise ConfigurationError(f"run_config: storage_path must be a local folder, got {storage}; copy it afterwards")
    _refuse_others("run_config: failure_config", failure, {"max_failures"})
    return RunSettings(Path(storage).expanduser() / name, getattr(failure, "max_failures", 0))


def _refuse_others(what: str, config: Any, honoured: set[str]) -> None:
    """Nothing that the user has set is ignored silently."""
    if not dataclasses.is_dataclass(config):
        return
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in honoured and not _is_default(value, field.default):
            raise ConfigurationError(f"{what}: psgd has no {field.name}, got {value!r}; leave it out")


def _is_default(value: Any, default: Any) -> bool:
    """Whether nobody has set the value: Ray replaces None by empty containers and configurations."""
    if not value or value == default:
        return True
    return dataclasses.is_dataclass(value) and not isinstance(value, type) and value == type(value)()
