"""Trials on a real local Ray, with a ``Tuner`` of the user's own."""

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray import tune

import psgd
from tests.tuning.test_trainable import make_trainer

pytestmark = pytest.mark.ray

CPUS = 2


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    ray.init(address="local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
    os.environ.pop("RAY_AUTH_MODE", None)


@pytest.mark.usefixtures("local_ray")
def test_a_trial_runs_in_what_it_has_reserved(tmp_path: Path) -> None:
    """It reserves all there is: its shard and its worker find room in its own placement group, or nowhere."""
    trainer = make_trainer(plane="auto", workers=1, shards=1, epochs=1, val_data=None)
    tuner = tune.Tuner(
        psgd.as_trainable(trainer),
        param_space={"batch_size": tune.grid_search([10])},
        tune_config=tune.TuneConfig(metric="train_loss", mode="min"),
        run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    )
    result = tuner.fit().get_best_result()
    alone = make_trainer(epochs=1, batch_size=10, out=None, progress=False).fit()
    assert result.error is None
    assert result.config == {"batch_size": 10}
    assert result.metrics is not None
    assert result.metrics["train_loss"] == alone.metrics["train_loss"]
    assert (result.metrics["step"], result.metrics["evaluation"], result.metrics["final"]) == (10, 0, True)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != CPUS:  # type: ignore[no-untyped-call]  # Ray's own omission
        assert time.monotonic() < deadline
        time.sleep(0.05)
