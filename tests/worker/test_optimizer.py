import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from threading import Event, Lock

import pytest
import torch
from torch import Tensor, nn

from psgd import inprocess
from psgd.config import Plane
from psgd.core.ids import LEAD, Incarnation, Slot
from psgd.core.messages import Join, Joined, Status
from psgd.core.modes import Async, Mode, Sync
from psgd.errors import ConfigurationError, LostError, RunEnded
from psgd.runlog import Record
from psgd.training.policies import Policies
from psgd.transport.flat import tensors_of
from psgd.transport.state import ask
from psgd.worker.optimizer import DistributedOptimizer
from psgd.worker.session import batches, current
from tests.jobs import keep_nothing, make_job
from tests.worker.own_loops import Run, first_weights, own_job, points, shards_of, tiny

DATA = points()


def alone(loop: Callable[[], None], **settings: object) -> Run:
    """One slot runs the loop; the run, closed, for its records."""
    with shards_of(own_job(loop, **settings)) as run:  # type: ignore[arg-type]
        run.loops(0)
    return run


def momentum(parameters: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)


def ones(model: nn.Module) -> None:
    """A gradient of ones everywhere."""
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)


# ------------------------------------------------------------------ the same bits as the built-in loop


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 3))


def normalized() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))


@pytest.mark.parametrize("plane", ["memory", "shm"])
@pytest.mark.parametrize("optimizer", [momentum, adam])
@pytest.mark.parametrize("model", [mlp, normalized])
def test_an_own_loop_ends_with_the_bits_of_the_built_in_one(
    model: Callable[[], nn.Module], optimizer: Callable[..., torch.optim.Optimizer], plane: Plane
) -> None:
    dataset = points(count=60, features=6, classes=3)
    turn = Lock()  # the threads share torch's random state, which dropout draws from
    own: list[dict[str, Tensor]] = []

    def loop() -> None:
        with turn:
            network = model()  # draws its first weights
        optimizer = DistributedOptimizer(network.named_parameters(), buffers=network.named_buffers())
        drawn = batches(dataset)
        while True:
            optimizer.zero_grad()
            with turn:
                batch = next(drawn, None)
                if batch is None:
                    break
                inputs, targets = batch
                nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
        own.append(tensors_of(network))

    job = own_job(loop, model=model, optimizer=optimizer, schedule=halving, slots=2, steps=11, plane=plane)
    initial = first_weights(job)
    with shards_of(job, initial) as run:
        run.loops(0, 1)
        weights = run.weights
    told: list[Record] = []
    twin = inprocess.run(
        replace(job, own_loop=None, data=lambda: dataset), initial, Policies(), told.append, keep_nothing
    )
    assert list(weights) == list(twin.weights)
    assert not torch.equal(weights["0.weight"], initial["0.weight"])
    for name, tensor in twin.weights.items():
        assert torch.equal(weights[name], tensor), name
        for tensors in own:  # the last update is in the loop's own model, too
            assert torch.equal(tensors[name], tensor), name


# ------------------------------------------------------------------ through shared memory


@pytest.mark.parametrize("mode", [Sync(), Sync(backups=1), Async(), Async(staleness=1)])
def test_an_own_loop_ends_with_the_shards_weights(mode: Mode) -> None:
    own: list[dict[str, Tensor]] = []

    def loop() -> None:
        network = mlp()
        optimizer = DistributedOptimizer(network.named_parameters())
        for inputs, targets in batches(points(count=60, features=6, classes=3)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
        own.append(tensors_of(network))

    with shards_of(own_job(loop, model=mlp, mode=mode, slots=2, steps=20, plane="shm")) as run:
        initial = run.weights
        run.loops(0, 1)
        weights = run.weights
        assert run.figures.version == run.figures.accepted if isinstance(mode, Async) else 20
        if mode != Sync(backups=1):
            assert len([record for record in run.iterations if record.status == "accepted"]) == 40
    assert not torch.equal(weights["0.weight"], initial["0.weight"])
    # In the model of the loop whose push came last; the other may have ended before it, and listed itself after it.
    assert any(all(torch.equal(tensors[name], tensor) for name, tensor in weights.items()) for tensors in own)


def test_a_lone_loop_on_arrival_has_the_bits_of_its_own_optimizer() -> None:
    own: list[dict[str, Tensor]] = []
    dataset = points(count=60, features=6, classes=3)
    drawn: list[tuple[Tensor, Tensor]] = []

    def loop() -> None:
        network = mlp()
        optimizer = DistributedOptimizer(network.named_parameters())
        for inputs, targets in batches(dataset):
            drawn.append((inputs, targets))
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(inputs), targets).backward()
            optimizer.step()
        own.append(tensors_of(network))

    job = own_job(loop, model=mlp, mode=Async(), optimizer=momentum, steps=10, plane="shm")
    initial = {name: tensor.detach().clone() for name, tensor in first_weights(job).items()}
    with shards_of(job, {name: nn.Parameter(tensor) for name, tensor in initial.items()}) as run:
        run.loops(0)
    twin = mlp()
    twin.load_state_dict(initial)
    update = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, fused=True)
    assert len(drawn) == 10
    for inputs, targets in drawn:
        update.zero_grad()
        nn.functional.cross_entropy(twin(inputs), targets).backward()
        update.step()
    for name, tensor in tensors_of(twin).items():
        assert torch.equal(own[0][name], tensor), name


