import re

import pytest
import torch
from torch import Tensor

from psgd.core.layout import Layout, Part, Role, TensorSpec, partition
from psgd.errors import PeerError
from psgd.transport.compression.codec import FeedbackCodec
from psgd.transport.compression.part import PartEncoding
from psgd.transport.compression.residual import Residual
from psgd.transport.compression.spec import parse_wire
from psgd.transport.flat import view

NAMES = ["float32", "bfloat16", "float16", "int8", "topk:0.05", "onebit"]
LAYOUT = Layout(
    [
        TensorSpec("a", (37, 29), "float32", Role.PARAMETER),
        TensorSpec("mean", (70,), "float32", Role.BUFFER),
        TensorSpec("count", (), "int64", Role.COUNTER),
        TensorSpec("empty", (0,), "float32", Role.PARAMETER),
        TensorSpec("b", (300,), "float32", Role.PARAMETER),
        TensorSpec("seen", (3,), "bool", Role.COUNTER),
        TensorSpec("fixed", (4,), "float32", Role.FROZEN),
    ]
)
WHOLE = partition(LAYOUT, 1)[0]

wires = pytest.mark.parametrize("wire", NAMES)


def views(memory: Tensor, part: Part) -> dict[tuple[str, int], Tensor]:
    """The pushed slices by name and first element."""
    found = {}
    for piece in part.slices:
        spec = LAYOUT.tensors[piece.tensor]
        if spec.role is not Role.FROZEN:
            found[spec.name, piece.start] = view(memory, piece.offset, piece.stop - piece.start, spec.dtype)
    return found


def push(part: Part, seed: int = 0) -> Tensor:
    """(part.pushed.bytes,) uint8, as a worker has it."""
    memory = torch.zeros(part.pushed.bytes, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for tensor in views(memory, part).values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * 10)
    return memory


def sent(encoding: PartEncoding, memory: Tensor, residual: Residual | None = None) -> Tensor:
    out = torch.zeros(encoding.bytes, dtype=torch.uint8)
    assert encoding.encode(memory, out, residual)
    return out


def received(encoding: PartEncoding, encoded: Tensor, part: Part) -> Tensor:
    memory = torch.zeros(part.pushed.bytes, dtype=torch.uint8)
    encoding.decode(encoded, memory)
    return memory


@wires
@pytest.mark.parametrize("shards", [1, 3, 20])
def test_parameters_go_through_the_codec_slice_by_slice_and_the_rest_as_it_is(wire: str, shards: int) -> None:
    codec = parse_wire(wire)
    for part in partition(LAYOUT, shards):
        encoding, memory = PartEncoding(LAYOUT, part, codec), push(part)
        there = views(received(encoding, sent(encoding, memory), part), part)
        for (name, start), values in views(memory, part).items():
            expected = values
            if name in ("a", "b"):
                alone = torch.zeros(codec.encoded_bytes(values.numel()), dtype=torch.uint8)
                codec.encode(values, alone)
                expected = torch.empty_like(values)
                codec.decode(alone, expected)
            assert torch.equal(there[name, start], expected), (name, start)


@wires
def test_padding_is_left_alone_on_both_sides(wire: str) -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire(wire)), push(WHOLE)
    filled = [torch.full((encoding.bytes,), byte, dtype=torch.uint8) for byte in (0, 255)]
    for out in filled:
        encoding.encode(memory, out)
    gaps = filled[0] != filled[1]
    assert (filled[0][gaps] == 0).all()
    there = torch.full((WHOLE.pushed.bytes,), 255, dtype=torch.uint8)
    encoding.decode(filled[1], there)
    for tensor in views(there, WHOLE).values():
        tensor.view(torch.uint8).fill_(255)
    assert (there == 255).all()


def test_encoded_slices_lie_one_behind_the_other_at_multiples_of_64() -> None:
    # In the order of the flat space: a has 1073 codes and 5 scales, mean 70 floats, b 300 codes and 2 scales, count
    # one int64, seen three bytes.
    ends: list[int] = []
    for size in (1093, 280, 308, 8, 3):
        start = -(-ends[-1] // 64) * 64 if ends else 0
        ends.append(start + size)
    encoding = PartEncoding(LAYOUT, WHOLE, parse_wire("int8"))
    assert encoding.bytes == ends[-1] == 1859
    assert not encoding.identity


def test_float32_is_the_pushed_memory_and_copies_nothing() -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire("float32")), push(WHOLE)
    assert encoding.identity
    assert encoding.bytes == WHOLE.pushed.bytes
    assert torch.equal(sent(encoding, memory), memory)
    version = memory._version
    assert encoding.encode(memory, memory)
    encoding.decode(memory, memory)
    assert memory._version == version


@wires
def test_a_gradient_that_is_not_finite_is_seen_and_a_buffer_is_not_judged(wire: str) -> None:
    encoding = PartEncoding(LAYOUT, WHOLE, parse_wire(wire))
    out = torch.zeros(encoding.bytes, dtype=torch.uint8)
    memory = push(WHOLE)
    views(memory, WHOLE)["mean", 0][1] = torch.inf
    assert encoding.encode(memory, out)
    views(memory, WHOLE)["a", 0][5] = torch.nan
    assert not encoding.encode(memory, out)


