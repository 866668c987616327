import math

import pytest

from psgd.cli.options import parse
from psgd.cli.simulate_config import SimulateConfig
from psgd.cli.world import build_world
from psgd.cli.world_config import WorldConfig, parse_bandwidth, world_options
from psgd.durations import constant
from psgd.errors import ConfigurationError
from psgd.simulation.world import World


@pytest.mark.parametrize(
    ("text", "rate"),
    [(None, math.inf), ("8bit", 1.0), ("10Gbit", 1.25e9), ("1.5GB", 1.5e9), ("100MB", 1e8), ("2KB", 2e3), ("7", 7.0)],
)
def test_a_bandwidth_is_read_in_bits_or_bytes(text: str | None, rate: float) -> None:
    assert parse_bandwidth(text) == rate


@pytest.mark.parametrize("text", ["", "fast", "0GB", "-1GB", "10Tbit", "10 Gbit/s"])
def test_another_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^bandwidth must be a rate a second such as 10Gbit or 1\.25GB, got"):
        parse_bandwidth(text)


def test_the_world_that_nobody_describes_is_the_simplest_one() -> None:
    world = build_world(WorldConfig())
    assert (world.compute.mean, world.latency.mean, world.bandwidth, world.mtbf) == (1.0, 0.0, math.inf, math.inf)
    assert world.describe() == World().describe()


def test_every_option_of_the_world_reaches_it() -> None:
    words = (
        "--compute exp:2 --compute-of 1=3 --latency 1ms --bandwidth 1GB --service 2ms --update 3ms --evaluation 4 "
        "--mtbf 60 --downtime 5"
    )
    world = build_world(parse(SimulateConfig, "psgd simulate", words.split(), {}))
    assert world.compute_of(0).mean == 2.0
    assert world.compute_of(1) == constant(3.0)
    assert [world.latency.mean, world.service.mean, world.update.mean] == [0.001, 0.002, 0.003]
    assert (world.evaluation.mean, world.bandwidth, world.mtbf, world.downtime.mean) == (4.0, 1e9, 60.0, 5.0)
    assert len(world_options()) == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--compute gamma:1", "compute: a duration must be NUMBER, exp:MEAN"),
        ("--compute gamma:1", r"1\+chi2:0\.1\+2%exp:5; or trace:RUN, the compute times of a run; got 'gamma:1'$"),
        ("--compute trace:", "^compute: trace:RUN must name a run, got 'trace:'$"),
        ("--latency 1h", "latency: a duration must be"),
        ("--compute-of x=1", "compute_of must name slots by number, 0 … 1, got 'x'"),
        ("--compute-of 2=1", "compute_of must name slots by number, 0 … 1, got '2'"),
        ("--compute-of 0=exp", "compute_of 0: a duration must be"),
        ("--compute trace:nowhere", "no run log at nowhere/run.jsonl|compute: no run log at nowhere"),
    ],
)
def test_what_is_no_world_is_refused_in_one_line(words: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_world(parse(SimulateConfig, "psgd simulate", words.split(), {}))
