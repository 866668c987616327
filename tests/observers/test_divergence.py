from dataclasses import replace

import pytest

from psgd.observers import DivergenceWarning
from tests.records import iteration


def test_the_first_refused_gradient_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    observe = DivergenceWarning()
    refused = replace(iteration(step=7, slot=1), status="nonfinite", loss=float("nan"))
    observe(iteration(step=6, slot=1))
    observe(refused)
    observe(refused)
    assert [record.getMessage() for record in caplog.records] == [
        "a gradient held NaN or Inf at step 7 (slot 1, loss nan): such updates are left out; "
        "a lower learning rate may help"
    ]
