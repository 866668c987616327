"""Numbers as people read them: with a unit, and no more digits than they are worth."""

import math
import re
from collections.abc import Callable

from psgd.analysis.comparison import Metric

Words = Callable[[float], str]

LONG_S = 600
"""From here on a duration is told in two units."""
UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Seconds, and what they are called: the larger unit, the smaller one."""
MANY = 1e7
"""From here on a count is told in millions."""
NUMBER_AND_UNIT = re.compile(r"[−\d.,]+([^\d.,]+)")
BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:%|µs|ms|s|min|h|d|B|kB|MB|GB|TB|M)(?!\w))")
DASH = "–"
MINUS = "−"


def significant(value: float, digits: int = 3) -> str:
    """Rounded to so many digits, without a power of ten where plain digits do.

    >>> [significant(value) for value in (0.0123456, 1.5, 12.34, 1234.5, 1234567.0)]
    ['0.0123', '1.50', '12.3', '1,230', '1,230,000']
    """
    if not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -digits:
        return f"{value:.{digits - 1}g}".replace("-", MINUS)
    places = digits - 1 - magnitude
    return f"{round(value, places):,.{max(0, places)}f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """A span of time.

    >>> [duration(value) for value in (0.00042, 0.0314, 4.2, 59.6, 754.0, 7510.0, 200000.0)]
    ['420 µs', '31.4 ms', '4.20 s', '59.6 s', '12 min 34 s', '2 h 5 min', '2 d 8 h']
    """
    if not math.isfinite(seconds):
        return DASH
    if abs(seconds) >= LONG_S:
        return _two_units(seconds)
    factor, unit = (
        (1, "s") if abs(seconds) >= 1 or seconds == 0 else (1e3, "ms") if abs(seconds) >= 1e-3 else (1e6, "µs")
    )
    return f"{significant(seconds * factor)} {unit}"


def _two_units(seconds: float) -> str:
    whole, unit, part, smaller = next(row for row in UNITS if abs(seconds) >= row[0])
    parts = round(seconds / part)
    wholes, rest = divmod(parts, whole // part)
    return f"{wholes} {unit} {rest} {smaller}"


def count(value: float) -> str:
    """Of things; ten millions and more are abbreviated.

    >>> [count(value) for value in (7680, 12.5, 23456789, 4.5e9)]
    ['7,680', '12.5', '23.5 M', '4,500 M']
    """
    if abs(value) >= MANY:
        return f"{significant(value / 1e6)} M"
    return f"{value:,.0f}" if abs(value) >= 100 or float(value).is_integer() else significant(value)


def size(bytes_: float) -> str:
    """An amount of data, in decimal units.

    >>> [size(value) for value in (0, 512, 38656, 2.5e9)]
    ['0 B', '512 B', '38.7 kB', '2.50 GB']
    """
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(bytes_) >= factor:
            return f"{significant(bytes_ / factor)} {unit}"
    return f"{bytes_:.0f} B"


def share(value: float) -> str:
    """A part of a whole.

    >>> [share(value) for value in (0.0, 0.0314, 0.4142, 1.0)]
    ['0 %', '3.1 %', '41 %', '100 %']
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.1f} %"


def rate(value: float) -> str:
    """So many a second.

    >>> rate(9692.4), rate(191673.0), rate(1.25)
    ('9,692/s', '191,700/s', '1.25/s')
    """
    return f"{significant(value, 4 if value >= 1000 else 3)}/s"


def lr(value: float) -> str:
    """A learning rate.

    >>> lr(0.00025)
    '0.00025'
    """
    return f"{value:.3g}"


def metric_words(name: str) -> Words:
    """How values of a metric are told, by its name with ``test_`` or ``train_``.

    >>> metric_words("test_accuracy")(0.98765)
    '98.77 %'
    """
    return Metric(name.removeprefix("test_").removeprefix("train_")).words


def label(name: str) -> str:
    """A metric's name for people.

    >>> label("test_accuracy")
    'Test accuracy'
    """
    return name.replace("_", " ").replace("train ", "training ").capitalize()


def tied(text: str) -> str:
    r"""The text with no line's end between a number and its unit.

    >>> tied("85 % after 9.8 s, 3 seeds")
    '85\xa0% after 9.8\xa0s, 3 seeds'
    """
    return BEFORE_UNIT.sub("\N{NO-BREAK SPACE}", text)


def spread(median: float, low: float, high: float, words: Words) -> str:
    """A median, and the least and the greatest value where they differ; a unit that all have is told once.

    >>> spread(0.5, 0.25, 0.75, share), spread(22.0, 20.0, 754.0, duration), spread(1.0, 1.0, 1.0, count)
    ('50 % (25–75)', '22.0 s (20.0 s–12 min 34 s)', '1')
    """
    middle, first, last = words(median), words(low), words(high)
    if first == last:
        return middle
    units = {_unit(each) for each in (middle, first, last)}
    common = units.pop() if len(units) == 1 else ""
    return f"{middle} ({first.removesuffix(common)}{DASH}{last.removesuffix(common)})"


def interval(low: float, high: float, words: Words) -> str:
    """From one value to another; a unit that both have is told once.

    >>> interval(0.25, 0.5, share), interval(0.5, 90.0, duration), interval(1.5, 2.5, rate)
    ('25–50 %', '500 ms–90.0 s', '1.50–2.50/s')
    """
    first, last = words(low), words(high)
    if first == last:
        return last
    return f"{first.removesuffix(_unit(last))}{DASH}{last}"


def _unit(words: str) -> str:
    """What stands behind the number, with its space; nothing if that is not all there is."""
    found = NUMBER_AND_UNIT.fullmatch(words)
    return found[1] if found else ""
