import re

import pytest
import torch
from torch import Tensor

from psgd.core.layout import Layout, Part, Role, Span, TensorSpec, partition
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
    absent = {4}
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


# ------------------------------------------------------------------ one parameter by itself


def test_the_place_of_a_parameter_is_its_slice_and_the_gap_behind_it() -> None:
    # As in the flat space: a has 4292 bytes of 4352, then mean 280 of 512, then b 1200 of 1280, then the counters.
    plain = PartEncoding(LAYOUT, WHOLE, parse_wire("float32"))
    assert plain.places == {0: Span(0, 4352), 4: Span(4864, 6144)}
    # As int8: a 1093, mean 280, b 308, and count at the next multiple of 64.
    assert PartEncoding(LAYOUT, WHOLE, parse_wire("int8")).places == {0: Span(0, 1152), 4: Span(1472, 1792)}


@wires
@pytest.mark.parametrize("shards", [1, 3, 20])
def test_places_cover_every_parameter_slice_once_and_nothing_else_that_is_sent(wire: str, shards: int) -> None:
    for part in partition(LAYOUT, shards):
        encoding = PartEncoding(LAYOUT, part, parse_wire(wire))
        held = {piece.tensor for piece in part.slices if LAYOUT.tensors[piece.tensor].role is Role.PARAMETER}
        assert encoding.places.keys() == held
        memory, own = push(part), torch.zeros(encoding.bytes, dtype=torch.bool)
        for place in encoding.places.values():
            assert not own[place.start : place.stop].any()
            own[place.start : place.stop] = True
        spoilt = sent(encoding, memory).clone()
        spoilt[~own] = 0  # buffers and counters alone
        left = views(received(encoding, spoilt, part), part)
        for key, values in views(received(encoding, sent(encoding, memory), part), part).items():
            assert torch.equal(left[key], values if key[0] in ("a", "b") else torch.zeros_like(values))


@wires
@pytest.mark.parametrize("shards", [1, 3])
def test_parameters_that_are_written_one_by_one_are_those_of_the_whole(wire: str, shards: int) -> None:
    codec = parse_wire(wire)
    residual = Residual(LAYOUT)
    residual.values.copy_(torch.randn(residual.values.shape, generator=torch.Generator().manual_seed(9)))
    for part in partition(LAYOUT, shards):
        encoding, memory = PartEncoding(LAYOUT, part, codec), push(part)
        expected = sent(encoding, memory, residual)
        out = torch.zeros_like(expected)
        for tensor in reversed(list(encoding.places)):
            assert encoding.encode_tensor(tensor, memory, out, residual)
        assert encoding.encode(memory, out, residual, done=set(encoding.places))
        assert torch.equal(out, expected)


@pytest.mark.parametrize("wire", NAMES[1:])
def test_one_parameter_is_written_to_its_place_alone(wire: str) -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire(wire)), push(WHOLE)
    out = torch.full((encoding.bytes,), 77, dtype=torch.uint8)
    encoding.encode_tensor(4, memory, out, None)
    place = encoding.places[4]
    assert (out[: place.start] == 77).all()
    assert (out[place.stop :] == 77).all()
    assert (out[place.start : place.stop] != 77).any()


@pytest.mark.parametrize("wire", NAMES[1:])
def test_what_is_done_is_neither_written_nor_judged_again(wire: str) -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire(wire)), push(WHOLE)
    out = sent(encoding, memory)
    before = out.clone()
    changed = push(WHOLE, seed=1)
    views(changed, WHOLE)["a", 0][0] = torch.nan
    assert encoding.encode(changed, out, done={0})
    assert torch.equal(out[: encoding.places[0].stop], before[: encoding.places[0].stop])
    assert not torch.equal(out, before)


@wires
def test_one_parameter_that_is_not_finite_is_seen(wire: str) -> None:
    encoding, memory = PartEncoding(LAYOUT, WHOLE, parse_wire(wire)), push(WHOLE)
    out = torch.zeros(encoding.bytes, dtype=torch.uint8)
    views(memory, WHOLE)["b", 0][7] = torch.inf
    assert encoding.encode_tensor(0, memory, out, None)
    assert not encoding.encode_tensor(4, memory, out, None)
