import pytest

from psgd.core.layout import Span
from psgd.core.spans import intersection, merged, without


@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ([], [(2, 9)]),
        ([(2, 9)], []),
        ([(0, 20)], []),
        ([(4, 6)], [(2, 4), (6, 9)]),
        ([(6, 7), (3, 4)], [(2, 3), (4, 6), (7, 9)]),
        ([(3, 6), (5, 7), (3, 4)], [(2, 3), (7, 9)]),
        ([(0, 3), (8, 12)], [(3, 8)]),
        ([(0, 2), (9, 12)], [(2, 9)]),
        ([(12, 14)], [(2, 9)]),
        ([(4, 4)], [(2, 4), (4, 9)]),
    ],
)
def test_what_is_left_of_a_span(taken: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    rest = without(Span(2, 9), [Span(*pair) for pair in taken])
    assert [(span.start, span.stop) for span in rest] == left


@pytest.mark.parametrize(
    ("some", "others", "common"),
    [
        ([(0, 5)], [(3, 9), (5, 6)], [(3, 5)]),
        ([(0, 2), (4, 8)], [(1, 5)], [(1, 2), (4, 5)]),
        ([(0, 2)], [(2, 4)], []),
        ([], [(0, 4)], []),
    ],
)
def test_what_is_in_both(
    some: list[tuple[int, int]], others: list[tuple[int, int]], common: list[tuple[int, int]]
) -> None:
    both = intersection([Span(*pair) for pair in some], [Span(*pair) for pair in others])
    assert [(span.start, span.stop) for span in both] == common


@pytest.mark.parametrize(
    ("spans", "expected"),
    [([(4, 6), (0, 4), (8, 9)], [(0, 6), (8, 9)]), ([(0, 1), (2, 3)], [(0, 1), (2, 3)]), ([], [])],
)
def test_neighbours_are_merged(spans: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    assert [(span.start, span.stop) for span in merged([Span(*pair) for pair in spans])] == expected
