import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from psgd.errors import ConfigurationError
from psgd.training.models import MODELS, check_model, resolve_model

OWN_MODELS = """
from torch import nn
import functools

def plain(): return nn.Linear(2, 3)
def shaped(shape, outputs): return nn.Linear(shape[0], outputs)
def optional(width=4): return nn.Linear(width, 1)
def other(width): return nn.Linear(width, 1)
class Net(nn.Linear):
    def __init__(self): super().__init__(5, 6)
model = nn.Linear(1, 1)
"""


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module with models of the user's own."""
    (tmp_path / "own_models.py").write_text(OWN_MODELS)
    (tmp_path / "broken_models.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_models", "broken_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "own_models"


def refusal(spec: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_model(spec, (1, 8, 8), 10)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 9, 5)])
def test_every_built_in_model_makes_its_outputs_and_can_be_pickled(name: str, shape: tuple[int, ...]) -> None:
    factory = pickle.loads(pickle.dumps(resolve_model(name, shape, 7)))
    model = factory()
    check_model(model)
    assert model(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize(("name", "parameters"), [("linear", 650), ("mlp", 9610), ("cnn", 31050)])
def test_the_built_in_models_have_their_size(name: str, parameters: int) -> None:
    model = resolve_model(name, (1, 8, 8), 10)()
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("shape", [(64,), (1, 3, 8), (1, 8, 3)])
def test_cnn_needs_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"model cnn needs inputs of shape \(C, H, W\) .*; try mlp$"):
        resolve_model("cnn", shape, 10)


def test_an_unknown_name_is_refused() -> None:
    expected = "model must be one of cnn, linear, mlp, my.pkg:factory, got "
    assert refusal("resnet") == expected + "'resnet'"
    assert refusal("lniear") == expected + "'lniear'; did you mean linear?"
    assert refusal(":factory") == "model must be my.pkg:attribute, got ':factory'"
    assert refusal("package:") == "model must be my.pkg:attribute, got 'package:'"


def test_own_factories_are_called_with_what_they_take(own_models: str) -> None:
    made = [resolve_model(f"{own_models}:{name}", (8,), 10)() for name in ("plain", "shaped", "optional", "Net")]
    sizes = [next(model.parameters()).shape for model in made]
    assert sizes == [(3, 2), (10, 8), (1, 4), (6, 5)]


def test_own_factories_can_be_pickled(own_models: str) -> None:
    model = pickle.loads(pickle.dumps(resolve_model(f"{own_models}:shaped", (8,), 10)))()
    assert isinstance(model, nn.Linear)


def test_what_can_not_be_imported_is_named(own_models: str) -> None:
    assert refusal("absent_models:make") == (
        "model absent_models:make: can not import absent_models (ModuleNotFoundError: No module named 'absent_models')"
    )
    assert refusal("broken_models:make") == (
        "model broken_models:make: can not import broken_models (ZeroDivisionError: division by zero)"
    )
    assert refusal(f"{own_models}:make") == "model own_models:make: module own_models has no attribute 'make'"


def test_what_is_no_factory_is_refused(own_models: str) -> None:
    expected = "model own_models:model must be a function or class that makes the model, got Linear"
    assert refusal(f"{own_models}:model") == expected
    assert refusal(f"{own_models}:functools") == "model own_models:functools must be a function or class, got module"


def test_a_factory_with_other_arguments_is_refused(own_models: str) -> None:
    expected = "model own_models:other must take no arguments, or shape and outputs, got (width)"
    assert refusal(f"{own_models}:other") == expected


def frozen() -> nn.Module:
    return nn.Linear(1, 1).requires_grad_(False)


def sparse(name: str) -> str:
    return f"model: parameter {name} has sparse gradients, but shards hold dense ones; make its layer with sparse=False"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Embedding(3, 2, sparse=True), sparse("weight")),
        (nn.Sequential(nn.Embedding(3, 2), nn.Sequential(nn.EmbeddingBag(3, 2, sparse=True))), sparse("1.0.weight")),
        ("text", "model: the factory must return a torch.nn.Module, got str"),
        (nn.ReLU(), "model: ReLU must have at least one parameter to train, got none"),
        (frozen(), "model: Linear must have at least one parameter to train, got none that requires a gradient"),
        (
            nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1).double()),
            "model: parameter 1.weight must be float32, got torch.float64; "
            "call .float() in the factory, and use precision bf16 to compute in less",
        ),
        (
            nn.Linear(1, 1, dtype=torch.complex64),
            "model: parameter weight must be float32, got torch.complex64; "
            "call .float() in the factory, and use precision bf16 to compute in less",
        ),
        (
            nn.LazyLinear(1),
            "model: parameter weight is not initialized; run the lazy module on one batch in the factory",
        ),
    ],
)
def test_a_model_that_can_not_be_trained_is_refused(model: object, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_model(model)
    assert str(caught.value) == message


def test_a_table_that_is_frozen_has_no_gradients_that_could_be_sparse() -> None:
    check_model(nn.Sequential(nn.Embedding(3, 2, sparse=True).requires_grad_(False), nn.Linear(2, 1)))
    check_model(nn.Embedding(3, 2))
