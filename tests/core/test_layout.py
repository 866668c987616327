"""Where tensors lie in the flat space, and how it is cut into parts."""

from collections.abc import Iterable
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from psgd.core.layout import ALIGNMENT, ITEM_BYTES, Layout, Part, Role, Slice, Span, TensorSpec, partition
from psgd.errors import ConfigurationError


def weight(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, "float32", Role.PARAMETER)


MODEL = [
    weight("conv", 100),
    TensorSpec("mean", (3,), "float32", Role.BUFFER),
    TensorSpec("batches", (), "int64", Role.COUNTER),
    TensorSpec("embedding", (70,), "float32", Role.FROZEN),
    weight("head", 128),
]


def test_pushed_tensors_come_first_and_frozen_ones_behind_them() -> None:
    layout = Layout(MODEL)
    assert [layout.span(i) for i in range(5)] == [
        Span(0, 400),
        Span(512, 524),
        Span(1280, 1288),
        Span(1536, 1816),
        Span(768, 1280),
    ]
    assert (layout.floating_bytes, layout.pushed_bytes, layout.bytes) == (1280, 1536, 2048)


def test_two_shards_share_both_regions_and_a_slice_knows_its_place_in_memory() -> None:
    first, second = partition(Layout(MODEL), 2)
    assert first == Part(
        pushed=Span(0, 768),
        frozen=Span(1536, 1792),
        slices=(Slice(0, 0, 100, 0), Slice(1, 0, 3, 512), Slice(3, 0, 64, 768)),
    )
    assert second == Part(
        pushed=Span(768, 1536),
        frozen=Span(1792, 2048),
        slices=(Slice(4, 0, 128, 0), Slice(2, 0, 1, 512), Slice(3, 64, 70, 768)),
    )


def test_one_shard_holds_everything() -> None:
    (part,) = partition(Layout(MODEL), 1)
    assert (part.pushed, part.frozen, part.bytes) == (Span(0, 1536), Span(1536, 2048), 2048)
    assert sorted((s.tensor, s.start, s.stop) for s in part.slices) == [
        (i, 0, tensor.elements) for i, tensor in enumerate(MODEL)
    ]


def test_more_shards_than_blocks_leaves_some_parts_empty() -> None:
    parts = partition(Layout([weight("w", 100)]), 5)
    assert [part.bytes for part in parts] == [0, 256, 0, 256, 0]
    assert [part.slices for part in parts if part.bytes] == [(Slice(0, 0, 64, 0),), (Slice(0, 64, 100, 0),)]


def test_whole_moves_a_cut_to_the_nearest_end_of_a_tensor() -> None:
    layout = Layout([weight("a", 64 * 5), weight("b", 64), weight("c", 64 * 4)])
    assert [part.pushed for part in partition(layout, 2)] == [Span(0, 1280), Span(1280, 2560)]
    assert [part.pushed for part in partition(layout, 3, whole=True)] == [
        Span(0, 1280),
        Span(1280, 1536),
        Span(1536, 2560),
    ]


def test_an_empty_tensor_does_not_make_the_counter_behind_it_divisible() -> None:
    layout = Layout([weight("w", 64), weight("empty", 0), TensorSpec("table", (640,), "int32", Role.COUNTER)])
    assert [[s.tensor for s in part.slices] for part in partition(layout, 2)] == [[0], [2]]


@pytest.mark.parametrize(
    ("spec", "divisible"),
    [
        (weight("w", 640), True),
        (weight("w", 640, 0), False),
        (TensorSpec("frozen", (640,), "float32", Role.FROZEN), True),
        (TensorSpec("wide", (640,), "int64", Role.FROZEN), False),
        (TensorSpec("counter", (640,), "int32", Role.COUNTER), False),
    ],
)
def test_only_what_keeps_its_vector_tails_is_divisible(spec: TensorSpec, divisible: bool) -> None:
    assert spec.divisible is divisible


def test_a_tensor_knows_its_size() -> None:
    spec = TensorSpec("t", (3, 5), "int16", Role.COUNTER)
    assert (spec.elements, spec.item_bytes, spec.bytes) == (15, 2, 30)


def test_layouts_are_equal_when_their_tensors_are() -> None:
    assert Layout(MODEL) == Layout(tuple(MODEL))
    assert hash(Layout(MODEL)) == hash(Layout(tuple(MODEL)))
    assert Layout(MODEL) != Layout(MODEL[:1])
    assert Layout(MODEL) != MODEL


def test_a_name_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tensor 'w' occurs twice in the layout"):
        Layout([weight("w", 1), weight("v", 1), weight("w", 2)])


def test_a_model_without_trainable_parameter_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"the model has no trainable parameter: nothing to train"):
        Layout(MODEL[1:4])


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"tensor 'x': dtype must be one of float32, .*, got complex64"):
        TensorSpec("x", (1,), "complex64", Role.FROZEN)


@pytest.mark.parametrize("role", [Role.PARAMETER, Role.BUFFER])
def test_what_is_averaged_must_be_float32(role: Role) -> None:
    with pytest.raises(ConfigurationError, match=rf"{role} 'x' must be float32, got int64"):
        TensorSpec("x", (1,), "int64", role)


