from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from psgd.errors import ConfigurationError, DataError
from psgd.training.warm_start import apply_weights, load_weights


class Tied(nn.Module):
    """A model that holds one tensor under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Linear(2, 2, bias=False)
        self.head = nn.Linear(2, 2, bias=False)
        self.head.weight = self.embedding.weight


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def refusal(model: nn.Module, weights: dict[str, Tensor]) -> str:
    before = weights_of(model)
    with pytest.raises(ConfigurationError) as caught:
        apply_weights(model, weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(caught.value)


def test_a_state_dict_goes_from_one_model_to_another() -> None:
    source, target = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source(torch.arange(6.0).view(2, 3))
    apply_weights(target, load_weights(source.state_dict()))
    assert target.num_batches_tracked == 1
    assert torch.equal(target.state_dict()["running_mean"], source.state_dict()["running_mean"])


def test_weights_are_read_from_safetensors(tmp_path: Path) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    apply_weights(target, load_weights(str(tmp_path / "model.safetensors")))
    assert torch.equal(target.weight, source.weight)
    assert torch.equal(target.bias, source.bias)


def test_of_a_tied_tensor_one_name_is_enough(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    save_model(source, str(tmp_path / "model.safetensors"))
    weights = load_weights(tmp_path / "model.safetensors")
    assert len(weights) == 1
    apply_weights(target, weights)
    assert torch.equal(target.head.weight, source.head.weight)
    assert target.head.weight is target.embedding.weight


def test_pickled_files_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(1, 1).state_dict(), path)
    with pytest.raises(ConfigurationError) as caught:
        load_weights(path)
    assert str(caught.value) == (
        f"weights must be a state_dict or a .safetensors file, got {path}; "
        "convert it with safetensors.torch.save_file(model.state_dict(), ...)"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    with pytest.raises(ConfigurationError, match=rf"^weights: can not read {path}: "):
        load_weights(path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(nn.Linear(2, 3).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"^{path}: expected a safetensors file, found a damaged one \(.*\); save it"):
        load_weights(path)


def test_a_state_dict_holds_tensors_only() -> None:
    with pytest.raises(ConfigurationError, match=r"^weights: model must be a tensor, got dict$"):
        load_weights({"model": {}})  # type: ignore[dict-item]  # a whole checkpoint, as users pass it


def test_weights_that_do_not_fit_are_named() -> None:
    weights = {"weight": torch.zeros(3, 2), "scale": torch.zeros(1)}
    assert refusal(nn.Linear(3, 2), weights) == (
        "weights must fit the model Linear, got missing: bias; unexpected: scale; "
        "wrong shape: weight (3, 2) instead of (2, 3)"
    )


def test_a_long_list_of_names_is_shortened() -> None:
    unexpected = {f"x{index}": torch.zeros(1) for index in range(7)}
    assert refusal(nn.Linear(1, 1), {**weights_of(nn.Linear(1, 1)), **unexpected}) == (
        "weights must fit the model Linear, got unexpected: x0, x1, x2, x3, x4 and 2 more"
    )
