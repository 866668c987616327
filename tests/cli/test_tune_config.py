from typing import Any

import pytest

from psgd.cli.train_config import TrainConfig
from psgd.cli.tune_config import TuneConfig
from psgd.cli.values import Entries
from psgd.errors import ConfigurationError
from psgd.tuning.space import Range


def config(**options: Any) -> TuneConfig:
    return TuneConfig(**{"space": Entries(lr="log:1e-4:1e-1"), **options})


def test_the_space_is_read_by_the_options_types() -> None:
    assert config().domains() == {"lr": Range(1e-4, 1e-1, log=True)}


def test_what_trials_share_is_what_train_would_be_told() -> None:
    assert config(lr=0.5, shards=3, optimizer_args={"eps": 1.0}).shared() == TrainConfig(
        lr=0.5, shards=3, optimizer_args={"eps": 1.0}
    )


@pytest.mark.parametrize(
    ("objective", "goal"),
    [("test_accuracy", "max"), ("test_loss", "min"), ("test_rmse", "min"), ("test_mae", "min"), ("test_r2", "max")],
)
def test_less_is_better_of_losses_and_errors(objective: str, goal: str) -> None:
    assert config(objective=objective).choose_goal() == goal
    assert config(objective=objective, goal="min").choose_goal() == "min"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"space": Entries()}, "space must name what to search, as in --space lr=log:1e-4:1e-1, got nothing"),
        ({"search": "grid"}, "search grid needs choices, got a range for lr: list some, as lr=A,B,..., or try search"),
        ({"search": "grid", "trials": 3}, "trials must be left out with search grid, which makes all, got 3"),
        ({"trials": 0}, "trials must be >= 1, got 0"),
        ({"concurrent": 0}, "concurrent must be >= 1, got 0"),
        ({"grace_period": 2}, "grace_period must be left out without asha, got 2"),
        ({"reduction_factor": 2}, "reduction_factor must be left out without asha, got 2"),
        ({"resume": True}, "resume needs the folder of the search: give --out, got none"),
        ({"staleness": 2}, "staleness must be left out with mode sync, got 2"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        config(**options)
    assert words in str(refusal.value)
