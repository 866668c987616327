import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from psgd.config import Loss, Training
from psgd.errors import ConfigurationError
from psgd.training.losses import LOSSES, loss, resolve_loss
from psgd.worker.compute import Supervised

CLASSES = ("cross-entropy", "nll", "multi-class-hinge")  # of labels, with a score for each class
BINARY = ("binary-cross-entropy", "bce-with-logits", "hinge")
REGRESSION = ("mse", "mae", "l1", "huber", "smooth-l1")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def value(name: str, output: object, target: object, **args: Any) -> float:
    return float(loss(name, **args)(torch.as_tensor(output), torch.as_tensor(target)))


def test_cross_entropy_is_the_default() -> None:
    assert resolve_loss()(torch.zeros(2, 4), torch.tensor([0, 3])).item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("name", LOSSES)
def test_every_named_loss_is_a_mean_and_can_be_pickled(name: str) -> None:
    made = pickle.loads(pickle.dumps(resolve_loss(name)))
    output = drawn(3, 4)
    target = torch.tensor([1, 0, 3]) if name in CLASSES else torch.ones(3, 4)
    twice = made(torch.cat([output, output]), torch.cat([target, target]))
    assert twice.item() == pytest.approx(made(output, target).item())


@pytest.mark.parametrize(
    ("name", "torchs", "args"),
    [
        ("mse", nn.MSELoss(), {}),
        ("mae", nn.L1Loss(), {}),
        ("l1", nn.L1Loss(), {}),
        ("huber", nn.HuberLoss(delta=0.5), {"delta": 0.5}),
        ("smooth-l1", nn.SmoothL1Loss(beta=0.5), {"beta": 0.5}),
        ("cross-entropy", nn.CrossEntropyLoss(label_smoothing=0.2), {"label_smoothing": 0.2}),
        ("nll", nn.NLLLoss(), {}),
        ("multi-class-hinge", nn.MultiMarginLoss(p=2, margin=0.5), {"p": 2, "margin": 0.5}),
        (
            "multi-class-hinge",
            nn.MultiMarginLoss(weight=torch.tensor([1.0, 2.0, 0.5, 3.0])),
            {"weight": [1, 2, 0.5, 3]},
        ),
        ("binary-cross-entropy", nn.BCEWithLogitsLoss(), {}),
        ("bce-with-logits", nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)), {"pos_weight": 3}),
        (
            "bce-with-logits",
            nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0, 4.0])),
            {"pos_weight": [1, 2, 3, 4]},
        ),
    ],
)
def test_what_torch_has_is_torchs_to_the_bit(name: str, torchs: nn.Module, args: dict[str, Any]) -> None:
    output = drawn(5, 4)
    labels = torch.tensor([0, 3, 1, 1, 2])
    target = labels if name in CLASSES else drawn(5, 4, seed=1) if name in REGRESSION else drawn(5, 4).gt(0).float()
    assert torch.equal(loss(name, **args)(output, target), torchs(output, target))


@pytest.mark.parametrize("name", [*REGRESSION, *BINARY])
def test_a_last_dimension_of_one_does_not_matter(name: str) -> None:
    output, target = drawn(6), drawn(6, seed=1).gt(0).float()
    expected = value(name, output, target)
    for fitted in ((output[:, None], target), (output, target[:, None]), (output[:, None], target[:, None])):
        assert value(name, *fitted) == expected


@pytest.mark.parametrize("name", [*REGRESSION, *BINARY])
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float64, torch.uint8])
def test_targets_of_any_type_will_do(name: str, dtype: torch.dtype) -> None:
    output, target = drawn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    done = loss(name)(output, target.to(dtype))
    assert done.dtype == torch.float32
    assert done == loss(name)(output, target.float())


