"""Comparisons small enough to be made within milliseconds."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

from psgd.core.modes import Async, Sync
from psgd.experiments.arms import Arm, Comparison, OptimizerChoice, Run, Scheme
from psgd.trainer import Trainer

SGD, ADAM = OptimizerChoice("sgd", {"momentum": 0.5}), OptimizerChoice("adam")
DATA = TensorDataset(torch.eye(2).repeat(8, 1), torch.tensor([0, 1]).repeat(8))  # as easy as can be
RULES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, momentum=0.5),
    "adam": torch.optim.Adam,
}


def two_arms(out: Path, *, seeds: tuple[int, ...] = (0, 1)) -> Comparison:
    return Comparison((Arm(SGD, Scheme(Sync()), (0.125, 0.25)), Arm(ADAM, Scheme(Async(1)), (0.125,))), seeds, out)


def trainer_of(run: Run, steps: int = 2) -> Trainer:
    return Trainer(
        model=partial(nn.Linear, 2, 2),
        optimizer=partial(RULES[run.arm.optimizer.name], lr=run.lr),
        train_data=DATA,
        val_data=DATA,
        mode=run.arm.scheme.mode,
        workers=2,
        batch_size=4,
        steps=steps,
        seed=run.seed,
        plane="memory",
        labels={"options": {"lr": run.lr}},
    )