def test_a_parameter_that_is_changed_in_the_loop_is_an_error_that_names_it() -> None:
    def loop() -> None:
        network = mlp()
        optimizer = DistributedOptimizer(network.named_parameters())
        with torch.no_grad():
            network.get_parameter("2.bias").clamp_(-0.01, 0.01)
        optimizer.step()

    with (
        shards_of(own_job(loop, model=mlp, plane="shm")) as run,
        pytest.raises(ConfigurationError, match=r"parameter '2\.bias' was changed in place, but its weights live on"),
    ):
        run.loops(0)


# ------------------------------------------------------------------ the end


def test_a_loop_without_end_ends_with_the_run() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        while True:
            optimizer.step()

    with shards_of(own_job(loop, slots=2, steps=4)) as run:
        run.loops(0, 1)
        assert run.figures.steps == 4
        assert len(run.iterations) == 8


def test_the_last_step_returns_and_the_one_after_it_says_that_the_run_has_ended() -> None:
    ended = []

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        for _ in range(3):
            ended.append((optimizer.clock, optimizer.ended))
            optimizer.step()
        ended.append((optimizer.clock, optimizer.ended))
        with pytest.raises(RunEnded, match="the run has ended after 3 iterations"):
            optimizer.step(closure=lambda: pytest.fail("nothing is computed any more"))

    alone(loop, steps=3)
    assert ended == [(0, False), (1, False), (2, False), (3, True)]


def test_a_loop_that_starts_when_all_is_over_holds_the_last_weights() -> None:
    models: list[nn.Module] = []

    def loop() -> None:
        models.append(tiny())
        optimizer = DistributedOptimizer(models[-1].named_parameters())
        assert optimizer.ended == (len(models) > 1)
        while True:
            ones(models[-1])
            optimizer.step()

    with shards_of(own_job(loop)) as run:
        run.loops(0)
        run.loops(0, incarnation=1)
    first, second = models
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def uneven(short: int) -> Callable[[], None]:
    """Slot 0 stops after a few iterations, the others go on until they hear of the end."""

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        for _ in range(short if current().slot == 0 else 10**6):
            optimizer.step()

    return loop


def test_in_sync_mode_all_end_when_one_leaves() -> None:
    with shards_of(own_job(uneven(3), slots=3, steps=None)) as run:
        run.loops(0, 1, 2)
        accepted = [r for r in run.iterations if r.status == "accepted"]
        assert sorted((r.slot, r.step) for r in accepted) == [(slot, step) for slot in range(3) for step in range(3)]
        assert all(r.status == "late" and r.step == 3 for r in run.iterations if r not in accepted)
        assert run.figures.version == 3


def test_in_async_mode_the_others_use_up_the_budget_when_one_leaves() -> None:
    with shards_of(own_job(uneven(3), mode=Async(staleness=1), slots=2, steps=10)) as run:
        run.loops(0, 1)
        assert run.figures.clocks == (3, 17)
        assert run.figures.accepted == 20


# ------------------------------------------------------------------ learning rates


def test_the_learning_rates_are_those_that_the_shards_used() -> None:
    seen = []

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        seen.append(optimizer.param_groups[0]["lr"])
        for _ in range(3):
            optimizer.step()
            seen.append(optimizer.param_groups[0]["lr"])

    alone(loop, schedule=halving)
    assert seen == [0.125, 0.125, 0.0625, 0.03125]


def grouped(parameters: Iterable[tuple[str, Tensor]]) -> torch.optim.Optimizer:
    named = list(parameters)
    weights = {"params": [p for n, p in named if n == "weight"], "lr": 0.5, "weight_decay": 0.25}
    biases = {"params": [p for n, p in named if n == "bias"], "lr": 2.0}
    return torch.optim.SGD([weights, biases], lr=1.0)


