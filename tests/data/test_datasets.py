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

from psgd.data.datasets import Moments, load, load_diabetes, load_digits
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
    assert (len(split.train), len(split.test), split.outputs, split.shape) == (1437, 360, 10, (1, 8, 8))
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


def test_diabetes_is_the_original_one() -> None:
    content = resources.files("psgd.data").joinpath("diabetes.csv.gz").read_bytes()
    assert hashlib.sha256(content).hexdigest() == "20144a723972df71b229f4239cbb99f52c295cb3d2b901e10663fd8e278e6d2e"
    features, progression = load_diabetes()
    assert features[0].tolist() == [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87]
    assert (features.shape, progression.shape) == ((442, 10), (442, 1))
    assert progression[:3, 0].tolist() == [151, 75, 141]
    assert (float(progression.min()), float(progression.max())) == (25, 346)
    assert progression.sum() == 67_243


def test_diabetes_is_a_regression_that_is_split_once_and_for_all() -> None:
    split = load("diabetes")
    assert (len(split.train), len(split.test)) == (353, 89)
    assert (split.outputs, split.shape, split.regression) == (1, (10,), True)
    drawn = torch.cat([part.batch(torch.arange(len(part)))[0] for part in (split.train, split.test)])
    assert np.unique(drawn.numpy(), axis=0).shape == (442, 10)
    assert not load("digits").regression


def test_a_table_is_standardized_by_what_it_is_trained_with() -> None:
    split = load("diabetes")
    inputs, targets = split.train.batch(torch.arange(353))
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.float32)
    assert (inputs.shape, targets.shape) == ((353, 10), (353, 1))
    for columns in (inputs, targets):
        torch.testing.assert_close(columns.mean(dim=0), torch.zeros(columns.shape[1]), atol=1e-6, rtol=0)
        torch.testing.assert_close(columns.std(dim=0, correction=0), torch.ones(columns.shape[1]))
    _, test_targets = split.test.batch(torch.arange(89))
    _, progression = load_diabetes()
    restored = test_targets.double() * 75.5329 + 152.0737
    assert set(restored.round().flatten().tolist()) <= set(progression.flatten().tolist())


def test_moments_are_those_of_the_columns() -> None:
    moments = Moments.of(torch.tensor([[1.0, 0.0], [3.0, 4.0]], dtype=torch.float64))
    assert moments(torch.tensor([3.0, -2.0])).tolist() == [1.0, -2.0]


def test_the_best_line_explains_half_of_diabetes() -> None:
    split = load("diabetes")
    (inputs, targets), (test_inputs, test_targets) = (
        part.batch(torch.arange(len(part))) for part in (split.train, split.test)
    )
    line = torch.linalg.lstsq(inputs, targets).solution
    unexplained = (test_inputs @ line - test_targets).square().sum() / (
        test_targets - test_targets.mean()
    ).square().sum()
    assert 1 - float(unexplained) == pytest.approx(0.595, abs=1e-3)


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
    assert (len(split.train), len(split.test), split.outputs, split.shape) == (3, 2, 10, (1, 28, 28))
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
    with pytest.raises(ConfigurationError, match=r"^data diabetes needs no folder"):
        load("diabetes", "somewhere")
    with pytest.raises(
        ConfigurationError, match=r"^data must be one of digits, diabetes, mnist, fashion-mnist, got 'x'$"
    ):
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
