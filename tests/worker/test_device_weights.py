import torch

from psgd.core.layout import Layout, Role, TensorSpec
from psgd.transport.flat import allocate, views
from psgd.worker.device_weights import WeightsInPlace, WeightsOnDevice, weights_on
from tests.worker.hand_driven import HandDrivenStream

CPU = torch.device("cpu")
LAYOUT = Layout(
    [
        TensorSpec("weight", (3,), "float32", Role.PARAMETER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("fixed", (4,), "float32", Role.FROZEN),
    ]
)


def test_on_the_cpu_a_model_computes_with_what_was_pulled_where_it_landed() -> None:
    memory = allocate(LAYOUT.bytes)
    assert weights_on(CPU, memory, LAYOUT).memory is memory
    assert WeightsInPlace(memory).memory is memory


def test_one_copy_brings_all_the_next_ones_what_is_not_frozen() -> None:
    host, stream = allocate(LAYOUT.bytes), HandDrivenStream()
    weights = WeightsOnDevice(host, LAYOUT, CPU, stream)
    there = views(weights.memory, LAYOUT)
    host.fill_(1)
    weights.renew()
    assert not weights.memory.any()  # it is under way
    weights.settle()
    assert torch.equal(weights.memory, host)
    host.fill_(2)
    weights.renew()
    stream.complete(1)
    assert there["weight"].view(torch.uint8).tolist() == [2] * 12
    assert there["count"].item() == 0x0202020202020202
    assert there["fixed"].view(torch.uint8).tolist() == [1] * 16
    assert [source.numel() for source, _ in stream.begun] == [LAYOUT.bytes, LAYOUT.pushed_bytes]


def test_a_pull_may_land_once_the_copy_is_done() -> None:
    stream = HandDrivenStream()
    weights = WeightsOnDevice(allocate(LAYOUT.bytes), LAYOUT, CPU, stream)
    weights.settle()  # nothing was pulled yet
    weights.renew()
    weights.settle()
    assert (stream.made, stream.waits) == (1, 1)
    weights.settle()
    assert stream.waits == 1


def test_weights_are_memory_of_their_own() -> None:
    host = allocate(LAYOUT.bytes)
    weights = WeightsOnDevice(host, LAYOUT, CPU, HandDrivenStream())
    weights.memory.fill_(3)
    assert not host.any()
