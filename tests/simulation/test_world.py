import json
import math
import re

import pytest

from psgd.durations import constant, parse_duration
from psgd.errors import ConfigurationError
from psgd.simulation.world import World


def test_a_slot_computes_as_it_was_said_or_as_all_do() -> None:
    world = World(compute=constant(1.0), slots=((2, constant(3.0)),))
    assert [world.compute_of(slot).mean for slot in range(4)] == [1.0, 1.0, 3.0, 1.0]


def test_a_world_is_described_in_plain_json() -> None:
    world = World(compute=parse_duration("exp:50ms"), slots=((1, constant(2.0)),), bandwidth=1e9)
    assert json.loads(json.dumps(world.describe())) == {
        "compute": "exp:50ms",
        "slots": {"1": "2"},
        "latency": "0",
        "bandwidth": 1e9,
        "service": "0",
        "update": "0",
        "evaluation": "0",
        "mtbf": None,
        "downtime": "10",
    }


@pytest.mark.parametrize("name", ["bandwidth", "mtbf"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_rate_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} must be > 0, got"):
        World(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["compute", "latency", "service", "update", "evaluation", "downtime"])
def test_a_duration_must_be_one(name: str) -> None:
    message = rf"^{name} must be a duration, such as psgd.parse_duration\('50ms'\), got 0.5$"
    with pytest.raises(ConfigurationError, match=message):
        World(**{name: 0.5})  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["1e308", "exp:1e10", "1+1%1e10", "pareto:1e10:0.5", "lognormal:1e10:1", "chi2:1e10"])
def test_a_duration_must_have_an_end_in_sight(text: str) -> None:
    message = f"must be <= 1e+09 s, got {text}"
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'downtime {message}')}$"):
        World(downtime=parse_duration(text))
    with pytest.raises(ConfigurationError, match=f"^{re.escape(f'compute of slot 3 {message}')}$"):
        World(slots=((3, parse_duration(text)),))


@pytest.mark.parametrize("text", ["1e9", "pareto:1:0.1", "lognormal:1:10"])
def test_a_duration_may_have_a_heavy_tail(text: str) -> None:
    assert World(compute=parse_duration(text)).compute.mean >= 1e9


def test_the_compute_time_of_a_slot_must_be_a_duration() -> None:
    with pytest.raises(ConfigurationError, match=r"^compute of slot 3 must be a duration, such as"):
        World(slots=((3, 2.0),))  # type: ignore[arg-type]


def test_a_slot_that_the_job_has_not_is_refused() -> None:
    world = World(slots=((4, constant(2.0)),))
    world.check_slots(5)
    with pytest.raises(
        ConfigurationError, match=r"^slots with a compute time of their own must be < slots \(4\), got 4$"
    ):
        world.check_slots(4)


def test_a_slot_is_named_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^slots must name each slot once, got \[1, 1\]$"):
        World(slots=((1, constant(2.0)), (1, constant(3.0))))
