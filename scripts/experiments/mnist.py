"""MNIST for the experiments that train on it, and their model."""

from pathlib import Path

import torch

from psgd.data.datasets import Split, load
from psgd.errors import DataError
from scripts.experiments.results import tell


def make_mlp(units: type[torch.nn.Module] = torch.nn.ReLU) -> torch.nn.Module:
    """(B, 1, 28, 28) to (B, 10), with 64 units between."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), units(), torch.nn.Linear(64, 10))


def load_if_there(folder: Path, name: str) -> Split | None:
    """The data set; None, and a line that says so, if it is not in the folder.

    Args:
        name: of the experiment that is skipped then.
    """
    try:
        return load("mnist", folder)
    except DataError as error:
        tell(f"{name} is skipped: {error}")
        return None
