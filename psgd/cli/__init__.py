"""The command line: ``psgd train …``.

Modules:
    entry: which command, and what becomes of its errors and of signals.
    options: a frozen dataclass as flags, environment variables and YAML.
    train_config: what ``psgd train`` can be told.
    train: the command itself.
"""

from psgd.cli.entry import main

__all__ = ["main"]
