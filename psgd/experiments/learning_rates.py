"""Which learning rates to try where nobody says: a step of about three between them, around what usually works."""

from psgd.errors import ConfigurationError
from psgd.experiments.arms import OptimizerChoice

ADAPTIVE = (0.0003, 0.001, 0.003, 0.01)
"""For rules that divide by the gradient's own size, so that a step is about the learning rate long."""
PLAIN = (0.03, 0.1, 0.3, 1.0)
"""For rules whose step is as long as the gradient says."""
RATES: dict[str, tuple[float, ...]] = {
    **dict.fromkeys(("adam", "adamw", "nadam", "radam", "adamax", "rprop"), ADAPTIVE),
    **dict.fromkeys(("rmsprop", "rmsprop-inner"), (0.0001, 0.0003, 0.001, 0.003)),
    **dict.fromkeys(("adagrad", "adafactor", "lamb"), (0.003, 0.01, 0.03, 0.1)),
    **dict.fromkeys(("sgd", "asgd", "ema-momentum", "ftrl"), PLAIN),
    "adadelta": (0.1, 0.3, 1.0, 3.0),
}


def usual_rates(optimizer: OptimizerChoice) -> tuple[float, ...]:
    """The learning rates to try an optimizer with.

    Momentum makes a step 1 / (1 − momentum) times as long in the long run, so SGD's learning rates shrink by as much.

    Raises:
        ConfigurationError: if nothing is known of it, or there is no such optimizer.

    Example:
        >>> usual_rates(OptimizerChoice("sgd", {"momentum": 0.9}))
        (0.003, 0.01, 0.03, 0.1)
    """
    name = optimizer.name.lower()
    if name not in RATES:
        raise _without_rates(optimizer)
    momentum = optimizer.args.get("momentum", 0) if name == "sgd" else 0
    if not isinstance(momentum, int | float) or not 0 <= momentum < 1:
        return RATES[name]  # refused with the optimizer's own words
    return tuple(float(f"{lr * (1 - momentum):.3g}") for lr in RATES[name])


def _without_rates(optimizer: OptimizerChoice) -> ConfigurationError:
    """What is wrong with an optimizer that has no usual learning rates: above all, that it may be none."""
    if ":" not in optimizer.name:  # one of the user's own is found once it is known where to look
        from psgd.training.optimizers import resolve_optimizer  # torch, which takes seconds: only for who is refused

        try:
            resolve_optimizer(optimizer.name, ADAPTIVE[0], optimizer.args)
        except ConfigurationError as error:
            return error
    return ConfigurationError(
        f"lrs must be given for {optimizer}, whose usual learning rates are not known; "
        f"try --lrs '{optimizer.name}=0.001,0.01,0.1'"
    )
