"""The IDX format of the original MNIST files: a magic number, the sizes, the elements.

Two zero bytes, a byte for the element type, a byte for the number of dimensions, one big-endian uint32 a
dimension, then the elements in row-major order (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import torch
from torch import Tensor

from psgd.errors import DataError

UNSIGNED_BYTE = 0x08  # the only element type that image and label files use
LARGEST_DEFLATE_RATIO = 1032  # zlib's upper bound of what one compressed byte can become
REMEDY = "download the original file again"


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of unsigned bytes, gzipped if its name ends in ``.gz``.

    The size that the header declares is compared with the size of the file before memory is taken for it.

    Args:
        path: the file.
        dimensions: how many dimensions the file must have (images: 3, labels: 1).

    Returns:
        The elements, uint8, in the shape of the header.

    Raises:
        DataError: the file is missing, truncated, too long, or no IDX file of unsigned bytes with as many
            dimensions.
    """
    try:
        with _open(path) as stream:
            shape = _read_header(path, stream, dimensions)
            return _read_elements(path, stream, shape)
    except FileNotFoundError:
        raise DataError(f"{path}: expected an IDX file, found no file; {REMEDY}") from None
    except EOFError:
        raise DataError(f"{path}: expected a whole gzip stream, found a truncated one; {REMEDY}") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: expected a gzip stream, found something else ({error}); {REMEDY}") from None
    except OSError as error:
        raise DataError(f"{path}: expected a readable IDX file, found: {error.strerror}") from None


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")


def _read_header(path: Path, stream: IO[bytes], dimensions: int) -> tuple[int, ...]:
    magic = stream.read(4)
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if magic != expected:
        raise DataError(
            f"{path}: expected magic number 0x{expected.hex()} (unsigned bytes, {dimensions} dimensions), "
            f"found {'0x' + magic.hex() if magic else 'an empty file'}; {REMEDY}"
        )
    sizes = stream.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: expected {dimensions} sizes of 4 bytes, found {len(sizes)} bytes; {REMEDY}")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if 0 in shape:
        raise DataError(f"{path}: expected sizes >= 1, found {_times(shape)}; {REMEDY}")
    return shape


def _read_elements(path: Path, stream: IO[bytes], shape: tuple[int, ...]) -> Tensor:
    declared = math.prod(shape)
    on_disk = path.stat().st_size
    possible = on_disk * LARGEST_DEFLATE_RATIO if path.suffix == ".gz" else on_disk
    if declared > possible:
        raise DataError(
            f"{path}: expected {declared} bytes of data ({_times(shape)}), "
            f"found a file of {on_disk} bytes, which can not hold them; {REMEDY}"
        )
    elements = bytearray(declared)
    found = _read_into(stream, elements)
    if found < declared:
        raise DataError(f"{path}: expected {declared} bytes of data ({_times(shape)}), found {found}; {REMEDY}")
    if stream.read(1):  # reading to the end also makes gzip compare its checksum
        raise DataError(f"{path}: expected {declared} bytes of data ({_times(shape)}), found more; {REMEDY}")
    return torch.frombuffer(elements, dtype=torch.uint8).view(shape)


def _read_into(stream: IO[bytes], buffer: bytearray) -> int:
    """Fill the buffer from the stream as far as that goes; how many bytes it got."""
    view, position = memoryview(buffer), 0
    while position < len(buffer):
        chunk = stream.read(min(1 << 20, len(buffer) - position))
        if not chunk:
            break
        view[position : position + len(chunk)] = chunk
        position += len(chunk)
    return position


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
