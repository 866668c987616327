import re

import numpy as np
import pytest
import torch
from torch import Tensor

from psgd.core.ids import Version
from psgd.core.layout import Layout, Role, TensorSpec, partition
from psgd.errors import PeerError
from psgd.shard.payloads import Payloads
from psgd.transport.flat import allocate
from psgd.transport.wire_format import WireFormat

LAYOUT = Layout(
    [
        TensorSpec("weight", (64,), "float32", Role.PARAMETER),
        TensorSpec("mean", (64,), "float32", Role.BUFFER),
        TensorSpec("fixed", (64,), "float32", Role.FROZEN),
    ]
)
(PART,) = partition(LAYOUT, 1)
LOSSY = ["bfloat16", "float16", "int8", "topk:0.1", "onebit"]


class Setup:
    def __init__(self, wire: str) -> None:
        self.wire = WireFormat(LAYOUT, PART, wire)
        self.memory = allocate(PART.bytes)
        self.floats = self.memory.view(torch.float32)
        self.floats.copy_(torch.linspace(-3, 3, 192))
        self.payloads = Payloads(self.wire, self.memory, PART.pushed.bytes, slots=2)

    def pushed(self, seed: int) -> Tensor:
        """A gradient as a slot writes it."""
        gradient = allocate(PART.pushed.bytes)
        gradient.view(torch.float32).copy_(torch.randn(128, generator=torch.Generator().manual_seed(seed)))
        out = allocate(self.wire.sizes.push)
        assert self.wire.push.encode(gradient, out)
        return out

    def pulled(self, content: memoryview) -> Tensor:
        """Weights as a worker reads them."""
        pushed = allocate(PART.pushed.bytes)
        self.wire.pull.decode(torch.frombuffer(bytearray(content), dtype=torch.uint8)[: self.wire.sizes.pull], pushed)
        return pushed.view(torch.float32)


def test_with_float32_nothing_is_copied() -> None:
    setup = Setup("float32")
    payload = setup.pushed(1)
    assert setup.payloads.read_push(payload) is payload
    weights = setup.payloads.weights(Version(0), whole=True)
    setup.floats[0] = 42.0
    assert setup.pulled(weights)[0] == 42.0


@pytest.mark.parametrize("wire", LOSSY)
def test_a_push_is_read_as_the_codec_says(wire: str) -> None:
    setup = Setup(wire)
    payload, expected = setup.pushed(1), allocate(PART.pushed.bytes)
    setup.wire.push.decode(payload, expected)
    assert torch.equal(setup.payloads.read_push(payload), expected)


@pytest.mark.parametrize("wire", LOSSY)
def test_gradients_that_are_staged_have_memory_of_their_own(wire: str) -> None:
    setup = Setup(wire)
    first = setup.payloads.read_push(setup.pushed(1))
    before = first.clone()
    second = setup.payloads.read_push(setup.pushed(2))
    assert torch.equal(first, before)
    assert not torch.equal(first, second)


def test_memory_of_a_gradient_that_is_done_with_is_used_again() -> None:
    setup = Setup("int8")
    place = setup.payloads.read_push(setup.pushed(1)).data_ptr()
    assert setup.payloads.read_push(setup.pushed(2)).data_ptr() == place


def test_bytes_that_the_codec_does_not_write_are_refused() -> None:
    setup = Setup("topk:0.1")
    payload = setup.pushed(1)
    payload[:4].view(torch.int32).fill_(64)
    with pytest.raises(PeerError, match=re.escape("must ascend from 0 to below 64")):
        setup.payloads.read_push(payload)


@pytest.mark.parametrize("wire", ["float32", *LOSSY])
@pytest.mark.parametrize("whole", [False, True])
def test_weights_have_the_bytes_that_were_announced(wire: str, whole: bool) -> None:
    setup = Setup(wire)
    sizes = setup.payloads.sizes
    weights = setup.payloads.weights(Version(0), whole=whole)
    assert weights.nbytes == (sizes.whole if whole else sizes.pull)
    assert sizes.total == PART.bytes
    if whole:
        assert bytes(weights[sizes.pull :]) == setup.memory[PART.pushed.bytes :].numpy().tobytes()


@pytest.mark.parametrize("wire", ["float32", "int8", "topk:0.1", "onebit"])
def test_codecs_that_leave_much_out_send_weights_as_they_are(wire: str) -> None:
    setup = Setup(wire)
    assert torch.equal(setup.pulled(setup.payloads.weights(Version(0), whole=False)), setup.floats[:128])


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_halves_send_parameters_rounded_and_buffers_as_they_are(wire: str) -> None:
    setup = Setup(wire)
    got = setup.pulled(setup.payloads.weights(Version(0), whole=False))
    assert torch.equal(got[:64], setup.floats[:64].to(getattr(torch, wire)).float())
    assert not torch.equal(got[:64], setup.floats[:64])
    assert torch.equal(got[64:], setup.floats[64:128])


@pytest.mark.parametrize("wire", ["bfloat16", "float16"])
def test_weights_are_rounded_once_a_version(wire: str) -> None:
    setup = Setup(wire)
    first = setup.pulled(setup.payloads.weights(Version(3), whole=False))
    setup.floats.fill_(1.5)
    assert torch.equal(setup.pulled(setup.payloads.weights(Version(3), whole=False)), first)
    assert (setup.pulled(setup.payloads.weights(Version(4), whole=True)) == 1.5).all()


def test_the_shards_own_weights_stay_float32() -> None:
    setup = Setup("bfloat16")
    before = setup.memory.clone()
    setup.payloads.weights(Version(0), whole=True)
    assert torch.equal(setup.memory, before)


@pytest.mark.parametrize("wire", ["bfloat16", "int8", "topk:0.5", "onebit"])
def test_padding_is_zero_whatever_the_memory_held_before(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Squares are summed over it."""
    monkeypatch.setattr(np, "empty", lambda size, dtype: np.full(size, 255, dtype))
    layout = Layout([TensorSpec(name, (5,), "float32", Role.PARAMETER) for name in "ab"])
    (part,) = partition(layout, 1)
    form = WireFormat(layout, part, wire)
    payloads = Payloads(form, allocate(part.bytes), part.pushed.bytes, slots=2)
    kept = []
    for _ in range(3):
        payload = allocate(form.sizes.push)
        form.push.encode(torch.ones(part.pushed.bytes // 4).view(torch.uint8), payload)
        kept.append(payloads.read_push(payload).view(torch.float32))
        assert all(not gradient[5:64].any() and not gradient[69:].any() for gradient in kept)
