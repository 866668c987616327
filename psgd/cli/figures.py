"""How a command says its figures: one line of JSON, or a table."""

import json
from collections.abc import Mapping
from typing import Any

from psgd.runlog import finite


def print_figures(figures: Mapping[str, Any], as_json: bool) -> None:
    """One line of JSON, or a table."""
    if as_json:
        print(json.dumps(finite(figures), allow_nan=False), flush=True)
        return
    rows = {name: _in_words(value) for name, value in figures.items() if value is not None and name != "arrays"}
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    for name, array in figures.get("arrays", {}).items():
        print(f"{name}\n{_in_rows(array)}")


def _in_rows(array: Any) -> str:
    """A table of numbers, one line a row; a number a class is one row."""
    rows = array if array and isinstance(array[0], list | tuple) else [array]
    cells = [[_in_words(number) for number in row] for row in rows]
    width = max(len(cell) for row in cells for cell in row)
    return "\n".join("  ".join(f"{cell:>{width}}" for cell in row) for row in cells)


def _in_words(value: Any) -> str:
    match value:
        case float():
            return f"{value:,.4f}"
        case {"mean": mean, "max": most}:
            return f"mean {mean:.2f}, max {most}"
        case list() | tuple():
            return ", ".join(f"{item:,}" if isinstance(item, int) else _in_words(item) for item in value)
        case Mapping():
            return "; ".join(f"{name} {_in_words(item)}" for name, item in value.items())
        case _:
            return str(value)
