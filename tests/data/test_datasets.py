import gzip
import hashlib
import struct
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from psgd.data.datasets import load, load_digits
from psgd.errors import ConfigurationError, DataError


def write_idx(path: Path, elements: Tensor) -> None:
    header = bytes((0, 0, 8, elements.dim())) + struct.pack(f">{elements.dim()}I", *elements.shape)
    content = header + bytes(elements.to(torch.uint8).flatten().tolist())
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    """A tiny data set in MNIST's files: 3 samples to train with, 2 to test with."""
    for part, samples in (("train", 3), ("t10k", 2)):
        images = torch.full((samples, 28, 28), 255)
        images[:, 0, 0] = 0
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", torch.arange(samples) + 7)
    return tmp_path


def test_digits_are_the_original_ones() -> None:
    content = resources.files("psgd.data").joinpath("digits.csv.gz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
    images, labels = load_digits()
    assert (images.shape, images.dtype) == ((1797, 8, 8), torch.uint8)
    assert (labels.shape, labels.dtype) == ((1797,), torch.int64)
    assert images.sum() == 561_718
    assert images.max() == 16
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert labels.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_split_once_and_for_all() -> None:
    split = load("digits")
    assert (len(split.train), len(split.test), split.classes, split.shape) == (1437, 360, 10, (1, 8, 8))
    train_inputs, train_labels = split.train.batch(torch.arange(1437))
    test_inputs, test_labels = split.test.batch(torch.arange(360))
    assert train_labels[:10].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5]
    assert test_labels.bincount().tolist() == [31, 35, 39, 33, 44, 29, 40, 40, 28, 41]
    drawn = torch.cat([train_inputs, test_inputs])
    assert np.unique(drawn.numpy(), axis=0).shape == (1797, 1, 8, 8)  # no image is there twice, and none in both parts


def test_train_inputs_are_standardized() -> None:
    inputs, _ = load("digits").train.batch(torch.arange(1437))
    assert inputs.dtype == torch.float32
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3


def test_a_batch_is_the_stack_of_its_samples() -> None:
    train = load("digits").train
    inputs, labels = train.batch(torch.tensor([5, 0, 5]))
    assert inputs.shape == (3, 1, 8, 8)
    for row, index in enumerate((5, 0, 5)):
        image, label = train[index]
        assert torch.equal(inputs[row], image)
        assert labels[row] == label


def test_torchs_own_loader_takes_the_data_sets() -> None:
    inputs, labels = next(iter(DataLoader(load("digits").test, batch_size=4)))
    assert inputs.shape == (4, 1, 8, 8)
    assert labels.shape == (4,)


def test_mnist_is_read_from_its_four_files(mnist_dir: Path) -> None:
    split = load("mnist", mnist_dir)
    assert (len(split.train), len(split.test), split.classes, split.shape) == (3, 2, 10, (1, 28, 28))
    image, label = split.test[1]
    assert label == 8
    assert image.shape == (1, 28, 28)
    assert image[0, 0, 0].item() == pytest.approx((0 - 0.1307) / 0.3081)
    assert image[0, 0, 1].item() == pytest.approx((1 - 0.1307) / 0.3081)


def test_files_need_not_be_gzipped(mnist_dir: Path) -> None:
    for path in mnist_dir.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(load("fashion-mnist", str(mnist_dir)).train) == 3


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^data digits needs no folder, got data_dir somewhere; is data"):
        load("digits", "somewhere")
    with pytest.raises(ConfigurationError, match=r"^data must be one of digits, mnist, fashion-mnist, got 'x'$"):
        load("x")


def test_mnist_needs_a_folder() -> None:
    with pytest.raises(ConfigurationError, match=r"^data mnist needs the folder .*, got none; .* --data-dir$"):
        load("mnist")


def test_a_missing_file_is_named(mnist_dir: Path) -> None:
    path = mnist_dir / "t10k-labels-idx1-ubyte.gz"
    path.unlink()
    with pytest.raises(DataError, match=rf"^{path}: expected the original IDX file, .* --data-dir$"):
        load("mnist", mnist_dir)


def test_images_of_another_size_are_refused(mnist_dir: Path) -> None:
    path = mnist_dir / "train-images-idx3-ubyte.gz"
    write_idx(path, torch.zeros(3, 28, 27))
    with pytest.raises(DataError, match=rf"^{path}: expected images of 28 x 28, found 28 x 27$"):
        load("mnist", mnist_dir)


def test_as_many_labels_as_images_are_needed(mnist_dir: Path) -> None:
    path = mnist_dir / "train-labels-idx1-ubyte.gz"
    write_idx(path, torch.zeros(4))
    with pytest.raises(DataError, match=rf"^{path}: expected 3 labels, one an image, found 4$"):
        load("mnist", mnist_dir)


def test_labels_out_of_range_are_refused(mnist_dir: Path) -> None:
    path = mnist_dir / "train-labels-idx1-ubyte.gz"
    write_idx(path, torch.tensor([0, 10, 1]))
    with pytest.raises(DataError, match=rf"^{path}: expected labels from 0 to 9, found 10$"):
        load("mnist", mnist_dir)


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_original_files_are_read(name: str, shared_data: Path) -> None:
    split = load(name, shared_data / name)
    assert (len(split.train), len(split.test)) == (60_000, 10_000)
    inputs, _ = split.train.batch(torch.arange(60_000))
    _, test_labels = split.test.batch(torch.arange(10_000))
    assert abs(float(inputs.mean())) < 1e-3
    assert abs(float(inputs.std()) - 1) < 1e-3
    assert (
        test_labels.bincount().tolist()
        == {
            "mnist": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
            "fashion-mnist": [1000] * 10,
        }[name]
    )
