"""How a loss is named on the command line."""

from torch import nn

from psgd.config import Loss
from psgd.errors import ConfigurationError

LOSSES: dict[str, type[nn.Module]] = {
    "cross-entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "huber": nn.HuberLoss,
    "bce-with-logits": nn.BCEWithLogitsLoss,
    "nll": nn.NLLLoss,
}


def resolve_loss(loss: str | Loss = "cross-entropy") -> Loss:
    """The loss that a name stands for; a loss of the user's own passes through.

    Args:
        loss: one of ``LOSSES``, or a callable (output, target) that returns the mean over the batch.

    Raises:
        ConfigurationError: there is no such name, or the loss is torch's and does not return the mean.

    Example:
        >>> resolve_loss("mse")
        MSELoss()
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ConfigurationError(f"loss must be one of {', '.join(LOSSES)}, got {loss!r}")
        return LOSSES[loss]()
    if not callable(loss):
        raise ConfigurationError(f"loss must be a name or a callable (output, target), got {type(loss).__name__}")
    # Shards average gradients over slots, which gives the whole batch's gradient only for means.
    if getattr(loss, "reduction", "mean") != "mean":
        raise ConfigurationError(f"loss must have reduction='mean', got {getattr(loss, 'reduction', None)!r}")
    return loss
