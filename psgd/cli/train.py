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
        figures = trainer.run(plan).figures
        print_figures(figures, config.json)
        if figures["nonfinite_pushes"]:
            held = f"{figures['nonfinite_pushes']} pushes held NaN or Inf, or were beside one that did"
            print(f"psgd: {held}: no shard has applied them; lower the learning rate or clip", file=sys.stderr)
    finally:
        if plan.out is not None and plan.out.exists():  # also what an interrupted run has logged
            print(f"psgd: the run is in {plan.out}", file=sys.stderr)


def _draw(plan: Plan, config: TrainConfig) -> None:
    """The picture of the schedule: beside the run's log; without a run, and a folder for it, where psgd was called."""
    folder = Path() if plan.out is None or (config.dry_run and config.out is None) else plan.out
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / PICTURE
    check_drawable(target)
    job, steps = plan.job, plan.job.rules.steps or 0
    rates = learning_rates(_stand_ins(plan), job.optimizer, job.schedule, steps)
    warmup = f"{config.warmup_steps} steps of warm-up, then " if config.warmup_steps else ""
    title = f"{config.optimizer}: {warmup}{config.schedule or 'constant'}"
    # Epochs need not begin with a step where each has several mini-batches.
    marked = config.steps is None and config.local_steps is None
    per_epoch = steps // (config.epochs or EPOCHS) if marked else None
    draw_schedule(rates, target, title, per_epoch)
    print(f"psgd: the schedule is drawn in {target}", file=sys.stderr)


def _describe_groups(plan: Plan) -> list[str]:
    """Each parameter group: how many tensors it has, and its options that are numbers and not off."""
    groups = plan.job.optimizer(_stand_ins(plan)).param_groups
    return [
        f"{len(group['params'])} tensors: "
        + ", ".join(f"{name}={value}" for name, value in group.items() if _is_on(value))
        for group in groups
    ]


def _is_on(value: object) -> bool:
    return isinstance(value, int | float | tuple) and value is not False and value != 0


def _stand_ins(plan: Plan) -> list[tuple[str, nn.Parameter]]:
    """Zeros in place of the trained parameters."""
    tensors = plan.job.layout.tensors
    return [(spec.name, nn.Parameter(torch.zeros(spec.shape))) for spec in tensors if spec.role is Role.PARAMETER]


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What a run would be."""
    job, rules = plan.job, plan.job.rules
    batch = job.iteration_samples * rules.slots
    return {
        "mode": plan.settings["mode"],
        "gather": plan.settings.get("gather", 1),
        "correction": plan.settings["correction"],
        "workers": job.workers,
        "slots": rules.slots,
        "steps": rules.steps,
        "samples": None if rules.steps is None else rules.steps * batch,
        "evaluate_every": rules.evaluate_every,
        "local_steps": plan.settings["local_steps"],
        "tensors": len(job.layout.tensors),
        "parameters": sum(spec.elements for spec in job.layout.tensors),
        "optimizer": plan.settings["optimizer"],
        "groups": _describe_groups(plan),
        "schedule": plan.settings["schedule"],
        "clip": None if job.clip is None else str(job.clip),
        "on_nonfinite": job.on_nonfinite,
        "loss": plan.settings["loss"],
        "metrics": plan.settings["metrics"],
        "by_evaluations": [str(rule) for rule in plan.policies.rules] or None,
        "layout": plan.settings["layout"],
        "bytes_a_shard": [part.bytes for part in job.parts()],
        "plane": job.plane,
        "wire": job.wire,
        "shard_device": job.shard_device,
        "out": None if plan.out is None else str(plan.out),
    }
