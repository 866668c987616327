"""The command line: ``psgd train …``.

Modules:
    entry: which command, and what becomes of its errors and of signals.
    options: a frozen dataclass as flags, environment variables and YAML.
    values: how a value of each type is read.
    train_config, compare_config, tune_config, bench_config: what each command can be told.
    building: from the options of ``psgd train`` to a Trainer; all but ``bench`` train through it.
    train, compare, tune, bench: the commands themselves.
    compare_grammar, search_space: how arms of a comparison, and what is searched, are written.
    figures: how figures are printed.
"""

from psgd.cli.entry import main

__all__ = ["main"]
