from dataclasses import replace

import pytest

from psgd.experiments.calibration_doubts import doubts
from psgd.experiments.timings import Course

RUN = Course(pushes_per_s=100.0, samples_per_s=3200.0, idle_share=0.25, wait_share=0.5, lag=1.0, seconds=8.0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pushes_per_s": 125.0, "seconds": 6.4},
        {"pushes_per_s": 80.0, "seconds": 10.0},
        {"idle_share": 0.34, "wait_share": 0.41},
        {"samples_per_s": 9.0, "lag": 7.0},
    ],
)
def test_what_is_about_right_is_trusted(changes: dict[str, float]) -> None:
    assert doubts(RUN, replace(RUN, **changes)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"pushes_per_s": 637.3}, "pushes/s 637.3 instead of 100 (6.37 times)"),
        ({"pushes_per_s": 79.0}, "pushes/s 79 instead of 100 (0.79 times)"),
        ({"seconds": 10.4}, "seconds 10.4 instead of 8 (1.3 times)"),
        ({"idle_share": 0.36}, "idle share 36 % instead of 25 % (11 points more)"),
        ({"wait_share": 0.2}, "wait share 20 % instead of 50 % (30 points less)"),
    ],
)
def test_what_is_off_is_told_by_how_much(changes: dict[str, float], words: str) -> None:
    assert doubts(RUN, replace(RUN, **changes)) == [words]


def test_something_that_was_nothing_is_off() -> None:
    nothing = replace(RUN, pushes_per_s=0.0)
    assert doubts(nothing, nothing) == []
    assert doubts(nothing, RUN) == ["pushes/s 100 instead of 0 (inf times)"]
