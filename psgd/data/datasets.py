"""The built-in data sets: digits and diabetes, which ship with psgd; MNIST and Fashion-MNIST from their own files."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from psgd.data.idx import read_idx
from psgd.errors import ConfigurationError, DataError

CLASSES = 10  # of every built-in data set of images
DIGITS_TRAIN = 1437
DIABETES_TRAIN = 353
PERMUTATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """How pixels become inputs: divided by ``maximum``, then standardized with the train set's moments."""

    maximum: float
    mean: float
    std: float

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images, uint8, into inputs of the same shape, float32."""
        return images.to(torch.float32).div_(self.maximum).sub_(self.mean).div_(self.std)


@dataclass(frozen=True, slots=True)
class Moments:
    """How columns are standardized: each by its mean and its standard deviation, float64 (columns,)."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, table: Tensor) -> "Moments":
        """Those of a table, float64 (N, columns); the deviation divides by N."""
        return cls(table.mean(dim=0), table.std(dim=0, correction=0))

    def __call__(self, rows: Tensor) -> Tensor:
        """Turn rows, float64 (..., columns), into rows of mean 0 and deviation 1, float32."""
        return ((rows - self.mean) / self.std).to(torch.float32)


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """A map-style data set of inputs and targets that are held in memory as they are stored.

    Items are pairs of an input and its target: for images float32 (C, H, W) and a label, int64 (); for tables
    float32 (columns,) and float32 (1,). ``batch`` gathers many at once.
    """

    def __init__(self, stored: Tensor, targets: Tensor, scale: Callable[[Tensor], Tensor]) -> None:
        """Hold what inputs are made of, (N, ...), and targets, (N, ...); ``scale`` makes inputs as they are drawn."""
        self._stored = stored
        self._targets = targets
        self._scale = scale

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample: its input and its target."""
        return self._scale(self._stored[index]), self._targets[index]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at ``indices``, int64 (B,): inputs and targets, each with B in front."""
        return self._scale(self._stored.index_select(0, indices)), self._targets.index_select(0, indices)

    def subset(self, indices: Tensor) -> "ArrayDataset":
        """A data set of the samples at ``indices``, int64 (B,), in that order."""
        return ArrayDataset(self._stored[indices], self._targets[indices], self._scale)


@dataclass(frozen=True, slots=True)
class Split:
    """A data set that is divided into samples to train with and samples to test with.

    Attributes:
        outputs: what a model makes of one input: a score for each class, or one number for each target.
        shape: of one input: (C, H, W) of images, (columns,) of a table.
        regression: targets are numbers to come near to, float32 (outputs,); otherwise they are classes.
    """

    train: ArrayDataset
    test: ArrayDataset
    outputs: int
    shape: tuple[int, ...]
    regression: bool = False


def load(name: str, data_dir: Path | str | None = None) -> Split:
    """Load a built-in data set.

    Args:
        name: ``digits``, ``diabetes``, ``mnist`` or ``fashion-mnist``.
        data_dir: the folder with the four original IDX files, gzipped or not; the first two need none.

    Raises:
        ConfigurationError: the name is unknown, or the data set needs a folder and got none, or the other way round.
        DataError: a file is missing, damaged or of another kind.

    Example:
        >>> split = load("digits")
        >>> len(split.train), len(split.test), split.outputs, split.shape
        (1437, 360, 10, (1, 8, 8))
    """
    if name not in DATASETS:
        raise ConfigurationError(f"data must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name](None if data_dir is None else Path(data_dir))


def load_digits() -> tuple[Tensor, Tensor]:
    """The 1797 digits that ship with psgd: images, uint8 (1797, 8, 8), 0 to 16, and labels, int64 (1797,)."""
    table = _read_table("digits.csv.gz", np.uint8)
    return table[:, :64].reshape(-1, 8, 8).contiguous(), table[:, 64].to(torch.int64)


def load_diabetes() -> tuple[Tensor, Tensor]:
    """The 442 patients that ship with psgd: features, float64 (442, 10), and progression, float64 (442, 1)."""
    table = _read_table("diabetes.csv.gz", np.float64)
    return table[:, :10].contiguous(), table[:, 10:].contiguous()


def _read_table(name: str, dtype: type[np.generic]) -> Tensor:
    file = resources.files("psgd.data").joinpath(name)
    with file.open("rb") as compressed, gzip.open(compressed, "rt", encoding="ascii") as lines:
        return torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=dtype))


