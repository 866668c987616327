"""From options to a world."""

from pathlib import Path

from psgd.analysis.fitting import unaveraged
from psgd.cli.world_config import WorldConfig, parse_bandwidth
from psgd.durations import GRAMMAR, Duration, parse_duration
from psgd.errors import ConfigurationError
from psgd.experiments.calibration import TRACE, trace_of
from psgd.experiments.timings import read_timings
from psgd.simulation.world import World


def build_world(config: WorldConfig) -> World:
    """The world that the options stand for.

    Raises:
        ConfigurationError: if one is written in another way than is known.
    """
    slots = config.workers if config.slots is None else config.slots
    named = ("latency", "service", "update", "evaluation", "downtime")
    return World(
        compute=_duration("compute", config.compute),
        slots=tuple(
            (_slot(slot, slots), _duration(f"compute_of {slot}", str(text))) for slot, text in config.compute_of.items()
        ),
        bandwidth=parse_bandwidth(config.bandwidth),
        mtbf=float("inf") if config.mtbf is None else config.mtbf,
        **{name: _duration(name, getattr(config, name)) for name in named},
    )


def _duration(name: str, text: str) -> Duration:
    run = text.removeprefix(TRACE)
    try:
        if not run:
            raise ConfigurationError(f"{TRACE}RUN must name a run, got {text!r}")
        return parse_duration(text) if run == text else read_trace(Path(run))
    except ConfigurationError as error:
        words = str(error).replace(GRAMMAR, f"{GRAMMAR}; or {TRACE}RUN, the compute times of a run")
        raise ConfigurationError(f"{name}: {words}") from None


def read_trace(run: Path) -> Duration:
    """The compute times of a run, each as likely as the others; what was injected is taken away.

    Of local steps only means are known: they are spread as mini-batches are that have such means.

    Args:
        run: the folder of its log, or the log.

    Raises:
        ConfigurationError: if there is no log, or too few iterations in it.
    """
    timings = read_timings(run)
    taken = [second for seconds in timings.compute_s().values() for second in seconds]
    return trace_of(unaveraged(taken, timings.job.rules.mini_batches), run)


def _slot(text: str, slots: int) -> int:
    if not (text.isdecimal() and int(text) < slots):
        raise ConfigurationError(f"compute_of must name slots by number, 0 … {slots - 1}, got {text!r}")
    return int(text)
