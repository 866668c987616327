import random
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from psgd.config import Straggler, Training
from psgd.data.sampler import BatchPlan
from psgd.durations import constant, parse_duration
from psgd.worker import compute
from psgd.worker.compute import Supervised, cut
from psgd.worker.straggling import lingering
from tests.jobs import CNN, MLP, NormAndDropout, first_model, images

CPU = torch.device("cpu")


class Scale(nn.Module):
    """Its gradient, for the loss below, is the mean of the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(3))

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 3) -> (B, 3)
        return inputs * self.factor


def nothing() -> None:
    """Nobody wants to know."""


def mean_of_sums(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.sum(1) - targets).mean()


def integers() -> TensorDataset:
    """Whole numbers, whose sums have no rounding."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randint(-50, 50, (32, 3), generator=generator).float(), torch.arange(32.0))


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_the_gradient_is_that_of_the_mean_loss_over_the_batch_of_step_and_slot() -> None:
    model, dataset = Scale(), integers()
    done = Supervised(model, Training(mean_of_sums, batch_size=8, seed=4), dataset, 2, CPU)(1, 1, nothing)
    inputs, targets = dataset[BatchPlan(32, 2, 8, 4).indices(1, 1)]
    assert torch.equal(gradients(model)[0], inputs.mean(0))
    assert done.loss == (inputs.sum(1) - targets).mean().item()
    assert done.samples == 8
    assert done.seconds > 0


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_micro_batches_add_up_to_the_batch_exactly_where_sums_are_exact(accumulate: int) -> None:
    whole, parts = Scale(), Scale()
    dataset = integers()
    at_once = Supervised(whole, Training(mean_of_sums, 8), dataset, 2, CPU)(0, 0, nothing)
    training = Training(mean_of_sums, 8, accumulate=accumulate)
    bit_by_bit = Supervised(parts, training, dataset, 2, CPU)(0, 0, nothing)
    assert torch.equal(gradients(whole)[0], gradients(parts)[0])
    assert bit_by_bit.loss == at_once.loss
    assert bit_by_bit.samples == 8


@pytest.mark.parametrize("accumulate", [2, 3, 4, 5])  # of 5: 3 + 2, 2 + 2 + 1, again, and one by one
def test_unequal_micro_batches_are_weighted_by_their_sizes(accumulate: int) -> None:
    whole, parts = first_model(CNN), first_model(CNN)
    make = partial(Training, nn.functional.cross_entropy, batch_size=5)
    at_once = Supervised(whole, make(), images(), 4, CPU)(2, 1, nothing)
    bit_by_bit = Supervised(parts, make(accumulate=accumulate), images(), 4, CPU)(2, 1, nothing)
    torch.testing.assert_close(gradients(parts), gradients(whole))
    assert bit_by_bit.loss == pytest.approx(at_once.loss, rel=1e-6)


@pytest.mark.parametrize(("accumulate", "sizes"), [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (5, [1, 1, 1, 1, 1])])
def test_a_batch_is_computed_in_so_many_micro_batches(accumulate: int, sizes: list[int]) -> None:
    seen: list[int] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(outputs))
        return nn.functional.cross_entropy(outputs, targets)

    training = Training(loss, batch_size=5, accumulate=accumulate)
    Supervised(first_model(MLP), training, images(), 4, CPU)(0, 0, nothing)
    assert seen == sizes


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Nothing but noise, from every generator that a transform may use."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(()).item() + np.random.rand() + random.random()
        return torch.full((1, 8, 8), noise), torch.tensor(0)


def test_what_is_drawn_at_random_depends_on_seed_step_and_slot_alone() -> None:
    model = first_model(NormAndDropout).train()

    def compute(seed: int, step: int, slot: int) -> float | None:
        training = Training(nn.functional.cross_entropy, 4, seed)
        return Supervised(model, training, Augmented(), 4, CPU)(step, slot, nothing).loss

    first = compute(0, 1, 2)
    draws = torch.rand(100), np.random.rand(100), random.random()  # others draw, too
    assert len(draws) == 3
    others = [compute(0, 2, 2), compute(0, 1, 3), compute(1, 1, 2)]
    assert compute(0, 1, 2) == first
    assert len({first, *others}) == 4


def test_a_straggler_sleeps_its_factor_and_its_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    readings = iter([100.0, 102.0, 110.0, 200.0, 203.0, 207.0])  # began, computed, ended; twice
    clock = SimpleNamespace(perf_counter=lambda: next(readings), sleep=slept.append)
    monkeypatch.setattr(compute, "time", clock)
    training = Training(mean_of_sums, 8, stragglers=(Straggler(1, constant(0.5), factor=3.0),))
    supervised = Supervised(Scale(), training, integers(), 2, CPU)
    assert supervised(0, 1, nothing).seconds == 10.0
    assert slept == [2.0 * (3.0 - 1) + 0.5]
    assert supervised(0, 0, nothing).seconds == 7.0
    assert len(slept) == 1


def test_delays_at_random_are_those_of_seed_step_and_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(compute, "time", SimpleNamespace(perf_counter=lambda: 0.0, sleep=slept.append))
    slow = (Straggler(None, parse_duration("exp:50ms")),)
    supervised = Supervised(Scale(), Training(mean_of_sums, 8, seed=3, stragglers=slow), integers(), 2, CPU)
    supervised(0, 1, nothing)
    assert slept == [lingering(slow, 0.0, seed=3, step=0, slot=1)]


@pytest.mark.parametrize(("precision", "computed"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_model_computes_in_the_precision_and_the_loss_in_float32(precision: Any, computed: torch.dtype) -> None:
    seen: dict[str, torch.dtype] = {}

    class Watched(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            output = super().forward(inputs)
            seen["output"] = output.dtype
            return output

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen["loss"] = outputs.dtype
        return mean_of_sums(outputs, targets)

    model = Watched(3, 3)
    Supervised(model, Training(loss, 8, precision=precision), integers(), 2, CPU)(0, 0, nothing)
    assert seen == {"output": computed, "loss": torch.float32}
    assert {gradient.dtype for gradient in gradients(model)} == {torch.float32}


def test_an_output_that_is_no_tensor_reaches_the_loss_as_it_is() -> None:
    class Named(Scale):
        def forward(self, inputs: Tensor) -> Any:
            return {"sums": super().forward(inputs)}

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return mean_of_sums(outputs["sums"], targets)

    model = Named()
    Supervised(model, Training(loss, 8), integers(), 2, CPU)(0, 0, nothing)
    assert len(gradients(model)) == 1


def test_batches_are_cut_however_they_are_nested() -> None:
    numbers = torch.arange(4)
    assert cut({"a": [numbers, (numbers + 10, "wxyz")]}, 1, 3) == {
        "a": [pytest.approx([1, 2]), [pytest.approx([11, 12]), "xy"]]
    }
