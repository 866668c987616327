import pickle

import pytest
import torch
from torch import Tensor, nn

from psgd.config import Loss
from psgd.errors import ConfigurationError
from psgd.training.losses import LOSSES, resolve_loss


def test_cross_entropy_is_the_default() -> None:
    loss = resolve_loss()
    assert loss(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(1.3862944)  # ln 4


@pytest.mark.parametrize("name", LOSSES)
def test_every_named_loss_is_a_mean_and_can_be_pickled(name: str) -> None:
    loss = pickle.loads(pickle.dumps(resolve_loss(name)))
    classes = name in ("cross-entropy", "nll")
    output = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([1, 0, 3]) if classes else torch.ones(3, 4)
    twice = loss(torch.cat([output, output]), torch.cat([target, target]))
    assert twice.item() == pytest.approx(loss(output, target).item())


def test_a_loss_of_the_users_own_passes_through() -> None:
    def own(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).mean()

    assert resolve_loss(own) is own


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "mae",
            "loss must be one of cross-entropy, mse, l1, huber, bce-with-logits, nll, got 'mae'",
        ),
        (3, "loss must be a name or a callable (output, target), got int"),
        (nn.MSELoss(reduction="sum"), "loss must have reduction='mean', got 'sum'"),
    ],
)
def test_what_is_no_mean_loss_is_refused(loss: str | Loss, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_loss(loss)
    assert str(caught.value) == message
