import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from psgd.data.idx import read_idx
from psgd.errors import DataError

IMAGES = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2, 1, 3) + bytes(range(6))

Write = Callable[[bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes bytes as they are."""

    def write(content: bytes) -> Path:
        path = tmp_path / "images"
        path.write_bytes(content)
        return path

    return write


@pytest.fixture
def write_gz(tmp_path: Path) -> Write:
    """Writes bytes gzipped."""

    def write_gz(content: bytes) -> Path:
        path = tmp_path / "images.gz"
        path.write_bytes(gzip.compress(content))
        return path

    return write_gz


def refusal(path: Path, dimensions: int = 3) -> str:
    with pytest.raises(DataError) as caught:
        read_idx(path, dimensions)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_elements_come_in_the_shape_of_the_header(write: Write, write_gz: Write) -> None:
    expected = torch.tensor([[[0, 1, 2]], [[3, 4, 5]]], dtype=torch.uint8)
    for path in (write(IMAGES), write_gz(IMAGES)):
        elements = read_idx(path, 3)
        assert elements.dtype == torch.uint8
        assert torch.equal(elements, expected)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    expected = "expected an IDX file, found no file; download the original file again"
    assert refusal(tmp_path / "absent") == expected
    assert refusal(tmp_path / "absent.gz") == expected


def test_another_magic_number_is_refused(write: Write) -> None:
    assert refusal(write(b"\x89PNG" + IMAGES)) == (
        "expected magic number 0x00000803 (unsigned bytes, 3 dimensions), found 0x89504e47; "
        "download the original file again"
    )


def test_another_element_type_is_refused(write: Write) -> None:
    assert "found 0x00000d03" in refusal(write(bytes((0, 0, 0x0D, 3)) + IMAGES[4:]))


def test_another_number_of_dimensions_is_refused(write: Write) -> None:
    assert "expected magic number 0x00000801 (unsigned bytes, 1 dimensions), found 0x00000803" in refusal(
        write(IMAGES), dimensions=1
    )


def test_an_empty_file_is_refused(write: Write, write_gz: Write) -> None:
    assert "found an empty file" in refusal(write(b""))
    assert "found an empty file" in refusal(write_gz(b""))


def test_a_header_without_all_its_sizes_is_refused(write: Write) -> None:
    assert "expected 3 sizes of 4 bytes, found 10 bytes" in refusal(write(IMAGES[:14]))


def test_a_size_of_zero_is_refused(write: Write) -> None:
    assert "expected sizes >= 1, found 0 x 1 x 3" in refusal(write(bytes((0, 0, 8, 3)) + struct.pack(">3I", 0, 1, 3)))


def test_truncated_data_is_refused(write: Write, write_gz: Write) -> None:
    assert "expected 6 bytes of data (2 x 1 x 3), found 5" in refusal(write(IMAGES[:-1]))
    assert "expected 6 bytes of data (2 x 1 x 3), found 5" in refusal(write_gz(IMAGES[:-1]))


def test_a_truncated_gzip_stream_is_refused(write_gz: Write) -> None:
    path = write_gz(IMAGES)
    path.write_bytes(path.read_bytes()[:-9])
    assert "expected a whole gzip stream, found a truncated one" in refusal(path)


def test_trailing_bytes_are_refused(write: Write, write_gz: Write) -> None:
    assert "expected 6 bytes of data (2 x 1 x 3), found more" in refusal(write(IMAGES + b"\0"))
    assert "expected 6 bytes of data (2 x 1 x 3), found more" in refusal(write_gz(IMAGES + b"\0"))


def test_a_damaged_gzip_stream_is_refused(write_gz: Write) -> None:
    path = write_gz(IMAGES)
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum
    path.write_bytes(content)
    assert "expected a gzip stream, found something else (CRC check failed" in refusal(path)


def test_a_file_that_is_not_gzipped_is_refused_under_a_gzip_name(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(IMAGES)
    assert "found something else (Not a gzipped file" in refusal(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "expected a readable IDX file, found: Is a directory"


def test_a_header_that_declares_more_than_the_file_can_hold_is_refused_before_allocation(
    write: Write, write_gz: Write
) -> None:
    header = bytes((0, 0, 8, 3)) + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1)
    for path in (write(header), write_gz(header)):
        assert "which can not hold them" in refusal(path)  # 2**96 bytes could not be allocated
