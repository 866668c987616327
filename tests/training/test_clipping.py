"""Sums of squares over blocks: the same numbers however a gradient is cut."""

import math

import pytest
import torch

from psgd.config import Clip
from psgd.core.clipping import add_exactly, norm_of
from psgd.core.layout import Layout, Part, Role, TensorSpec, partition
from psgd.training.clipping import CHUNK, SquareSums, clip_gradient, norm

SHAPES = [(3, 5), (1,), (40_000,), (64, 3), (700_001,), (64,), (200, 400), (2, 100)]


def layout_of(shapes: list[tuple[int, ...]], roles: dict[int, Role] | None = None) -> Layout:
    return Layout(
        [TensorSpec(str(k), shape, "float32", (roles or {}).get(k, Role.PARAMETER)) for k, shape in enumerate(shapes)]
    )


def gradient_of(layout: Layout, seed: int = 0) -> torch.Tensor:
    """(floating elements,) float32: padding is zero."""
    generator = torch.Generator().manual_seed(seed)
    flat = torch.zeros(layout.floating_bytes // 4)
    for index, spec in enumerate(layout.tensors):
        start = layout.offsets[index] // 4
        values = torch.randn(spec.elements, generator=generator)
        flat[start : start + spec.elements] = values * 10.0 ** (index % 5 - 2)
    return flat


def share(flat: torch.Tensor, part: Part) -> torch.Tensor:
    return flat[part.pushed.start // 4 : part.pushed.stop // 4]


def test_the_norm_is_that_of_the_parameters() -> None:
    layout = layout_of(SHAPES, {3: Role.BUFFER})
    flat = gradient_of(layout)
    squares = SquareSums(layout, partition(layout, 1)[0])(flat)
    parameters = [flat[o // 4 : o // 4 + t.elements] for o, t in zip(layout.offsets, layout.tensors, strict=True)]
    del parameters[3]
    expected = math.sqrt(sum(float((p.double() ** 2).sum()) for p in parameters))
    assert norm_of([add_exactly(squares)]) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("shards", [2, 3, 7])
@pytest.mark.parametrize("whole", [False, True])
def test_shards_together_have_the_sums_of_one(shards: int, whole: bool) -> None:
    layout = layout_of(SHAPES, {3: Role.BUFFER})
    flat = gradient_of(layout)
    alone = SquareSums(layout, partition(layout, 1)[0])(flat)
    parts = partition(layout, shards, whole)
    together = [each for part in parts for each in SquareSums(layout, part)(share(flat, part))]
    assert together == alone


@pytest.mark.parametrize("elements", [64, 65, 32_768, 100_000, 2 * CHUNK, 2 * CHUNK + 4096 + 100, 1_500_000])
def test_a_block_has_the_same_sum_wherever_the_cut_is(elements: int) -> None:
    """A row's sum must not depend on how many rows torch sums at a time."""
    layout = layout_of([(elements,)])
    flat = gradient_of(layout)
    alone = SquareSums(layout, partition(layout, 1)[0])(flat)
    for shards in (2, 3, 5, 11):
        parts = partition(layout, shards)
        assert [each for part in parts for each in SquareSums(layout, part)(share(flat, part))] == alone


def test_a_part_without_parameters_has_no_sums() -> None:
    layout = layout_of([(64,), (64,)], {1: Role.BUFFER})
    part = partition(layout, 2)[1]
    assert SquareSums(layout, part)(torch.ones(64)) == []


def test_one_tensors_norm_is_taken_in_float64() -> None:
    assert norm(torch.tensor([3.0, 4.0])) == 5.0
    assert norm(torch.full((300_000,), 1e-3)) == pytest.approx(1e-3 * math.sqrt(300_000), rel=1e-7)
    assert math.isnan(norm(torch.tensor([float("nan")])))


def test_the_norm_of_several_tensors_is_that_of_all_their_elements() -> None:
    assert norm(torch.tensor([[1.0, 2.0], [3.0, 1.0]]).t(), torch.tensor(1.0), torch.zeros(0)) == 4.0


@pytest.mark.parametrize(
    ("clip", "clipped"),
    [
        (Clip(norm=6.5), [[1.5, 2.0], [6.0]]),
        (Clip(value=3.5), [[3.0, 3.5], [3.5]]),
        (Clip(tensor_norm=5.0), [[3.0, 4.0], [5.0]]),
        (Clip(norm=13.5), [[3.0, 4.0], [12.0]]),
    ],
    ids=str,
)
def test_a_whole_gradient_is_clipped_in_place(clip: Clip, clipped: list[list[float]]) -> None:
    gradient = [torch.tensor([3.0, 4.0]), torch.tensor([12.0])]
    clip_gradient(gradient, clip)
    for values, expected in zip(gradient, clipped, strict=True):
        torch.testing.assert_close(values, torch.tensor(expected))


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("clip", [Clip(norm=1.0), Clip(value=1.0), Clip(tensor_norm=1.0)], ids=str)
def test_a_gradient_that_is_not_finite_is_left_as_it_is(clip: Clip, wrong: float) -> None:
    gradient = [torch.tensor([3.0, 4.0]), torch.tensor([wrong])]
    clip_gradient(gradient, clip)
    assert [str(values.tolist()) for values in gradient] == ["[3.0, 4.0]", f"[{wrong}]"]


def test_where_no_parameter_has_a_gradient_there_is_nothing_to_clip() -> None:
    clip_gradient([], Clip(norm=1.0))
