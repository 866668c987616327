"""Regression from the embedded data to the metrics, in one process."""

from dataclasses import replace

import pytest
import torch

from psgd.cli.building import build_trainer
from psgd.cli.train_config import TrainConfig
from psgd.config import Loss
from psgd.core.modes import Async, Mode, Sync
from psgd.data.datasets import load
from psgd.errors import ConfigurationError
from psgd.result import Result
from psgd.trainer import Trainer
from psgd.training.losses import loss
from psgd.training.models import resolve_model
from psgd.training.optimizers import resolve_optimizer
from psgd.training.schedules import schedule

LEAST_SQUARES_R2 = 0.595
"""Of the best line on the test part, see tests/data/test_datasets.py."""


def train(mode: Mode, error: Loss) -> Result:
    split = load("diabetes")
    return Trainer(
        model=resolve_model("linear", split.shape, split.outputs),
        optimizer=resolve_optimizer("sgd", 0.05, {"momentum": 0.9}),
        lr_scheduler=schedule("cosine", warmup_steps=10, T_max=130),
        loss=error,
        train_data=split.train,
        val_data=split.test,
        mode=mode,
        workers=2,
        shards=2,
        batch_size=32,
        steps=140,
        evaluate_every=140,
        plane="memory",
        out=None,
        progress=False,
    ).fit()


@pytest.mark.parametrize("mode", [Sync(), Async(2)])
def test_a_line_is_fitted_to_diabetes(mode: Mode) -> None:
    metrics = train(mode, loss("mse")).metrics
    assert metrics["test_r2"] == pytest.approx(LEAST_SQUARES_R2, abs=0.04)
    assert metrics["test_rmse"] ** 2 == pytest.approx(metrics["test_loss"])


@pytest.mark.parametrize("name", ["mae", "huber"])
def test_other_losses_fit_it_nearly_as_well(name: str) -> None:
    assert train(Sync(), loss(name)).metrics["test_r2"] > LEAST_SQUARES_R2 - 0.1


def test_the_command_line_knows_what_goes_with_regression() -> None:
    config = TrainConfig(data="diabetes", model="linear", plane="memory", steps=2, evaluate_every=2)
    trainer = replace(build_trainer(config), out=None, progress=False)
    assert trainer.fit().metrics.keys() == {"train_loss", "test_loss", "test_rmse", "test_r2"}
    refused = replace(config, metrics=("auroc",))
    with pytest.raises(ConfigurationError, match=r"^metric auroc needs classes, got numbers: outputs \(2, 1\) float32"):
        replace(build_trainer(refused), out=None, progress=False).plan()


def test_a_model_for_images_is_refused() -> None:
    split = load("diabetes")
    with pytest.raises(
        ConfigurationError, match=r"^model cnn needs inputs of shape \(C, H, W\) .*, got \(10,\); try mlp$"
    ):
        resolve_model("cnn", split.shape, split.outputs)


def test_targets_have_the_shape_of_outputs_so_that_any_loss_will_do() -> None:
    split = load("diabetes")
    inputs, targets = split.train.batch(torch.arange(8))
    outputs = resolve_model("mlp", split.shape, split.outputs)()(inputs)
    assert outputs.shape == targets.shape == (8, 1)
