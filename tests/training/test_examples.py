import doctest
import importlib

import pytest
import torch


@pytest.mark.parametrize(
    "module",
    [
        "elementwise",
        "groups",
        "imports",
        "names",
        "optimizers",
        "outer",
        "regularization",
        "rules.ema_momentum",
        "rules.from_function",
        "rules.ftrl",
        "rules.lamb",
        "rules.rmsprop_inner",
    ],
)
def test_the_docstrings_examples_run_as_they_stand_there(module: str) -> None:
    found = doctest.testmod(importlib.import_module(f"psgd.training.{module}"), extraglobs={"torch": torch})
    assert found.attempted > 0
    assert found.failed == 0
