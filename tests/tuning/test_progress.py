import io

from rich.console import Console

from psgd.tuning.progress import Score, SearchBar, SearchLines
from psgd.tuning.space import Choices, Space
from psgd.tuning.trials import Measured, Trial

SPACE: Space = {"lr": Choices((0.1, 0.2)), "staleness": Choices((None, 2))}
FIRST = Trial(0, {"lr": 0.1, "staleness": None}, "done", None, (Measured(10, 1.25, {"test_loss": 0.5}),))
REFUSED = Trial(1, {"lr": 0.1, "staleness": 2}, "refused", "staleness must be left out with mode sync")
STOPPED = Trial(
    2, {"lr": 0.2, "staleness": None}, "stopped", "after 1 evaluation", (Measured(5, 0.5, {"test_loss": 0.25}),)
)


def test_a_line_a_trial_with_the_best_so_far() -> None:
    stream = io.StringIO()
    with SearchLines(Score(SPACE, "test_loss", "min", [], 3), stream) as display:
        for trial in (REFUSED, FIRST, STOPPED):
            display(trial)
    assert stream.getvalue().splitlines() == [
        "[1/3] trial 1: lr 0.1, staleness 2: refused: staleness must be left out with mode sync",
        "[2/3] trial 0: lr 0.1, staleness none: test_loss 0.5000, 1.2 s; best test_loss 0.5000 (trial 0)",
        "[3/3] trial 2: lr 0.2, staleness none: test_loss 0.2500, 0.5 s, stopped after 1 evaluation; "
        "best test_loss 0.5000 (trial 0)",
    ]


def test_trials_that_were_there_count() -> None:
    stream = io.StringIO()
    with SearchLines(Score(SPACE, "test_loss", "min", [FIRST], 3), stream) as display:
        display(REFUSED)
    assert stream.getvalue().startswith("[2/3] trial 1: ")
    assert stream.getvalue().endswith("; best test_loss 0.5000 (trial 0)\n")


def test_on_a_terminal_a_bar_stands_below_the_lines() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    with SearchBar(Score(SPACE, "test_loss", "min", [FIRST], 3), console) as display:
        display(STOPPED)
    text = stream.getvalue()
    assert "trial 2: lr 0.2, staleness none: test_loss 0.2500, 0.5 s, stopped after 1 evaluation" in text
    assert "2/3 trials  best test_loss 0.5000 (trial 0)" in text