@pytest.mark.parametrize("name", [*REGRESSION, *BINARY])
@pytest.mark.parametrize("shapes", [((6, 2), (6,)), ((6,), (6, 2)), ((6, 1), (3,)), ((2, 3), (3, 2)), ((1, 6), (6, 1))])
def test_shapes_that_would_be_broadcast_are_refused(name: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^loss \S+ needs one target for each output, got outputs \("
    ) as caught:
        loss(name)(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
    assert f"got outputs {shapes[0]} and targets {shapes[1]}; make" in str(caught.value)


@pytest.mark.parametrize("name", CLASSES)
def test_a_single_score_is_not_mistaken_for_classes(name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^loss .* needs a score for each of at least two classes.*\(3, 1\)"):
        loss(name)(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))


def test_hinge_takes_labels_of_both_kinds() -> None:
    scores = [2.0, 0.5, -0.5, -3.0]
    by_hand = (0 + 0.5 + 1.5 + 0 + 0.0) / 4
    assert value("hinge", scores, [1, 1, 1, 0]) == by_hand
    assert value("hinge", scores, [1, 1, 1, -1]) == by_hand
    assert value("hinge", scores, [1.0, 1.0, 1.0, 0.0], margin=2.0) == (0 + 1.5 + 2.5 + 0) / 4


def test_hinge_teaches_nothing_beyond_the_margin() -> None:
    scores = torch.tensor([2.0, 0.5, -0.5], requires_grad=True)
    loss("hinge")(scores, torch.tensor([1, 1, 0])).backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == pytest.approx([0.0, -1 / 3, 1 / 3])


def test_class_weights_multiply_and_the_number_of_labels_divides() -> None:
    output, target = drawn(3, 2), torch.tensor([0, 1, 1])
    each = [value("cross-entropy", output[i : i + 1], target[i : i + 1]) for i in range(3)]
    by_hand = (2 * each[0] + 5 * each[1] + 5 * each[2]) / 3
    assert value("cross-entropy", output, target, weight=[2, 5]) == pytest.approx(by_hand)
    assert value("nll", output.log_softmax(1), target, weight=[2, 5]) == pytest.approx(by_hand)
    positions = output.T[None].contiguous(), target[None]  # (1, classes, positions) and (1, positions)
    assert value("cross-entropy", *positions, weight=[2, 5]) == pytest.approx(by_hand)


@pytest.mark.parametrize("name", CLASSES)
def test_with_class_weights_the_mean_over_slots_is_the_mean_over_the_whole_batch(name: str) -> None:
    made, output, target = loss(name, weight=[1, 10, 0.1, 3]), drawn(6, 4), torch.tensor([0, 0, 1, 1, 2, 3])
    slots = [made(output[part], target[part]) for part in (slice(0, 2), slice(2, 4), slice(4, 6))]
    assert float(sum(slots) / 3) == pytest.approx(float(made(output, target)), rel=1e-5)


@pytest.mark.parametrize("accumulate", [2, 4])
def test_with_class_weights_micro_batches_change_nothing(accumulate: int) -> None:
    def gradient(micro_batches: int) -> tuple[float | None, Tensor]:
        model = nn.Linear(3, 4)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        training = Training(loss("cross-entropy", weight=[1, 10, 0.1, 3]), batch_size=7, accumulate=micro_batches)
        dataset = TensorDataset(drawn(7, 3), torch.tensor([0, 0, 1, 1, 2, 3, 1]))
        done = Supervised(model, training, dataset, slots=1, device=torch.device("cpu"))(0, 0, lambda: None)
        assert model.weight.grad is not None
        return done.loss, model.weight.grad

    (whole, whole_grad), (parts, parts_grad) = gradient(1), gradient(accumulate)
    assert parts == pytest.approx(whole, rel=1e-5)
    torch.testing.assert_close(parts_grad, whole_grad)


def test_a_loss_of_the_users_own_passes_through() -> None:
    def own(output: Tensor, target: Tensor) -> Tensor:
        return (output - target).mean()

    assert resolve_loss(own) is own
    torchs = nn.CrossEntropyLoss(weight=torch.ones(2))
    assert resolve_loss(torchs) is torchs


OWN = """
import torch
def cubic(output, target, scale=1.0): return scale * (output - target).abs().pow(3).mean()
class Cubic(torch.nn.Module):
    def __init__(self, scale): super().__init__(); self.scale = scale
    def forward(self, output, target): return cubic(output, target, self.scale)
total = torch.nn.MSELoss(reduction="sum")
"""


@pytest.fixture
def own_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_losses.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    return "own_losses"


def test_a_loss_from_a_module_of_the_users_own(own_losses: str) -> None:
    assert value(f"{own_losses}:cubic", [2.0], [0.0]) == 8.0
    assert value(f"{own_losses}:cubic", [2.0], [0.0], scale=0.5) == 4.0
    assert value(f"{own_losses}:Cubic", [2.0], [0.0], scale=0.25) == 2.0
    with pytest.raises(ConfigurationError, match=r"^loss own_losses:Cubic can not be made: TypeError: .*scal"):
        loss(f"{own_losses}:Cubic")
    with pytest.raises(ConfigurationError, match=r"^loss must have reduction='mean', got 'sum'$"):
        loss(f"{own_losses}:total")


KNOWN = (
    "loss must be one of bce-with-logits, binary-cross-entropy, cross-entropy, hinge, huber, l1, mae, mse, "
    "multi-class-hinge, my.pkg:loss, nll, smooth-l1, got "
)


@pytest.mark.parametrize(
    ("loss", "args", "message"),
    [
        ("crossentropy", {}, f"{KNOWN}'crossentropy'; did you mean cross-entropy or binary-cross-entropy?"),
        ("kl", {}, f"{KNOWN}'kl'"),
        (3, {}, "loss must be a name or a callable (output, target), got int"),
        (nn.MSELoss(reduction="sum"), {}, "loss must have reduction='mean', got 'sum'"),
        (nn.MSELoss(), {"delta": 1}, "loss arguments need a loss's name, got delta without one"),
        ("huber", {"beta": 1}, "loss huber has no argument 'beta'; it takes delta; did you mean delta?"),
        ("mse", {"beta": 1}, "loss mse has no argument 'beta'; it takes none"),
        ("huber", {"delta": 0}, "loss huber: delta must be a number > 0, got 0"),
        ("smooth-l1", {"beta": "x"}, "loss smooth-l1: beta must be a number >= 0, got 'x'"),
        (
            "cross-entropy",
            {"label_smoothing": 1.5},
            "loss cross-entropy: label_smoothing must be a number from 0 to 1, got 1.5",
        ),
        ("cross-entropy", {"weight": 2}, "loss cross-entropy: weight must be a list of numbers >= 0, got 2"),
        ("nll", {"weight": [1, -2]}, "loss nll: weight must be a list of numbers >= 0, got [1, -2]"),
        ("hinge", {"margin": -1}, "loss hinge: margin must be a number > 0, got -1"),
        ("multi-class-hinge", {"p": 3}, "loss multi-class-hinge: p must be 1 or 2, got 3"),
        (
            "bce-with-logits",
            {"pos_weight": -1},
            "loss binary-cross-entropy: pos_weight must be a number >= 0, got -1",
        ),
        (
            "bce-with-logits",
            {"pos_weight": ["x"]},
            "loss binary-cross-entropy: pos_weight must be a list of numbers >= 0, got ['x']",
        ),
    ],
)
def test_what_is_no_mean_loss_is_refused(loss: str | Loss, args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve_loss(loss, args)
    assert str(caught.value) == message


def test_a_tensor_of_weights_is_taken_too() -> None:
    assert repr(loss("cross-entropy", weight=torch.tensor([1.0, 2.0]))) == (
        "CrossEntropy(weight=(1.0, 2.0), label_smoothing=0.0)"
    )
