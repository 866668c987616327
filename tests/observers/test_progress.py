from io import StringIO

import pytest
from rich.console import Console

from psgd.observers import LinePrinter, Meter, ProgressBar, progress_display
from psgd.runlog import Footer, Notice, Reported
from tests.records import EVALUATION, iteration


def fed_meter() -> Meter:
    meter = Meter(slots=2, steps=10)
    meter.see(iteration(slot=0, step=0, time_s=1.0, loss=9.0, lag=0, samples=4))
    meter.see(iteration(slot=1, step=0, time_s=1.5, loss=1.0, lag=1, samples=4))
    meter.see(iteration(slot=0, step=1, time_s=2.0, loss=0.5, lag=2, samples=4))
    return meter


def test_the_meter_says_where_the_run_stands() -> None:
    meter = fed_meter()
    assert meter.clocks == [2, 1]
    assert meter.step == 1
    assert meter.loss == 0.75  # of the last two, as there are two slots
    assert meter.lag == 1.0
    assert meter.samples_per_s == 8.0  # 8 samples came within the second after the first iteration
    assert str(meter) == "step 1/10  loss 0.7500  8 samples/s  lag 1.00  clocks 2 1"


def test_many_clocks_are_shown_as_a_range() -> None:
    meter = Meter(slots=100, steps=None)
    meter.see(iteration(slot=7, step=4))
    assert str(meter).endswith("clocks 0 … 5")


def test_a_meter_without_records_makes_nothing_up() -> None:
    meter = Meter(slots=2, steps=None)
    assert (meter.step, meter.loss, meter.lag, meter.samples_per_s) == (0, None, 0.0, 0.0)
    assert str(meter) == "step 0  0 samples/s  lag 0.00  clocks 0 0"


def test_lines_come_every_few_seconds() -> None:
    stream = StringIO()
    now = 100.0
    printer = LinePrinter(Meter(slots=1, steps=4), stream, lambda: now)
    for step, now in enumerate((101.0, 104.9, 105.0, 109.9)):  # noqa: B007, the printer looks at it
        printer(iteration(step=step, time_s=step * 1000.0))  # whatever the run's own time
    printer.close()
    assert stream.getvalue() == "step 3/4  loss 0.5000  0 samples/s  lag 0.00  clocks 3\n"


def test_evaluations_and_notices_are_lines_of_their_own() -> None:
    stream = StringIO()
    printer = LinePrinter(Meter(slots=1, steps=4), stream)
    for record in (EVALUATION, Notice(1.0, "worker 1 replaced"), Reported(1.0, 0, {"f1": 0.5}), Footer()):
        printer(record)
    assert stream.getvalue().splitlines() == [
        "step 3: test_loss 0.2500  test_accuracy 0.7500",
        "note: worker 1 replaced",
    ]


def test_a_bar_shows_the_figures_and_what_happened_above_it() -> None:
    stream = StringIO()
    console = Console(file=stream, force_terminal=True, width=120, color_system=None)
    bar = ProgressBar(Meter(slots=1, steps=4), 4, console)
    bar(iteration(step=0))
    bar(EVALUATION)
    bar(iteration(step=1, time_s=1.01))
    bar.close()
    shown = stream.getvalue()
    assert "step 3: test_loss 0.2500" in shown
    assert "step 2/4  loss 0.5000" in shown  # the last state, though it came right behind the one before


def test_a_bar_that_heard_nothing_touches_no_terminal() -> None:
    stream = StringIO()
    ProgressBar(Meter(slots=1, steps=4), 4, Console(file=stream, force_terminal=True)).close()
    assert stream.getvalue() == ""


def test_where_stderr_is_no_terminal_lines_go_there(capsys: pytest.CaptureFixture[str]) -> None:
    display = progress_display(slots=1, steps=4)
    display(EVALUATION)
    display.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "step 3: test_loss 0.2500  test_accuracy 0.7500\n"