def test_param_groups_are_those_of_the_jobs_optimizer() -> None:
    def loop() -> None:
        model = nn.Linear(2, 2)
        optimizer = DistributedOptimizer(model.named_parameters())
        first, second = optimizer.param_groups
        assert first["params"] == [model.weight]
        assert second["params"] == [model.bias]
        assert (first["weight_decay"], second["weight_decay"]) == (0.25, 0.0)
        optimizer.step()
        optimizer.step()
        assert [group["lr"] for group in optimizer.param_groups] == [0.25, 1.0]

    alone(loop, optimizer=grouped, schedule=halving)


def test_learning_rates_come_from_a_shard_that_has_something_to_train() -> None:
    seen = []

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        optimizer.step()
        optimizer.step()
        seen.append([receipt.lr for receipt in optimizer.receipts])
        seen.append([(group["lr"],) for group in optimizer.param_groups])

    alone(loop, shards=5, schedule=halving)
    rates, shown = seen
    assert () in rates
    assert shown == [(0.0625,)]


def test_an_update_that_was_none_leaves_the_learning_rate() -> None:
    seen: list[tuple[Status | None, float]] = []

    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        seen.append((optimizer.last_status, optimizer.param_groups[0]["lr"]))
        for value in (1.0, float("nan"), 1.0):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, value)
            optimizer.step()
            seen.append((optimizer.last_status, optimizer.param_groups[0]["lr"]))

    alone(loop, schedule=halving)
    assert seen == [(None, 0.125), ("accepted", 0.125), ("nonfinite", 0.125), ("accepted", 0.03125)]


def changed_lr(optimizer: DistributedOptimizer) -> None:
    optimizer.param_groups[0]["lr"] = 0.01


def changed_decay(optimizer: DistributedOptimizer) -> None:
    optimizer.param_groups[0]["weight_decay"] = 0.01


def scheduled(optimizer: DistributedOptimizer) -> None:
    torch.optim.lr_scheduler.StepLR(optimizer, step_size=30)


def warmed_up(optimizer: DistributedOptimizer) -> None:
    torch.optim.lr_scheduler.LinearLR(optimizer)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (changed_lr, "lr"),
        (changed_decay, "weight_decay"),
        (scheduled, "initial_lr"),
        (warmed_up, "lr and initial_lr"),
    ],
)
def test_a_learning_rate_that_is_changed_in_the_loop_is_refused(
    change: Callable[[DistributedOptimizer], None], named: str
) -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        optimizer.step()
        change(optimizer)
        optimizer.step()

    with (
        shards_of(own_job(loop)) as run,
        pytest.raises(ConfigurationError, match=rf"^{named} of param_groups\[0\] changed in .*give Trainer .*lr_sched"),
    ):
        run.loops(0)


# ------------------------------------------------------------------ receipts and lag


def test_lag_counts_the_updates_between_pull_and_push() -> None:
    pulled, overtaken = Event(), Event()
    lags: list[tuple[int, int]] = []

    def loop() -> None:
        if current().slot == 0:
            optimizer = DistributedOptimizer(tiny().named_parameters())
            assert optimizer.receipts == ()
            assert optimizer.lag == 0
            pulled.set()
            assert overtaken.wait(timeout=10)
        else:
            assert pulled.wait(timeout=10)
            optimizer = DistributedOptimizer(tiny().named_parameters())
        for _ in range(3):
            optimizer.step()
            lags.append((current().slot, optimizer.lag))
        overtaken.set()

    with shards_of(own_job(loop, mode=Async(), slots=2)) as run:
        run.loops(0, 1)
        assert [(record.slot, record.lag, record.version) for record in run.iterations] == [
            (1, 0, 1),
            (1, 0, 2),
            (1, 0, 3),
            (0, 3, 4),
            (0, 0, 5),
            (0, 0, 6),
        ]
    assert lags == [(1, 0), (1, 0), (1, 0), (0, 3), (0, 0), (0, 0)]


def test_there_is_a_receipt_of_every_shard() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        optimizer.step()
        optimizer.step()
        assert [(r.step, r.status, r.version) for r in optimizer.receipts] == [(1, "accepted", 2)] * 3

    alone(loop, shards=3)


def test_a_slot_that_was_replaced_is_lost() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        successor = Join(Slot(0), Incarnation(1))
        assert ask(run.connect()[LEAD], successor).result() == Joined(0)
        for _ in range(2):  # it stays lost
            with pytest.raises(LostError, match="slot 0 was refused: incarnation 0 of slot 0 was replaced by"):
                optimizer.step()
        optimizer.step()

    with shards_of(own_job(loop)) as run, pytest.raises(LostError):
        run.loops(0)


# ------------------------------------------------------------------ in between is plain PyTorch


