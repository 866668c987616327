import copy
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from psgd.core.layout import Layout, Role
from psgd.core.slot import Computed
from psgd.errors import ConfigurationError
from psgd.transport.flat import allocate, layout_of, pack, tensors_of, views
from psgd.worker.gradient import SlotGradient
from psgd.worker.replica import ASK_EVERY, Replica

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


# ------------------------------------------------------------------ gradients move while backward runs


class Net(nn.Module):
    """What users do with parameters: one is tied, one frozen, one unused, one indexed."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.hidden = nn.Linear(6, 6)
        self.tied = nn.Linear(6, 6, bias=False)
        self.fixed = nn.Linear(6, 6).requires_grad_(requires_grad=False)
        self.unused = nn.Linear(2, 2)
        self.tied.weight = self.hidden.weight

    def forward(self, words: Tensor) -> Tensor:
        hidden = self.fixed(torch.tanh(self.hidden(self.embedding(words))))
        output: Tensor = self.tied(hidden)
        return output


class Bound:
    """A model bound to a slot, and its twin, which plain PyTorch trains."""

    def __init__(self, make: Callable[[], nn.Module] = Net) -> None:
        torch.manual_seed(5)
        self.twin = make()
        self.model = copy.deepcopy(self.twin)
        tensors = tensors_of(self.model)
        self.layout = layout_of(tensors)
        self.replica = Replica(tensors, self.layout, CPU, allocate(self.layout.bytes))
        self.gradient = slot_gradient(self.layout)
        self.there = views(self.gradient.memory, self.layout, pushed_only=True)
        pull(self.replica, self.twin, self.layout)
        self.replica.aim(self.gradient)
        self.models = (self.model, self.twin)

    def parameter(self, name: str) -> nn.Parameter:
        return self.model.get_parameter(name)

    def check(self) -> Computed:
        """What lies in the slot's memory is what the twin has; which parameters have none."""
        computed = self.replica.gather(self.gradient)
        absent = []
        for index, spec in enumerate(self.layout.tensors):
            if spec.role is Role.PARAMETER:
                expected = self.twin.get_parameter(spec.name).grad
                absent += [index] if expected is None else []
                assert torch.equal(self.there[spec.name], torch.zeros(spec.shape) if expected is None else expected)
        assert computed.absent == tuple(absent)
        return computed


def words(seed: int) -> Tensor:
    return torch.randint(7, (4,), generator=torch.Generator().manual_seed(seed))


