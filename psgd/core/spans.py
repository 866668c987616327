"""Sets of bytes, as spans."""

from collections.abc import Iterator, Sequence

from psgd.core.layout import Span


def without(whole: Span, taken: Sequence[Span]) -> Iterator[Span]:
    """What is left of a span when others are taken out of it, from its start to its end.

    >>> list(without(Span(0, 9), [Span(6, 7), Span(0, 2)]))
    [Span(start=2, stop=6), Span(start=7, stop=9)]
    """
    at = whole.start
    for span in sorted(taken, key=lambda span: span.start):
        if at < span.start:
            yield Span(at, min(span.start, whole.stop))
        at = max(at, span.stop)
    if at < whole.stop:
        yield Span(at, whole.stop)


def intersection(some: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """What is in both.

    >>> intersection([Span(0, 5)], [Span(3, 9), Span(5, 6)])
    [Span(start=3, stop=5)]
    """
    pairs = [Span(max(one.start, other.start), min(one.stop, other.stop)) for one in some for other in others]
    return [span for span in pairs if span.bytes > 0]


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same bytes in as few spans as can be; none of them twice.

    >>> merged([Span(4, 6), Span(0, 4), Span(8, 9)])
    [Span(start=0, stop=6), Span(start=8, stop=9)]
    """
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if joined and joined[-1].stop == span.start:
            joined[-1] = Span(joined[-1].start, span.stop)
        else:
            joined.append(span)
    return joined