def _divide(samples: int, train: int) -> tuple[Tensor, Tensor]:
    """The samples to train with, ``permutation[:train]``, and the others.

    The permutation is ``numpy.random.RandomState(0).permutation(samples)``, whose stream numpy has frozen: the
    split is the same with every version of numpy and torch.
    """
    permutation = torch.from_numpy(np.random.RandomState(PERMUTATION_SEED).permutation(samples))
    return permutation[:train], permutation[train:]


def _digits(data_dir: Path | None) -> Split:
    _refuse_folder("digits", data_dir)
    images, labels = load_digits()
    scale = Scale(maximum=16, mean=0.3054, std=0.3759)
    train, test = (
        ArrayDataset(images[part].unsqueeze(1), labels[part], scale) for part in _divide(len(labels), DIGITS_TRAIN)
    )
    return Split(train, test, CLASSES, (1, 8, 8))


def _diabetes(data_dir: Path | None) -> Split:
    """Inputs and targets are standardized with the train set's moments.

    R² is the same as of the progression itself; an RMSE times the targets' deviation (75.5) is in its units.
    """
    _refuse_folder("diabetes", data_dir)
    features, progression = load_diabetes()
    train, test = _divide(len(features), DIABETES_TRAIN)
    scale, scale_targets = Moments.of(features[train]), Moments.of(progression[train])
    parts = [ArrayDataset(features[part], scale_targets(progression[part]), scale) for part in (train, test)]
    return Split(parts[0], parts[1], outputs=1, shape=(10,), regression=True)


def _refuse_folder(name: str, data_dir: Path | None) -> None:
    if data_dir is not None:
        raise ConfigurationError(f"data {name} needs no folder, got data_dir {data_dir}; is data to be another one?")


def _mnist(name: str, scale: Scale, data_dir: Path | None) -> Split:
    if data_dir is None:
        raise ConfigurationError(f"data {name} needs the folder of its IDX files, got none; give it with --data-dir")
    train, test = (_read_part(data_dir, part, scale) for part in ("train", "t10k"))
    return Split(train, test, CLASSES, (1, 28, 28))


def _read_part(data_dir: Path, part: str, scale: Scale) -> ArrayDataset:
    images_path = _find(data_dir, f"{part}-images-idx3-ubyte")
    labels_path = _find(data_dir, f"{part}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, dimensions=3), read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{images_path}: expected images of 28 x 28, found {' x '.join(map(str, images.shape[1:]))}")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: expected {len(images)} labels, one an image, found {len(labels)}")
    if labels.max() >= CLASSES:
        raise DataError(f"{labels_path}: expected labels from 0 to {CLASSES - 1}, found {int(labels.max())}")
    return ArrayDataset(images.unsqueeze(1), labels.to(torch.int64), scale)


def _find(data_dir: Path, name: str) -> Path:
    for path in (data_dir / f"{name}.gz", data_dir / name):
        if path.is_file():
            return path
    raise DataError(
        f"{data_dir / name}.gz: expected the original IDX file, gzipped or not, found no file; "
        "download it or give its folder with --data-dir"
    )


DATASETS: dict[str, Callable[[Path | None], Split]] = {
    "digits": _digits,
    "diabetes": _diabetes,
    "mnist": partial(_mnist, "mnist", Scale(maximum=255, mean=0.1307, std=0.3081)),
    "fashion-mnist": partial(_mnist, "fashion-mnist", Scale(maximum=255, mean=0.2860, std=0.3530)),
}
