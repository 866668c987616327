"""The entry point: picks the command, turns errors and signals into one line and an exit code."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

from psgd.cli.bench_config import PlaneConfig, ScaleConfig, StepConfig, ThroughputConfig
from psgd.cli.calibrate_config import CalibrateConfig
from psgd.cli.compare_config import CompareConfig
from psgd.cli.options import OneLineParser, parse
from psgd.cli.report_config import ReportConfig
from psgd.cli.simulate_config import SimulateConfig
from psgd.cli.train_config import TrainConfig
from psgd.cli.tune_config import TuneConfig
from psgd.errors import ConfigurationError, PsgdError
from psgd.runlog import versions


@dataclass(frozen=True, slots=True)
class Command:
    """A command of ``psgd``.

    Args:
        help: one line.
        config: what it can be told; made of `psgd.cli.options.option`.
        module: has ``run(config)``; imported only once the options are read, because it needs torch.
    """

    help: str
    config: type[Any]
    module: str


@dataclass(frozen=True, slots=True)
class Group:
    """Commands that belong together, behind a word of their own.

    Args:
        help: one line.
        commands: by name.
    """

    help: str
    commands: Mapping[str, Command]


BENCH = {
    "step": Command("a synthetic step of psgd, its peers and the machine's floor", StepConfig, "psgd.cli.bench"),
    "train": Command("real training beside independent single processes", ThroughputConfig, "psgd.cli.bench"),
    "plane": Command("bytes through one connection, beside grpcio and a socket", PlaneConfig, "psgd.cli.bench"),
    "scale": Command("step time and shard memory as workers, shards and params grow", ScaleConfig, "psgd.cli.bench"),
}
COMMANDS: Mapping[str, Command | Group] = {
    "train": Command("train a model on workers and parameter-server shards", TrainConfig, "psgd.cli.train"),
    "compare": Command("train with several optimizers, modes, rates and seeds", CompareConfig, "psgd.cli.compare"),
    "report": Command("compare runs that are there already", ReportConfig, "psgd.cli.report"),
    "simulate": Command(
        "train, or only time, in virtual time among many machines", SimulateConfig, "psgd.cli.simulate"
    ),
    "calibrate": Command("fit the simulator's world to a run that is there", CalibrateConfig, "psgd.cli.calibrate"),
    "tune": Command("search for the best options of a training", TuneConfig, "psgd.cli.tune"),
    "bench": Group("measure psgd: step, train, plane or scale", BENCH),
}

FAILED, REFUSED = 1, 2
INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Run ``psgd``.

    Args:
        argv: the words behind ``psgd``; default this process's own.
        environment: where the commands find their ``PSGD_…`` variables.

    Returns:
        The exit code: 0; 2 if the input was refused, 1 if the run failed, 130 after Ctrl-C, 143 after SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        _run(sys.argv[1:] if argv is None else argv, environment)
    except ConfigurationError as error:
        return _tell(f"error: {error}", REFUSED)
    except PsgdError as error:
        return _tell(f"error: {error}", FAILED)
    except KeyboardInterrupt:
        return _tell("interrupted", INTERRUPTED)
    except SystemExit as end:  # --help, --version and SIGTERM
        if end.code == TERMINATED:
            return _tell("terminated", TERMINATED)
        return end.code if isinstance(end.code, int) else 0
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _run(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    prog, command, rest = _choose("psgd", COMMANDS, argv)
    config = parse(command.config, prog, rest, environment, [each.config for each in _all_of(COMMANDS)])
    importlib.import_module(command.module).run(config)


def _all_of(commands: Mapping[str, Command | Group]) -> list[Command]:
    return [
        each
        for command in commands.values()
        for each in (_all_of(command.commands) if isinstance(command, Group) else [command])
    ]


def _choose(
    prog: str, commands: Mapping[str, Command | Group], argv: Sequence[str]
) -> tuple[str, Command, Sequence[str]]:
    """The command, what it is called, and the words behind it."""
    name = _parser(prog, commands).parse_args(argv[:1]).command
    if name is None:
        raise ConfigurationError(f"COMMAND must be one of {', '.join(commands)}, got none; see {prog} --help")
    chosen = commands[name]
    if isinstance(chosen, Group):
        return _choose(f"{prog} {name}", chosen.commands, argv[1:])
    return f"{prog} {name}", chosen, argv[1:]


def _parser(prog: str, commands: Mapping[str, Command | Group]) -> argparse.ArgumentParser:
    listed = "\n".join(f"  {name:<{max(map(len, commands))}}  {command.help}" for name, command in commands.items())
    parser = OneLineParser(
        prog=prog,
        description="Train PyTorch models synchronously or asynchronously on parameter-server shards.",
        epilog=f"commands:\n{listed}\n\n{prog} COMMAND --help says what a command takes.",
        usage=f"{prog} [-h] [--version] COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"psgd {versions()['psgd']}")
    parser.add_argument("command", metavar="COMMAND", nargs="?", choices=commands, help=argparse.SUPPRESS)
    return parser


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End as an exception does, so that everything is cleaned up; a second signal can not interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(TERMINATED)


def _tell(message: str, code: int) -> int:
    print("psgd:", " ".join(message.split()), file=sys.stderr)
    return code
