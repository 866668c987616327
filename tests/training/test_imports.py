from pathlib import Path

import pytest

from psgd.errors import ConfigurationError
from psgd.training.imports import import_callable


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_callables.py").write_text("def double(x):\n    return 2 * x\nnumber = 3\n")
    (tmp_path / "broken_callables.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_a_function_is_found_in_its_module() -> None:
    assert import_callable("loss", "own_callables:double")(2) == 4


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_callables", "loss must be my.pkg:attribute, got 'own_callables'"),
        (":double", "loss must be my.pkg:attribute, got ':double'"),
        ("own_callables:", "loss must be my.pkg:attribute, got 'own_callables:'"),
        ("own_callables:halve", "loss own_callables:halve: module own_callables has no attribute 'halve'"),
        ("own_callables:number", "loss own_callables:number must be a function or class, got int"),
        (
            "absent_callables:f",
            "loss absent_callables:f: can not import absent_callables "
            "(ModuleNotFoundError: No module named 'absent_callables')",
        ),
        (
            "broken_callables:f",
            "loss broken_callables:f: can not import broken_callables (ZeroDivisionError: division by zero)",
        ),
    ],
)
def test_what_can_not_be_imported_is_said(spec: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_callable("loss", spec)
    assert str(caught.value) == message