@pytest.mark.parametrize("wire", ["topk:0.05", "onebit"])
@pytest.mark.parametrize("shards", [1, 3])
def test_each_slice_carries_what_it_did_not_send(wire: str, shards: int) -> None:
    codec, residual = parse_wire(wire), Residual(LAYOUT)
    assert isinstance(codec, FeedbackCodec)
    total = torch.zeros_like(residual.values)
    for step in range(3):
        before = residual.values.clone()
        for part in partition(LAYOUT, shards):
            encoding, memory = PartEncoding(LAYOUT, part, codec), push(part, step)
            encoded = sent(encoding, memory, residual)
            assert torch.equal(residual.values[part.pushed.start // 4 :], before[part.pushed.start // 4 :])
            encoding.carry(memory, encoded, residual)
            there = views(received(encoding, encoded, part), part)
            for piece in part.slices:
                name = LAYOUT.tensors[piece.tensor].name
                if name in ("a", "b"):
                    first = (part.pushed.start + piece.offset) // 4
                    at = slice(first, first + piece.stop - piece.start)
                    expected = views(memory, part)[name, piece.start] + before[at] - there[name, piece.start]
                    assert torch.equal(residual.values[at], expected)
                    total[at] = expected
    assert torch.equal(residual.values, total)  # nothing but parameters has one


@pytest.mark.parametrize("wire", ["topk:0.05", "onebit"])
def test_a_push_that_is_refused_leaves_the_residual_and_the_next_one_is_as_if_it_had_not_been(wire: str) -> None:
    encoding = PartEncoding(LAYOUT, WHOLE, parse_wire(wire))
    residual = Residual(LAYOUT)
    first, second = push(WHOLE, 1), push(WHOLE, 2)
    encoding.carry(first, sent(encoding, first, residual), residual)
    before, expected = residual.values.clone(), sent(encoding, second, residual)
    spoilt = push(WHOLE, 3)
    views(spoilt, WHOLE)["b", 0][0] = torch.nan
    kept = spoilt.clone()
    assert not encoding.encode(spoilt, torch.zeros(encoding.bytes, dtype=torch.uint8), residual)
    assert torch.equal(spoilt, kept)
    assert torch.equal(residual.values, before)
    assert torch.equal(sent(encoding, second, residual), expected)


@pytest.mark.parametrize("wire", ["topk:0.05", "onebit"])
def test_the_residual_of_a_parameter_without_gradient_waits(wire: str) -> None:
    encoding = PartEncoding(LAYOUT, WHOLE, parse_wire(wire))
    residual = Residual(LAYOUT)
    memory = push(WHOLE)
    encoding.carry(memory, sent(encoding, memory, residual), residual)
    before = residual.export()
    views(memory, WHOLE)["b", 0].zero_()
    absent = (4,)
    out = torch.zeros(encoding.bytes, dtype=torch.uint8)
    assert encoding.encode(memory, out, residual, absent)
    encoding.carry(memory, out, residual, absent)
    there, after = views(received(encoding, out, WHOLE), WHOLE), residual.export()
    assert not there["b", 0].any()
    assert torch.equal(after["b"], before["b"])
    assert before["b"].any()
    assert not torch.equal(after["a"], before["a"])


@pytest.mark.parametrize("wire", ["float32", "bfloat16", "float16", "int8"])
def test_a_codec_without_feedback_leaves_a_residual_at_zero(wire: str) -> None:
    encoding, residual, memory = PartEncoding(LAYOUT, WHOLE, parse_wire(wire)), Residual(LAYOUT), push(WHOLE)
    encoding.carry(memory, sent(encoding, memory, residual), residual)
    assert not residual.values.any()


@wires
def test_a_push_of_another_size_is_refused_before_it_is_read(wire: str) -> None:
    encoding = PartEncoding(LAYOUT, WHOLE, parse_wire(wire))
    memory = torch.zeros(WHOLE.pushed.bytes, dtype=torch.uint8)
    message = f"a push encoded as {wire} has {encoding.bytes} bytes here, got {encoding.bytes - 1}"
    with pytest.raises(PeerError, match=re.escape(message)):
        encoding.decode(torch.full((encoding.bytes - 1,), 1, dtype=torch.uint8), memory)
    assert not memory.any()


def test_indices_beyond_a_slice_never_reach_its_neighbour() -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire("topk:0.05")), push(WHOLE)
    encoded = sent(encoding, memory)
    encoded[:4].view(torch.int32).fill_(LAYOUT.tensors[0].elements)  # would be the padding behind the first slice
    there = torch.zeros(WHOLE.pushed.bytes, dtype=torch.uint8)
    with pytest.raises(PeerError, match="must ascend from 0 to below 1073"):
        encoding.decode(encoded, there)
    assert not there.any()


def test_a_shard_without_anything_pushed_has_an_empty_encoding() -> None:
    empty = next(part for part in partition(LAYOUT, 40) if not part.pushed.bytes)
    encoding = PartEncoding(LAYOUT, empty, parse_wire("int8"))
    assert encoding.bytes == 0
    assert encoding.encode(push(empty), torch.zeros(0, dtype=torch.uint8))
