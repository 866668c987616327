"""Where a calibrated world is not to be trusted: what its simulation of the very run tells otherwise than the run."""

import math

from psgd.experiments.timings import Course

LEAST_RATIO, MOST_RATIO = 0.8, 1.25
"""Between which simulated / measured is about right."""
MOST_POINTS = 10
"""Percentage points that a share may be off."""
RATES = {"pushes_per_s": "pushes/s", "seconds": "seconds"}
SHARES = {"idle_share": "idle share", "wait_share": "wait share"}


def doubts(measured: Course, simulated: Course) -> list[str]:
    """What is clearly off, and by how much; nothing where the world may be trusted.

    Example:
        >>> run = Course(50.0, 1600.0, 0.25, 0.5, 1.0, 8.0)
        >>> doubts(run, Course(100.0, 3200.0, 0.28, 0.3, 1.0, 8.0))
        ['pushes/s 100 instead of 50 (2 times)', 'wait share 30 % instead of 50 % (20 points less)']
    """
    found = []
    for name, words in RATES.items():
        was, would = getattr(measured, name), getattr(simulated, name)
        ratio = would / was if was else math.inf if would else 1.0
        if not LEAST_RATIO <= ratio <= MOST_RATIO:
            found.append(f"{words} {would:.4g} instead of {was:.4g} ({ratio:.3g} times)")
    for name, words in SHARES.items():
        was, would = 100 * getattr(measured, name), 100 * getattr(simulated, name)
        if abs(would - was) > MOST_POINTS:
            more = "more" if would > was else "less"
            found.append(f"{words} {would:.0f} % instead of {was:.0f} % ({abs(would - was):.0f} points {more})")
    return found
