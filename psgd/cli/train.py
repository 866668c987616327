"""``psgd train``: options in, a run, figures out."""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from psgd.analysis.drawing import check_drawable
from psgd.analysis.schedule_picture import draw_schedule
from psgd.cli.building import build_trainer
from psgd.cli.figures import print_figures
from psgd.cli.train_config import EPOCHS, TrainConfig
from psgd.core.layout import Role
from psgd.planning import Plan
from psgd.training.schedules import learning_rates

PICTURE = "schedule.png"


def run(config: TrainConfig) -> None:
    """Train as the options say.

    Raises:
        ConfigurationError: if they can not be run; nothing has been started or written then.
        PsgdError: if the run has failed.
    """
    trainer = build_trainer(config)
    plan = trainer.plan()
    if config.plot:
        _draw(plan, config)
    if config.dry_run:
        print_figures(describe_plan(plan), config.json)
        return
    try:
        print_figures(trainer.run(plan).figures, config.json)
    finally:
        if plan.out is not None and plan.out.exists():  # also what an interrupted run has logged
            print(f"psgd: the run is in {plan.out}", file=sys.stderr)


def _draw(plan: Plan, config: TrainConfig) -> None:
    """The picture of the schedule: beside a run's log, or where psgd was called."""
    folder = Path() if config.out is None else Path(config.out)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PICTURE
    check_drawable(target)
    job, steps = plan.job, plan.job.rules.steps or 0
    trained = [(s.name, nn.Parameter(torch.zeros(s.shape))) for s in job.layout.tensors if s.role is Role.PARAMETER]
    rates = learning_rates(trained, job.optimizer, job.schedule, steps)
    warmup = f"{config.warmup_steps} steps of warm-up, then " if config.warmup_steps else ""
    title = f"{config.optimizer}: {warmup}{config.schedule or 'constant'}"
    per_epoch = None if config.steps is not None else steps // (config.epochs or EPOCHS)
    draw_schedule(rates, target, title, per_epoch)
    print(f"psgd: the schedule is drawn in {target}", file=sys.stderr)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a run would be."""
    job, rules = plan.job, plan.job.rules
    batch = job.training.batch_size * rules.slots
    return {
        "mode": plan.settings["mode"],
        "workers": job.workers,
        "slots": rules.slots,
        "steps": rules.steps,
        "samples": None if rules.steps is None else rules.steps * batch,
        "evaluate_every": rules.evaluate_every,
        "tensors": len(job.layout.tensors),
        "parameters": sum(spec.elements for spec in job.layout.tensors),
        "optimizer": plan.settings["optimizer"],
        "schedule": plan.settings["schedule"],
        "loss": plan.settings["loss"],
        "layout": plan.settings["layout"],
        "bytes_a_shard": [part.bytes for part in job.parts()],
        "plane": job.plane,
        "wire": job.wire,
        "shard_device": job.shard_device,
        "out": None if plan.out is None else str(plan.out),
    }