# ------------------------------------------------------------------ random layouts


@st.composite
def layouts(draw: st.DrawFn, *, divisible: bool = False) -> Layout:
    shapes = st.lists(st.integers(0, 40), max_size=2).map(tuple)
    specs = [weight("first", draw(st.integers(1, 2000)))]
    for index in range(draw(st.integers(0, 8))):
        role = draw(st.sampled_from([Role.PARAMETER, Role.BUFFER, Role.FROZEN] if divisible else list(Role)))
        dtypes = ["float32"] if divisible or role in (Role.PARAMETER, Role.BUFFER) else list(ITEM_BYTES)
        specs.append(TensorSpec(f"t{index}", draw(shapes), draw(st.sampled_from(dtypes)), role))
    return Layout(draw(st.permutations(specs)))


SHARDS = st.integers(1, 9)


def slices_of(parts: Iterable[Part], tensor: int) -> list[Slice]:
    return [piece for part in parts for piece in part.slices if piece.tensor == tensor]


@given(layouts())
def test_every_tensor_starts_at_a_block_and_none_overlap(layout: Layout) -> None:
    assert all(offset % ALIGNMENT == 0 for offset in layout.offsets)
    spans = sorted((span.start, span.stop) for span in map(layout.span, range(len(layout.tensors))))
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert layout.floating_bytes <= layout.pushed_bytes <= layout.bytes
    for index, tensor in enumerate(layout.tensors):
        floating = tensor.role in (Role.PARAMETER, Role.BUFFER)
        assert (layout.span(index).stop <= layout.floating_bytes) or not floating
        assert (layout.offsets[index] >= layout.pushed_bytes) or tensor.role is not Role.FROZEN
        assert (layout.span(index).stop <= layout.pushed_bytes) or tensor.role is Role.FROZEN


@given(layouts(), SHARDS, st.booleans())
def test_every_element_lies_in_exactly_one_slice(layout: Layout, shards: int, whole: bool) -> None:
    parts = partition(layout, shards, whole)
    assert len(parts) == shards
    assert sum(part.bytes for part in parts) == layout.bytes
    for index, tensor in enumerate(layout.tensors):
        pieces = slices_of(parts, index)
        ends = [0, *(piece.stop for piece in pieces)]
        assert [piece.start for piece in pieces] == ends[:-1]
        assert ends[-1] == tensor.elements


@given(layouts(), SHARDS, st.booleans())
def test_a_slice_lies_in_memory_where_its_bytes_lie_in_the_spans(layout: Layout, shards: int, whole: bool) -> None:
    flat = list(range(layout.bytes // ALIGNMENT))  # the flat space, one number a block
    for part in partition(layout, shards, whole):
        memory = [
            flat[at // ALIGNMENT]
            for span in (part.pushed, part.frozen)
            for at in range(span.start, span.stop, ALIGNMENT)
        ]
        assert len(memory) * ALIGNMENT == part.bytes
        for piece in part.slices:
            at = layout.offsets[piece.tensor] + piece.start * layout.tensors[piece.tensor].item_bytes
            assert piece.offset % ALIGNMENT == 0
            assert memory[piece.offset // ALIGNMENT] == at // ALIGNMENT


@given(layouts(), SHARDS)
def test_tensors_are_cut_at_multiples_of_64_elements_and_counters_never(layout: Layout, shards: int) -> None:
    parts = partition(layout, shards)
    for index, tensor in enumerate(layout.tensors):
        pieces = slices_of(parts, index)
        assert all(piece.start % 64 == 0 for piece in pieces)
        assert len(pieces) <= 1 or tensor.role is not Role.COUNTER


@given(layouts(), SHARDS)
def test_whole_keeps_every_tensor_on_one_shard(layout: Layout, shards: int) -> None:
    parts = partition(layout, shards, whole=True)
    assert all(len(slices_of(parts, index)) <= 1 for index in range(len(layout.tensors)))


@given(layouts(divisible=True), SHARDS)
def test_both_regions_are_balanced_within_one_block(layout: Layout, shards: int) -> None:
    for part in partition(layout, shards):
        assert abs(part.pushed.bytes - layout.pushed_bytes / shards) <= ALIGNMENT
        assert abs(part.frozen.bytes - (layout.bytes - layout.pushed_bytes) / shards) <= ALIGNMENT


def test_a_cut_divides_no_block() -> None:
    layout = Layout([TensorSpec("w", (1_000_003,), "float32", Role.PARAMETER)])
    (block,) = {tensor.block for tensor in layout.tensors}
    assert block == 2048
    for shards in (2, 3, 5, 7):
        for part in partition(layout, shards):
            assert all(piece.start % block == 0 for piece in part.slices)


@pytest.mark.parametrize(
    ("elements", "block"),
    [(0, 64), (1, 64), (32_767, 64), (32_768, 128), (65_535, 128), (65_536, 256), (1_048_576, 4096), (10**9, 4096)],
)
def test_a_block_is_small_beside_its_tensor(elements: int, block: int) -> None:
    assert TensorSpec("w", (elements,), "float32", Role.PARAMETER).block == block
