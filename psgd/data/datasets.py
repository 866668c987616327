"""The built-in data sets: digits, which ships with psgd; MNIST and Fashion-MNIST from their own files."""

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

CLASSES = 10  # of every built-in data set
DIGITS_TRAIN = 1437
DIGITS_PERMUTATION_SEED = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """How pixels become inputs: divided by ``maximum``, then standardized with the train set's moments."""

    maximum: float
    mean: float
    std: float

    def __call__(self, images: Tensor) -> Tensor:
        """Turn images, uint8, into inputs of the same shape, float32."""
        return images.to(torch.float32).div_(self.maximum).sub_(self.mean).div_(self.std)


class ArrayDataset(Dataset[tuple[Tensor, Tensor]]):
    """A map-style data set of images and labels that are held in memory as bytes.

    Items are pairs of an image, float32 (C, H, W), and its label, int64 (). ``batch`` gathers many at once.
    """

    def __init__(self, images: Tensor, labels: Tensor, scale: Scale) -> None:
        """Hold images, uint8 (N, C, H, W), and labels, int64 (N,)."""
        self._images = images
        self._labels = labels
        self._scale = scale

    def __len__(self) -> int:
        """The number of samples."""
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """One sample: its image, float32 (C, H, W), and its label, int64 ()."""
        return self._scale(self._images[index]), self._labels[index]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The samples at ``indices``, int64 (B,): images, float32 (B, C, H, W), and labels, int64 (B,)."""
        return self._scale(self._images.index_select(0, indices)), self._labels.index_select(0, indices)


@dataclass(frozen=True, slots=True)
class Split:
    """A data set that is divided into samples to train with and samples to test with.

    ``classes`` is the number of labels; ``shape`` is that of one input, (C, H, W).
    """

    train: ArrayDataset
    test: ArrayDataset
    classes: int
    shape: tuple[int, int, int]


def load(name: str, data_dir: Path | str | None = None) -> Split:
    """Load a built-in data set.

    Args:
        name: ``digits``, ``mnist`` or ``fashion-mnist``.
        data_dir: the folder with the four original IDX files, gzipped or not; ``digits`` needs none.

    Raises:
        ConfigurationError: the name is unknown, or the data set needs a folder and got none, or the other way round.
        DataError: a file is missing, damaged or of another kind.

    Example:
        >>> split = load("digits")
        >>> len(split.train), len(split.test), split.classes, split.shape
        (1437, 360, 10, (1, 8, 8))
    """
    if name not in DATASETS:
        raise ConfigurationError(f"data must be one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name](None if data_dir is None else Path(data_dir))


def load_digits() -> tuple[Tensor, Tensor]:
    """The 1797 digits that ship with psgd: images, uint8 (1797, 8, 8), 0 to 16, and labels, int64 (1797,)."""
    file = resources.files("psgd.data").joinpath("digits.csv.gz")
    with file.open("rb") as compressed, gzip.open(compressed, "rt", encoding="ascii") as lines:
        table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))
    return table[:, :64].reshape(-1, 8, 8).contiguous(), table[:, 64].to(torch.int64)


def _digits(data_dir: Path | None) -> Split:
    """Samples ``permutation[:1437]`` train and the other 360 test.

    The permutation is ``numpy.random.RandomState(0).permutation(1797)``, whose stream numpy has frozen: the
    split is the same with every version of numpy and torch.
    """
    if data_dir is not None:
        raise ConfigurationError(f"data digits needs no folder, got data_dir {data_dir}; is data to be another one?")
    images, labels = load_digits()
    permutation = torch.from_numpy(np.random.RandomState(DIGITS_PERMUTATION_SEED).permutation(len(labels)))
    scale = Scale(maximum=16, mean=0.3054, std=0.3759)
    train, test = (
        ArrayDataset(images[part].unsqueeze(1), labels[part], scale)
        for part in (permutation[:DIGITS_TRAIN], permutation[DIGITS_TRAIN:])
    )
    return Split(train, test, CLASSES, (1, 8, 8))


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
    "mnist": partial(_mnist, "mnist", Scale(maximum=255, mean=0.1307, std=0.3081)),
    "fashion-mnist": partial(_mnist, "fashion-mnist", Scale(maximum=255, mean=0.2860, std=0.3530)),
}
