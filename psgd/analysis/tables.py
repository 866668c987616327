"""Tables as text, for terminals and for Markdown."""

from collections.abc import Container, Sequence

Row = Sequence[str]


def as_text(rows: Sequence[Row], words: Container[int]) -> str:
    """Columns aligned, below a ruled heading.

    Args:
        rows: the heading first.
        words: the columns of words, aligned to the left; those of numbers go to the right.

    Example:
        >>> print(as_text([("optimizer", "lr"), ("sgd", "0.1"), ("adam", "0.002")], words={0}))
        optimizer     lr
        ----------------
        sgd          0.1
        adam       0.002
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column in words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_markdown(rows: Sequence[Row], words: Container[int]) -> str:
    """The same as a table of Markdown.

    Example:
        >>> print(as_markdown([("optimizer", "lr"), ("sgd", "0.1")], words={0}))
        | optimizer | lr |
        | --- | ---: |
        | sgd | 0.1 |
    """
    ruler = ["---" if column in words else "---:" for column in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (rows[0], ruler, *rows[1:]))
