"""MNIST for the experiments that train on it, and their model."""

from pathlib import Path

import torch

from psgd.data.datasets import Split, load
from psgd.errors import DataError
from scripts.experiments.results import tell


def make_mlp() -> torch.nn.Module:
    """(B, 1, 28, 28) to (B, 10), with 64 between."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))


def make_tanh_mlp() -> torch.nn.Module:
    """The same with units that can not die: a rectified one whose input a few wild steps push below 0 stays there."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))


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
