import pytest
import torch
from torch import Tensor, nn

from psgd.core.layout import Layout
from psgd.core.slot import Computed
from psgd.errors import ConfigurationError
from psgd.transport.flat import allocate, layout_of, pack, tensors_of, views
from psgd.worker.gradient import SlotGradient
from psgd.worker.replica import Replica

CPU = torch.device("cpu")


class Model(nn.Module):
    """One tensor of every role, and a tied one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.tied = self.weight
        self.fixed = nn.Parameter(torch.tensor([5.0]), requires_grad=False)
        self.unused = nn.Parameter(torch.tensor([6.0]))
        self.mean: Tensor
        self.count: Tensor
        self.register_buffer("mean", torch.tensor([7.0, 8.0]))
        self.register_buffer("count", torch.tensor(9))


def make_replica() -> tuple[Model, Replica, Layout]:
    model = Model()
    layout = layout_of(tensors_of(model))
    return model, Replica(tensors_of(model), layout, CPU, allocate(layout.bytes)), layout


def slot_gradient(layout: Layout) -> SlotGradient:
    return SlotGradient(allocate(layout.pushed_bytes), layout)


def pull(replica: Replica, model: nn.Module, layout: Layout) -> None:
    replica.memory.copy_(pack(tensors_of(model), layout))
    replica.renew()


def test_what_was_pulled_is_what_the_model_computes_with() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    assert model.weight.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert (model.fixed.item(), model.unused.item(), model.count.item()) == (5.0, 6.0, 9)
    assert model.mean.tolist() == [7.0, 8.0]
    views(replica.memory, layout)["weight"][0, 0] = -1  # parameters are views: no copy in the next pull
    assert model.weight[0, 0].item() == -1
    assert model.tied is model.weight


def test_buffers_start_from_the_pulled_ones_each_time() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    model.mean += 1
    model.count += 1
    replica.renew()
    assert (model.mean.tolist(), model.count.item()) == ([7.0, 8.0], 9)


def test_gradients_and_new_buffers_are_packed_for_the_push() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    (model.weight.sum() + model.tied.sum() + model.mean.sum()).backward()
    model.mean += 1
    model.count += 1
    memory = torch.full((layout.pushed_bytes,), 255, dtype=torch.uint8)  # of an older push
    computed = replica.gather(SlotGradient(memory, layout))
    packed = views(memory, layout, pushed_only=True)
    assert packed["weight"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert packed["mean"].tolist() == [8.0, 9.0]
    assert packed["count"].item() == 10
    assert packed["unused"].item() == 0.0
    assert computed.absent == (list(tensors_of(model)).index("unused"),)
    assert "fixed" not in packed


def test_a_cleared_gradient_is_absent_and_a_zero_one_is_there() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    model.weight.grad = torch.zeros(2, 2)
    model.unused.grad = torch.ones(1)
    replica.clear_gradients()
    assert replica.gather(slot_gradient(layout)).absent == (0, 2)
    model.weight.grad = torch.zeros(2, 2)
    assert replica.gather(slot_gradient(layout)) == Computed(finite=True, absent=(2,))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 3])
def test_one_value_that_is_not_finite_is_found(value: float, where: int) -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    model.weight.grad = torch.zeros(2, 2)
    model.weight.grad.view(-1)[where] = value
    into = slot_gradient(layout)
    assert replica.gather(into).finite is False
    model.weight.grad.fill_(3.0e38)  # large, and finite
    assert replica.gather(into).finite is True


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_buffer_that_becomes_infinite_counts_and_one_that_was_does_not(value: float) -> None:
    model, replica, layout = make_replica()
    masked = Model()
    masked.mean[0] = value
    pull(replica, masked, layout)
    into = slot_gradient(layout)
    assert replica.gather(into).finite is True  # such as an attention mask
    model.mean[1] = value
    assert replica.gather(into).finite is False
    model.mean[1] = 0.0
    model.unused.grad = torch.tensor([value])
    assert replica.gather(into).finite is False


def test_padding_left_from_an_older_push_is_no_gradient() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    model.weight.grad = torch.ones(2, 2)
    padded = torch.full((layout.pushed_bytes,), 255, dtype=torch.uint8)  # NaN, read as float32
    assert replica.gather(SlotGradient(padded, layout)).finite is True


class Other(Model):
    """Another model than the job's."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {"unused": nn.Parameter(torch.zeros(2))},
            "tensor 'unused' must be parameter float32[1] as in the job's model, got parameter float32[2]",
        ),
        (
            {"unused": nn.Parameter(torch.zeros(1), requires_grad=False)},
            "tensor 'unused' must be parameter float32[1] as in the job's model, got frozen float32[1]",
        ),
        (
            {"count": torch.tensor(0, dtype=torch.int32)},
            "tensor 'count' must be counter int64[] as in the job's model, got counter int32[]",
        ),
        (
            {"extra": nn.Parameter(torch.zeros(1))},
            "tensor 'extra' is not in the job's model: give Trainer the same model",
        ),
    ],
)
def test_another_model_than_the_jobs_is_refused_by_name(tensors: dict[str, Tensor], message: str) -> None:
    layout = layout_of(tensors_of(Model()))
    with pytest.raises(ConfigurationError) as error:
        Replica(tensors_of(Other(**tensors)), layout, CPU, allocate(layout.bytes))
    assert str(error.value) == message


def test_missing_tensors_and_another_order_are_refused() -> None:
    tensors = tensors_of(Model())
    layout = layout_of(tensors)
    fewer = {name: tensor for name, tensor in tensors.items() if name not in ("mean", "unused")}
    with pytest.raises(ConfigurationError, match="tensors of the job's model are missing here: unused, mean"):
        Replica(fewer, layout, CPU, allocate(layout.bytes))
    with pytest.raises(ConfigurationError, match="must come in the same order"):
        Replica(dict(reversed(tensors.items())), layout, CPU, allocate(layout.bytes))
