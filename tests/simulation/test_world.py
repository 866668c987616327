import json
import math

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


def test_a_slot_is_named_once() -> None:
    with pytest.raises(ConfigurationError, match=r"^slots must name each slot once, got \[1, 1\]$"):
        World(slots=((1, constant(2.0)), (1, constant(3.0))))
