"""What a search may choose from: a domain for each setting."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from psgd.errors import ConfigurationError

Label: TypeAlias = str | int | float | bool | None
"""A value as search algorithms know it: they take nothing but plain scalars."""

Point: TypeAlias = dict[str, Any]
"""Settings by name, as search algorithms know them."""


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values, in the order of the user.

    Raises:
        ConfigurationError: if there is none, or one is there twice.

    Example:
        >>> Choices((0.9, [0.9, 0.99])).labels
        (0.9, '[0.9, 0.99]')
    """

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        """Refuse what leaves no choice, or weighs one value twice."""
        if not self.values:
            raise ConfigurationError("choices must hold at least one value, got none")
        labels = [(type(label), label) for label in self.labels]
        twice = [label for number, (_, label) in enumerate(labels) if labels[number] in labels[:number]]
        if twice:
            raise ConfigurationError(f"choices must name each value once, got {twice[0]!r} twice")

    @property
    def labels(self) -> tuple[Label, ...]:
        """The values as search algorithms know them: what is no scalar, such as a list, as its JSON."""
        return tuple(value if _is_scalar(value) else json.dumps(value) for value in self.values)

    def value_of(self, label: Label) -> Any:
        """The value behind a label."""
        return self.values[self.labels.index(label)]


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both among them.

    Args:
        log: equal factors are equally likely, rather than equal differences.
        whole: whole numbers only.

    Raises:
        ConfigurationError: if there is nothing between the bounds.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        """Refuse what can not be drawn from."""
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigurationError(f"a range must be LOW:HIGH with LOW < HIGH, got {self.low:g}:{self.high:g}")
        if self.log and self.low <= 0:
            raise ConfigurationError(f"a logarithmic range must begin above 0, got {self.low:g}:{self.high:g}")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ConfigurationError(f"a range of whole numbers must have such bounds, got {self.low:g}:{self.high:g}")

    def value_of(self, label: Label) -> float:
        """The number that a search algorithm has drawn, as Python's own."""
        return int(label) if self.whole else float(label)  # type: ignore[arg-type]  # no range has another label


Domain: TypeAlias = Choices | Range
Space: TypeAlias = Mapping[str, Domain]


def values_of(space: Space, point: Point) -> dict[str, Any]:
    """The settings of a point as the user's own values.

    Example:
        >>> values_of({"betas": Choices(([0.9, 0.99],))}, {"betas": "[0.9, 0.99]"})
        {'betas': [0.9, 0.99]}
    """
    return {name: domain.value_of(point[name]) for name, domain in space.items()}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
