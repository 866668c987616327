"""Evaluation: the mean loss and the accuracy of a model over a data set."""

import torch
from torch import Tensor, nn

from psgd.config import Loss
from psgd.data.batches import MapDataset, collate, to_device
from psgd.errors import ConfigurationError


def evaluate(
    model: nn.Module, dataset: MapDataset, loss: Loss, batch_size: int, device: torch.device
) -> dict[str, float]:
    """Compute a model's metrics over a whole data set, batch after batch, in the order of the data set.

    The model is evaluated in eval mode and without gradients, and left in the mode it was in.

    Args:
        model: the model, on ``device``.
        dataset: a map-style data set of (input, target) pairs.
        loss: (output, target) to the mean over the batch.
        batch_size: samples a batch; the last one may be smaller. It changes the loss in its last bits only.
        device: where to compute.

    Returns:
        ``loss``, the mean over the samples, and, where targets are integers, (B, ...), and outputs scores of
        classes, (B, classes, ...), ``accuracy``, the fraction of targets that have the highest score.

    Raises:
        ConfigurationError: the data set is empty, or ``batch_size`` is not positive.
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size of an evaluation must be >= 1, got {batch_size}")
    if len(dataset) == 0:
        raise ConfigurationError("the data set of an evaluation must have samples, got none")
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        return _evaluate(model, dataset, loss, batch_size, device)
    finally:
        for module, flag in training.items():
            module.training = flag


@torch.inference_mode()
def _evaluate(
    model: nn.Module, dataset: MapDataset, loss: Loss, batch_size: int, device: torch.device
) -> dict[str, float]:
    loss_sum, correct, classified = 0.0, 0, 0
    for indices in torch.split(torch.arange(len(dataset)), batch_size):
        inputs, targets = (to_device(part, device) for part in collate(dataset, indices))
        outputs = model(inputs)
        loss_sum += float(loss(outputs, targets)) * len(indices)
        if _are_classes(outputs, targets):
            correct += int((outputs.argmax(dim=1) == targets).sum())
            classified += targets.numel()
    metrics = {"loss": loss_sum / len(dataset)}
    if classified:
        metrics["accuracy"] = correct / classified
    return metrics


def _are_classes(outputs: object, targets: object) -> bool:
    return (
        isinstance(outputs, Tensor)
        and isinstance(targets, Tensor)
        and not (targets.is_floating_point() or targets.is_complex())
        and outputs.dim() >= 2
        and outputs.shape[:1] + outputs.shape[2:] == targets.shape
    )
