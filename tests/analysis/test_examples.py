import doctest
import importlib

import pytest

MODULES = (
    *("comparison", "figure", "gathering", "pair_words", "run_figures", "statistics", "tables"),
    *("iterations", "observations"),
)


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module: str) -> None:
    assert doctest.testmod(importlib.import_module(f"psgd.analysis.{module}")).failed == 0
