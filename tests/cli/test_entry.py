import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import NoReturn

import pytest

from psgd.cli import main
from psgd.errors import ConfigurationError, InternalError, LostError, PsgdError

LIGHT = """
import sys
from psgd.cli import main
main({argv!r}, {{}})
heavy = {{"torch", "ray", "numpy", "pandas"}} & set(sys.modules)
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], int]:
    """``psgd train`` that ends with the given error."""

    def call(error: BaseException | None) -> int:
        def run(config: object) -> None:
            if error is not None:
                raise error

        monkeypatch.setattr("psgd.cli.train.run", run)
        return main(["train"], {})

    return call


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (None, 0, ""),
        (ConfigurationError("workers must be >= 1, got 0"), 2, "psgd: error: workers must be >= 1, got 0\n"),
        (ConfigurationError("two\n  lines"), 2, "psgd: error: two lines\n"),
        (LostError("shard 1 is gone"), 1, "psgd: error: shard 1 is gone\n"),
        (InternalError("impossible"), 1, "psgd: error: impossible\n"),
        (PsgdError("whatever"), 1, "psgd: error: whatever\n"),
        (KeyboardInterrupt(), 130, "psgd: interrupted\n"),
        (SystemExit(143), 143, "psgd: terminated\n"),
    ],
)
def test_every_end_has_its_code_and_at_most_one_line(
    command: Callable[[BaseException | None], int],
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    line: str,
) -> None:
    assert command(error) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_a_bug_keeps_its_traceback(command: Callable[[BaseException | None], int]) -> None:
    with pytest.raises(ZeroDivisionError):
        command(ZeroDivisionError())


def test_sigterm_ends_the_command_as_an_exception_does(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def run(config: object) -> NoReturn:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut the cleaning short
            cleaned.append(True)
        raise AssertionError

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("psgd.cli.train.run", run)
    assert main(["train"], {}) == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (
            [],
            "psgd: error: COMMAND must be one of train, compare, report, simulate, calibrate, tune, bench, got none; "
            "see psgd --help\n",
        ),
        (
            ["trian"],
            "psgd: error: argument COMMAND: invalid choice: 'trian' "
            "(choose from 'train', 'compare', 'report', 'simulate', 'calibrate', 'tune', 'bench'); see psgd --help\n",
        ),
        (["bench"], "psgd: error: COMMAND must be one of step, train, plane, scale, got none; see psgd bench --help\n"),
        (["--verson"], "psgd: error: unrecognized arguments: --verson; did you mean --version?; see psgd --help\n"),
        (
            ["train", "--wrokers", "2"],
            "psgd: error: unrecognized arguments: --wrokers 2; did you mean --workers?; see psgd train --help\n",
        ),
    ],
)
def test_what_is_no_command_is_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], argv: list[str], line: str
) -> None:
    assert main(argv, {}) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", line)


def test_help_and_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"], {}) == 0
    assert "train a model on workers and parameter-server shards" in capsys.readouterr().out
    assert main(["bench", "--help"], {}) == 0
    assert "  step   a synthetic step of psgd, its peers and the machine's floor" in capsys.readouterr().out
    assert main(["--version"], {}) == 0
    assert capsys.readouterr().out.startswith("psgd ")


@pytest.mark.parametrize(
    "argv", [["--help"], ["train", "--help"], ["train", "--workers", "x"], ["bench", "step", "--peers", "x"]]
)
def test_help_and_refusals_come_without_torch(argv: list[str]) -> None:
    run = subprocess.run([sys.executable, "-c", LIGHT.format(argv=argv)], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_a_misspelt_variable_is_one_line_and_those_of_all_commands_are_known(
    command: Callable[[BaseException | None], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(None) == 0
    assert main(["train"], {"PSGD_WORKERS": "3", "PSGD_PARAMS": "3", "PSGD_STEPS": "7"}) == 0
    assert main(["train"], {"PSGD_WORKRES": "3"}) == 2
    captured = capsys.readouterr()
    line = "PSGD_WORKRES in the environment is no option's; did you mean PSGD_WORKERS?; see psgd train --help"
    assert (captured.out, captured.err) == ("", f"psgd: error: {line}\n")


@pytest.mark.parametrize("module", ["psgd", "psgd.cli"])
def test_the_command_is_a_module_too(module: str) -> None:
    run = subprocess.run([sys.executable, "-m", module, "trian"], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("psgd: error: argument COMMAND: invalid choice: 'trian'")
