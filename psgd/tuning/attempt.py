"""One trial of ``psgd tune``, inside its process: whatever comes of it is reported."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ray import tune

from psgd.errors import ConfigurationError, PsgdError, blame
from psgd.trainer import Trainer
from psgd.tuning.space import Point, Space, values_of
from psgd.tuning.trainable import attended, reservation

NAMES, REFUSED, FAILED = "metric_names", "refused", "failed"
"""What the report of a trial holds beside what `Reporting` reports."""

MakeTrainer = Callable[[Mapping[str, Any]], Trainer]
"""From the values of a point to the run that it stands for."""


def attempt(space: Space, make_trainer: MakeTrainer) -> Callable[[dict[str, Any]], None]:
    """The function that Ray Tune runs for each point, with its resources."""
    make = partial(_make, space, make_trainer)

    def trial(config: dict[str, Any]) -> None:
        """Train; whatever comes of it is reported, so that the process can take the next trial."""
        try:
            attended(make(config), _report).fit()
        except ConfigurationError as error:
            tune.report({REFUSED: str(error)})
        except PsgdError as error:
            tune.report({FAILED: str(error)})
        except Exception as error:  # of any kind: it comes from the user's own code
            tune.report({FAILED: blame(error)})

    return tune.with_resources(trial, partial(reservation, make))  # type: ignore[no-any-return]


def _make(space: Space, make_trainer: MakeTrainer, point: Point) -> Trainer:
    return make_trainer(values_of(space, point))


def _report(values: dict[str, Any]) -> None:
    names = sorted(values.keys() - {"step", "evaluation", "seconds", "final"})
    tune.report({**values, NAMES: names})