def test_what_is_in_grad_when_step_is_called_is_what_counts() -> None:
    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        before = [parameter.detach().clone() for parameter in model.parameters()]
        ones(model)
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
        for old, new in zip(before, model.parameters(), strict=True):
            assert torch.equal(new, old - 0.125 * 0.5)

    alone(loop)


@pytest.mark.parametrize(("set_to_none", "gradient"), [(True, None), (False, torch.zeros(2, 2))])
def test_zero_grad_is_that_of_torch(set_to_none: bool, gradient: Tensor | None) -> None:
    def loop() -> None:
        model = nn.Linear(2, 2)
        optimizer = DistributedOptimizer(model.named_parameters())
        ones(model)
        optimizer.step()
        assert model.weight.grad is not None
        assert torch.equal(model.weight.grad, torch.ones(2, 2))
        optimizer.zero_grad(set_to_none=set_to_none)
        assert (model.weight.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(model.weight.grad, gradient)

    alone(loop)


class LookedUp(nn.Module):
    """Says nowhere that the gradients of its table are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(4, 2))

    def forward(self, inputs: Tensor) -> Tensor:  # (B, 2) -> (B, 2)
        return nn.functional.embedding((inputs[:, 0] > 0).long(), self.table, sparse=True)


SPARSE = r"^parameter 'table' has a sparse gradient, but shards hold dense ones: make its layer with sparse=False$"


@pytest.mark.parametrize("overlap", [False, True])
def test_a_sparse_gradient_is_one_line_with_the_remedy(overlap: bool) -> None:
    def loop() -> None:
        model = LookedUp()
        optimizer = DistributedOptimizer(model.named_parameters(), overlap=overlap)
        for inputs, targets in batches(DATA):
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    with pytest.raises(ConfigurationError, match=SPARSE):
        alone(loop, model=LookedUp)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_sparse_gradient_in_the_built_in_loop_is_the_same_line(overlap: bool) -> None:
    job = make_job(LookedUp, data=points, slots=2, batch_size=4)
    job = replace(job, training=replace(job.training, overlap=overlap))
    with pytest.raises(ConfigurationError, match=SPARSE):
        inprocess.run(job, tensors_of(LookedUp()), Policies(), lambda _: None, keep_nothing)


def test_autocast_leaves_gradients_and_weights_in_float32() -> None:
    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        for inputs, targets in batches(DATA):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                output = model(inputs)
                assert output.dtype is torch.bfloat16
                loss = nn.functional.cross_entropy(output, targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert optimizer.last_status == "accepted"
        assert all(parameter.dtype is torch.float32 for parameter in model.parameters())

    assert len(alone(loop).iterations) == 3


def test_several_backward_passes_make_one_gradient() -> None:
    def loop() -> None:
        model = nn.Linear(2, 1, bias=False)
        optimizer = DistributedOptimizer(model.named_parameters())
        before = model.weight.detach().clone()
        for _ in range(2):
            model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert torch.equal(model.weight, before - 0.125 * 2)

    alone(loop, model=lambda: nn.Linear(2, 1, bias=False), shards=1)


# ------------------------------------------------------------------ records


def test_iterations_are_recorded_with_the_loss_of_the_closure() -> None:
    losses = []

    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        drawn = batches(DATA)

        def closure() -> Tensor:
            inputs, targets = next(drawn)
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()
            return loss

        losses.append(optimizer.step(closure).item())
        losses.append(optimizer.step(lambda: 1.5))
        assert optimizer.step() is None

    records = alone(loop).iterations
    assert [record.loss for record in records] == [*losses, None]
    assert losses[1] == 1.5
    assert [(r.worker, r.slot, r.step, r.samples, r.lr) for r in records] == [(0, 0, k, 4, (0.125,)) for k in range(3)]


def test_a_closure_is_run_with_gradients_enabled() -> None:
    def loop() -> None:
        model = nn.Linear(2, 2)
        optimizer = DistributedOptimizer(model.named_parameters())

        def closure() -> Tensor:
            loss: Tensor = model(torch.ones(1, 2)).sum()
            loss.backward()
            return loss

        with torch.no_grad():
            optimizer.step(closure)
        assert model.weight.grad is not None

    alone(loop)


def test_what_the_loop_does_between_pull_and_step_is_computing() -> None:
    computing_s = 0.02

    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        for _ in range(3):
            time.sleep(computing_s)
            optimizer.step()

    assert all(record.compute_s >= computing_s for record in alone(loop).iterations)


# ------------------------------------------------------------------ the model is the job's


def refused(loop: Callable[[], object], match: str, model: Callable[[], nn.Module] = tiny) -> None:
    def called() -> None:
        loop()

    with shards_of(own_job(called, model=model)) as run, pytest.raises(ConfigurationError, match=match):
        run.loops(0)


def test_outside_a_training_loop_there_is_no_optimizer() -> None:
    with pytest.raises(ConfigurationError, match="there is no training loop here"):
        DistributedOptimizer(tiny().named_parameters())


def test_parameters_without_names_are_refused() -> None:
    refused(
        lambda: DistributedOptimizer(tiny().parameters()),  # type: ignore[arg-type]
        r"takes parameters with names: give it model\.named_parameters\(\)",
    )


def test_missing_buffers_are_refused_with_the_remedy() -> None:
    refused(
        lambda: DistributedOptimizer(normalized().named_parameters()),
        r"buffers of the job's model are missing: 1\.running_mean, .*give .* buffers=model\.named_buffers\(\)",
        model=normalized,
    )


def test_buffers_that_no_state_dict_has_may_be_given() -> None:
    def model() -> nn.Module:
        network = nn.BatchNorm1d(2)
        network.register_buffer("cache", torch.zeros(3), persistent=False)
        return network

    def loop() -> None:
        network = model()
        DistributedOptimizer(network.named_parameters(), buffers=network.named_buffers()).step()

    assert len(alone(loop, model=model).iterations) == 1


def test_frozen_parameters_get_the_jobs_weights() -> None:
    models: list[nn.Linear] = []

    def model() -> nn.Linear:
        network = nn.Linear(2, 2)
        network.bias.requires_grad_(False)
        return network

    def loop() -> None:
        network = model()
        optimizer = DistributedOptimizer(network.named_parameters())
        assert [len(group["params"]) for group in optimizer.param_groups] == [1]
        network.weight.grad = torch.ones(2, 2)
        optimizer.step()
        models.append(network)

    job = own_job(loop, model=model)
    initial = {name: tensor.detach().clone() for name, tensor in first_weights(job).items()}
    initial = {n: nn.Parameter(t, requires_grad=n == "weight") for n, t in initial.items()}
    with shards_of(job, initial) as run:
        run.loops(0)
    assert torch.equal(models[0].bias, initial["bias"])
    assert torch.equal(models[0].weight, initial["weight"] - 0.125)


def test_parameters_in_another_order_are_refused() -> None:
    refused(lambda: DistributedOptimizer(reversed([*tiny().named_parameters()])), "in the same order")


def test_parameters_with_another_name_are_refused() -> None:
    refused(
        lambda: DistributedOptimizer((f"module.{n}", p) for n, p in tiny().named_parameters()),
        r"tensor 'module\.weight' is not in the job's model",
    )


def test_parameters_with_another_shape_are_refused() -> None:
    refused(
        lambda: DistributedOptimizer(nn.Linear(3, 2).named_parameters()),
        r"tensor 'weight' must be parameter float32\[2, 2\] as in the job's model, got parameter float32\[2, 3\]",
    )


def test_a_part_of_the_parameters_is_refused() -> None:
    refused(
        lambda: DistributedOptimizer([*tiny().named_parameters()][:1]),
        "tensors of the job's model are missing here: bias",
    )


def test_more_than_the_jobs_parameters_are_refused() -> None:
    further = ("head", nn.Parameter(torch.zeros(2)))
    refused(
        lambda: DistributedOptimizer([*tiny().named_parameters(), further]),
        "tensor 'head' is not in the job's model",
    )


def test_a_second_optimizer_in_a_loop_is_refused() -> None:
    def loop() -> None:
        DistributedOptimizer(tiny().named_parameters())
        DistributedOptimizer(tiny().named_parameters())

    refused(loop, "slot 0 has a DistributedOptimizer already")


def test_a_model_that_was_moved_afterwards_is_refused() -> None:
    def loop() -> None:
        model = tiny()
        optimizer = DistributedOptimizer(model.named_parameters())
        model.double().float()
        optimizer.step()

    refused(loop, "parameter 'weight' was moved since its weights were pulled: move or convert the model before")


def test_further_parameters_are_refused() -> None:
    def loop() -> None:
        optimizer = DistributedOptimizer(tiny().named_parameters())
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})

    refused(loop, "takes no further parameters")


@pytest.mark.parametrize("use", [lambda own: own.state_dict(), lambda own: own.load_state_dict({})])
def test_state_that_lies_on_the_shards_is_neither_saved_nor_loaded(use: Callable[[DistributedOptimizer], None]) -> None:
    refused(lambda: use(DistributedOptimizer(tiny().named_parameters())), "the optimizer's state lies on the shards")