def backward(model: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    model(words(seed)).square().sum().backward()


def test_gradients_lie_in_the_slots_memory_when_backward_ends() -> None:
    bound = Bound()
    for model in bound.models:
        backward(model)
    for name in ("hidden.weight", "hidden.bias", "embedding.weight"):
        grad = bound.parameter(name).grad
        assert grad is not None
        assert grad.data_ptr() == bound.there[name].data_ptr()
        expected = bound.twin.get_parameter(name).grad
        assert expected is not None
        assert torch.equal(bound.there[name], expected)
    unused = [list(tensors_of(bound.model)).index(name) for name in ("unused.weight", "unused.bias")]
    assert bound.check() == Computed(finite=True, absent=tuple(unused))


def test_a_gradient_moves_as_soon_as_it_is_complete() -> None:
    """The last layer's is there before the first one's is computed."""
    bound = Bound()
    order = []

    def moved(parameter: Tensor) -> None:
        order.append(bool(bound.there["hidden.weight"].any()))

    bound.parameter("embedding.weight").register_post_accumulate_grad_hook(moved)
    backward(bound.model)
    assert order == [True]


def test_several_backward_passes_make_one_gradient() -> None:
    bound = Bound()
    for _ in range(2):
        bound.replica.clear_gradients()
        bound.twin.zero_grad()
        for seed in range(3):
            for model in bound.models:
                backward(model, seed)
        bound.check()


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_starts_a_new_gradient(set_to_none: bool) -> None:
    bound = Bound()
    for model in bound.models:
        backward(model, seed=1)
        model.zero_grad(set_to_none=set_to_none)
    bound.check()
    for model in bound.models:
        backward(model, seed=2)
    bound.check()


def test_a_gradient_that_is_not_there_any_more_is_zero_and_absent() -> None:
    bound = Bound()
    for model in bound.models:
        backward(model)
    bound.check()
    for model in bound.models:
        model.get_parameter("hidden.bias").grad = None
    assert list(tensors_of(bound.model)).index("hidden.bias") in bound.check().absent


@pytest.mark.filterwarnings("ignore:grad and param do not obey the gradient layout contract")  # the twin's
@pytest.mark.parametrize("change", [torch.neg, torch.Tensor.clone, lambda grad: grad.t().contiguous().t()])
def test_a_gradient_replaced_by_another_tensor_is_the_one_that_counts(change: Callable[[Tensor], Tensor]) -> None:
    bound = Bound()
    for model in bound.models:
        backward(model)
        parameter = model.get_parameter("hidden.weight")
        assert parameter.grad is not None
        parameter.grad = change(parameter.grad)
    bound.check()
    for model in bound.models:
        backward(model, seed=3)  # is added to the new one
    bound.check()


def test_a_gradient_changed_in_place_is_the_one_that_counts() -> None:
    bound = Bound()
    for model in bound.models:
        backward(model)
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    assert bound.check().finite
    for model in bound.models:
        nn.utils.clip_grad_norm_(model.parameters(), torch.inf, norm_type=0.5)
    bound.check()
    for model in bound.models:
        nn.utils.clip_grad_norm_(model.parameters(), float("nan"))
    computed = bound.replica.gather(bound.gradient)
    assert not computed.finite
    assert bound.there["hidden.bias"].isnan().all()


def test_slots_take_turns_on_one_replica() -> None:
    bound = Bound()
    other = slot_gradient(bound.layout)
    for seed, gradient in ((1, bound.gradient), (2, other), (3, bound.gradient)):
        bound.replica.aim(gradient)
        bound.replica.clear_gradients()
        bound.twin.zero_grad()
        for model in bound.models:
            backward(model, seed)
        before = (other if gradient is bound.gradient else bound.gradient).memory.clone()
        bound.replica.gather(gradient)
        expected = bound.twin.get_parameter("hidden.weight").grad
        assert expected is not None
        assert torch.equal(views(gradient.memory, bound.layout, pushed_only=True)["hidden.weight"], expected)
        assert torch.equal((other if gradient is bound.gradient else bound.gradient).memory, before)


def test_what_is_not_gathered_is_looked_at_only_when_it_may_be_final() -> None:
    class Distant(SlotGradient):
        gathers = False

    model, replica, layout = make_replica()
    pull(replica, model, layout)
    slot = Distant(allocate(layout.pushed_bytes), layout)
    replica.aim(slot)
    model.weight.sum().backward()
    assert slot.version("weight") == 0
    left: list[str] = []
    replica.aim(slot, left.append)
    model.weight.sum().backward()
    assert left == ["weight"]
    assert slot.version("weight") > 0


def test_gradients_that_came_before_there_was_a_slot_are_gathered() -> None:
    bound = Bound()
    bound.replica._aim = None
    for model in bound.models:
        backward(model)
    grad = bound.parameter("hidden.bias").grad
    assert grad is not None
    assert grad.data_ptr() != bound.there["hidden.bias"].data_ptr()
    bound.check()


def test_a_compiled_model_has_the_same_gradients() -> None:
    bound = Bound()
    compiled = torch.compile(bound.model, backend="aot_eager")
    eager = torch.compile(bound.twin, backend="aot_eager")
    for seed in range(2):
        backward(compiled, seed)
        backward(eager, seed)
        bound.check()
        bound.model.zero_grad()
        bound.twin.zero_grad()


def test_a_gradient_with_a_graph_moves_without_it() -> None:
    bound = Bound(lambda: nn.Embedding(7, 6))
    for model in bound.models:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Using backward.. with create_graph=True")
            model(words(0)).square().sum().backward(create_graph=True)
    assert bound.parameter("weight").grad is not None
    bound.check()


# ------------------------------------------------------------------ parameters are the shards'


def double(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("hidden.weight").mul_(2)


def detached(model: nn.Module) -> None:
    model.get_parameter("hidden.weight").detach().zero_()


def updated(model: nn.Module) -> None:
    backward(model)
    torch.optim.SGD([model.get_parameter("hidden.weight")], lr=0.1).step()


def loaded(model: nn.Module) -> None:
    model.load_state_dict(model.state_dict())


def normalized_in_forward(model: nn.Module) -> None:
    assert isinstance(model, Net)
    model.embedding.max_norm = 0.1
    backward(model)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (double, "hidden.weight"),
        (detached, "hidden.weight"),
        (updated, "hidden.weight"),
        (loaded, "embedding.weight"),
        (normalized_in_forward, "embedding.weight"),
    ],
)
def test_a_parameter_that_is_written_to_is_an_error_that_names_it(
    change: Callable[[nn.Module], None], name: str
) -> None:
    bound = Bound()
    change(bound.model)
    with pytest.raises(ConfigurationError, match=f"^parameter '{name}' was changed in place, but its weights live on"):
        bound.replica.gather(bound.gradient)


def test_what_a_pull_writes_is_no_change() -> None:
    bound = Bound()
    for value in (1.0, 2.0):
        bound.replica.memory.view(torch.float32).fill_(value)  # as a plane does it
        bound.replica.renew()
        backward(bound.model)
        bound.replica.gather(bound.gradient)
        assert bound.parameter("hidden.bias").tolist() == [value] * 6


def test_frozen_parameters_are_ones_own() -> None:
    bound = Bound()
    for model in bound.models:
        with torch.no_grad():
            model.get_parameter("fixed.bias").add_(1)
        backward(model)
    bound.check()


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


@pytest.mark.parametrize(("written", "name"), [(0, "weight"), (256, "unused")])
def test_weights_that_were_cut_off_from_the_shards_are_an_error_that_names_the_parameter(
    written: int, name: str
) -> None:
    model = Model()
    layout = layout_of(tensors_of(model))
    answers: list[int | None] = [None, written]
    replica = Replica(tensors_of(model), layout, CPU, allocate(layout.bytes), lambda: answers.pop(0))
    for _ in range(ASK_EVERY):  # asked in the first of them
        replica.gather(slot_gradient(layout))
    with pytest.raises(ConfigurationError, match=rf"parameter '{name}', or one stored beside it, was changed through"):
        replica.gather(slot_gradient(layout))


SPARSE = r"^parameter 'weight' has a sparse gradient, but shards hold dense ones: make its layer with sparse=False$"


def test_a_sparse_gradient_is_refused_where_backward_makes_it() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    replica.aim(slot_gradient(layout))
    looked_up = nn.functional.embedding(torch.tensor([1]), model.weight, sparse=True)
    with pytest.raises(ConfigurationError, match=SPARSE):
        looked_up.sum().backward()


def test_a_sparse_gradient_that_was_put_there_is_refused_at_the_push() -> None:
    model, replica, layout = make_replica()
    pull(replica, Model(), layout)
    model.weight.grad = torch.ones(2, 2).to_sparse()
    with pytest.raises(ConfigurationError, match=SPARSE):
        replica.gather(slot_gradient(layout))
