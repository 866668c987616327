"""What training is made of: models, losses, optimizers, schedules, metrics, callbacks."""

from psgd.training.callbacks import Callback, Continue, EarlyStopping, Stop
from psgd.training.losses import LOSSES, Loss, resolve_loss
from psgd.training.metrics import evaluate
from psgd.training.models import MODELS, ModelFactory, check_model, resolve_model
from psgd.training.optimizers import (
    OPTIMIZERS,
    Form,
    OptimizerFactory,
    check_optimizer,
    is_elementwise,
    resolve_optimizer,
    use_fused,
)
from psgd.training.schedules import SCHEDULES, ScheduleFactory, resolve_schedule
from psgd.training.warm_start import apply_weights, load_weights

__all__ = [
    "LOSSES",
    "MODELS",
    "OPTIMIZERS",
    "SCHEDULES",
    "Callback",
    "Continue",
    "EarlyStopping",
    "Form",
    "Loss",
    "ModelFactory",
    "OptimizerFactory",
    "ScheduleFactory",
    "Stop",
    "apply_weights",
    "check_model",
    "check_optimizer",
    "evaluate",
    "is_elementwise",
    "load_weights",
    "resolve_loss",
    "resolve_model",
    "resolve_optimizer",
    "resolve_schedule",
    "use_fused",
]
