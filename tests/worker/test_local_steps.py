from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from psgd.config import Clip, Job, OptimizerFactory, Straggler
from psgd.core.ids import Slot, Step
from psgd.core.local_steps import LocalSteps
from psgd.core.slot import Compute
from psgd.data.sampler import BatchPlan
from psgd.durations import constant
from psgd.errors import ConfigurationError
from psgd.training.optimizers import resolve_optimizer
from psgd.transport.flat import layout_of, pack, tensors_of
from psgd.worker import compute, local_steps
from psgd.worker.compute import Supervised
from psgd.worker.local_steps import LocalTraining, held_apart
from psgd.worker.replica import Replica
from tests.jobs import first_model, images, make_job

CPU = torch.device("cpu")
PLAIN = resolve_optimizer("sgd", 0.5, {})
HEAVY = resolve_optimizer("sgd", 0.5, {"momentum": 0.5})


class Count(nn.Module):
    """Every gradient of its weight is 1, for the loss below; a buffer and a frozen parameter are beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))
        self.idle = nn.Parameter(torch.ones(2))
        self.fixed = nn.Parameter(torch.ones(2), requires_grad=False)
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, _inputs: Tensor) -> Tensor:
        self.seen += 1
        return (self.weight * self.fixed).sum()


def itself(outputs: Tensor, _targets: Tensor) -> Tensor:
    return outputs


def nothing() -> None:
    raise AssertionError("no backward pass is the last one")


def order(step: int, tick: int = 0, lr_factor: float = 1.0) -> Compute:
    return Compute(Step(step), tick, lr_factor)


class Party:
    """A model that takes local steps, and what was pulled."""

    def __init__(self, job: Job) -> None:
        self.model = first_model(job.model)
        tensors = tensors_of(self.model)
        self.pulled = held_apart(tensors)
        data = images()
        self.supervised = Supervised(self.model, job.training, data, job.rules.slots, CPU)
        self.training = LocalTraining(job, tensors, self.pulled, self.supervised)
        self.replica = Replica(self.pulled, job.layout, CPU, pack(tensors, job.layout))

    def delta(self, step: int, slot: int = 0, tick: int = 0, lr_factor: float = 1.0) -> list[float]:
        self.replica.clear_gradients()
        self.training(order(step, tick, lr_factor), Slot(slot), nothing)
        grad = self.pulled["weight"].grad
        assert grad is not None
        return grad.tolist()


make_count = partial(make_job, Count, loss=itself, optimizer=PLAIN, local_steps=LocalSteps(4))


def test_what_is_left_in_place_of_a_gradient_is_how_far_the_weights_have_come() -> None:
    party = Party(make_count())
    assert party.delta(0) == [4 * 0.5] * 2
    assert tensors_of(party.model)["weight"].tolist() == [-2.0] * 2
    assert party.pulled["weight"].tolist() == [0.0] * 2
    assert party.delta(1) == [2.0] * 2  # from what was pulled, not from where it had come to


def test_a_parameter_that_no_mini_batch_has_a_gradient_for_has_none() -> None:
    party = Party(make_count(optimizer=resolve_optimizer("adamw", 0.1, {"weight_decay": 0.5})))
    party.delta(0)
    assert party.pulled["idle"].grad is None


def test_only_trained_parameters_are_held_apart() -> None:
    model = Count()
    tensors = tensors_of(model)
    pulled = held_apart(tensors)
    assert list(pulled) == list(tensors)
    assert [name for name in pulled if pulled[name] is not tensors[name]] == ["weight", "idle"]
    assert layout_of(pulled) == layout_of(tensors)
    version = pulled["weight"]._version
    with torch.no_grad():
        model.weight.add_(1)
    assert pulled["weight"]._version == version  # or the replica would take it for a write to the weights


def test_buffers_are_left_as_the_last_mini_batch_leaves_them() -> None:
    party = Party(make_count())
    party.delta(0)
    assert party.pulled["seen"].item() == 4
    party.replica.renew()
    assert tensors_of(party.model)["seen"].item() == 0


def test_mini_batches_are_those_of_the_plan_one_after_another() -> None:
    drawn: list[tuple[int, int]] = []
    job = make_count()
    party = Party(job)

    class Noted(BatchPlan):
        def indices(self, step: int, slot: int) -> Tensor:
            drawn.append((step, slot))
            return BatchPlan.indices(self, step, slot)

    party.supervised._plan = Noted(100, job.rules.slots, job.training.batch_size, job.training.seed)
    party.delta(2, slot=3)
    assert drawn == [(8, 3), (9, 3), (10, 3), (11, 3)]


def test_each_slot_keeps_the_state_of_its_own_optimizer() -> None:
    alone, both = Party(make_count(optimizer=HEAVY)), Party(make_count(optimizer=HEAVY))
    first, second = alone.delta(0), alone.delta(1)
    assert first == [0.5 * (1 + 1.5 + 1.75 + 1.875)] * 2
    assert second != first
    assert [both.delta(0, slot=0), both.delta(0, slot=1)] == [first, first]
    assert [both.delta(1, slot=1), both.delta(1, slot=0)] == [second, second]
    assert Party(make_count(optimizer=HEAVY)).delta(1) == first  # of another incarnation


def test_the_inner_rate_is_the_ticks_times_what_evaluations_have_made_of_it() -> None:
    party = Party(make_count(schedule=partial(ExponentialLR, gamma=0.5)))
    assert party.delta(0, tick=0) == [2.0] * 2
    assert party.delta(1, tick=2) == [0.5] * 2
    assert party.delta(2, tick=2, lr_factor=0.5) == [0.25] * 2
    assert party.delta(3, tick=3) == [0.25] * 2
    assert party.delta(0, slot=1, tick=1) == [1.0] * 2  # that slot's schedule has not ticked before
    done = party.training(order(4, tick=3, lr_factor=0.5), Slot(0), nothing)
    assert done.inner_lr == (0.5**5,)


def test_the_figures_are_those_of_all_mini_batches() -> None:
    party = Party(make_count(batch_size=5))
    done = party.training(order(0), Slot(0), nothing)
    assert done.samples == 4 * 5
    assert done.loss == (0 - 1 - 2 - 3) / 4  # two weights, each half a unit lower with every step
    assert done.seconds > 0


def test_micro_batches_go_on_working() -> None:
    at_once, in_parts = Party(make_count()), Party(make_count(accumulate=3))
    assert at_once.delta(0) == pytest.approx(in_parts.delta(0))
    assert in_parts.pulled["seen"].item() == 12


@pytest.mark.parametrize(
    ("clip", "clipped"),
    [(Clip(norm=0.5), 0.5 / (2**0.5 + 1e-6)), (Clip(value=0.25), 0.25), (Clip(tensor_norm=0.5), 0.5 / (2**0.5 + 1e-6))],
    ids=str,
)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_of_each_mini_batch_is_clipped(clip: Clip, clipped: float, accumulate: int) -> None:
    party = Party(make_count(clip=clip, accumulate=accumulate))
    assert party.delta(0) == pytest.approx([4 * 0.5 * clipped] * 2)


@pytest.mark.parametrize("clip", [Clip(norm=0.5), Clip(value=0.25), Clip(tensor_norm=0.5)], ids=str)
def test_clipping_hides_no_gradient_that_is_not_finite(clip: Clip) -> None:
    party = Party(make_count(clip=clip, loss=lambda outputs, _targets: outputs * torch.inf))
    assert not torch.tensor(party.delta(0)).isfinite().any()


@pytest.mark.parametrize("optimizer", [HEAVY, resolve_optimizer("adam", 0.5, {})], ids=["momentum", "adam"])
def test_a_state_that_has_come_to_nan_is_given_up(optimizer: OptimizerFactory) -> None:
    spoilt = [False]

    def loss(outputs: Tensor, _targets: Tensor) -> Tensor:
        return outputs * torch.inf if spoilt[0] else outputs

    party = Party(make_count(optimizer=optimizer, loss=loss))
    first, other = party.delta(0), party.delta(0, slot=1)
    spoilt[0] = True
    assert not torch.tensor(party.delta(1)).isfinite().any()
    spoilt[0] = False
    assert party.delta(2) == first == other
    assert party.delta(1, slot=1) != other  # of a slot that had no part in it


def test_a_straggler_stretches_the_whole_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    readings = iter([100.0, 110.0])  # began, ended
    monkeypatch.setattr(local_steps, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    clock = SimpleNamespace(perf_counter=lambda: 102.0, sleep=slept.append)
    monkeypatch.setattr(compute, "time", clock)
    party = Party(make_count(stragglers=(Straggler(slot=1, delay=constant(0.5), factor=3.0),)))
    assert party.training(order(0), Slot(1), nothing).seconds == 10.0
    assert slept == [2.0 * (3.0 - 1) + 0.5]


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(10, 4))

    def forward(self, inputs: Tensor) -> Tensor:
        rows = nn.functional.embedding(torch.arange(len(inputs)), self.weight, sparse=True)
        return rows.sum()


def test_a_sparse_gradient_is_refused_as_everywhere() -> None:
    with pytest.raises(ConfigurationError, match=r"^parameter 'weight' has a sparse gradient, but shards hold dense"):
        Party(make_job(Sparse, loss=itself, optimizer=PLAIN, local_steps=LocalSteps(4))).delta(0)
