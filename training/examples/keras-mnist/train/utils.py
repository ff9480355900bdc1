"""Reading MNIST: the IDX files, wherever they lie below a folder."""

import gzip
import struct
from pathlib import Path

import numpy as np

LABELS = [str(digit) for digit in range(10)]


def find(folder: str, name: str) -> Path:
    """The one file called ``name`` somewhere below ``folder``."""
    found = sorted(Path(folder).glob(f"**/{name}"))
    if not found:
        raise SystemExit(f"--data-folder: there is no {name} below {folder}")
    return found[0]


def read_idx(path: Path) -> np.ndarray:
    """The array in one gzip-compressed IDX file of bytes."""
    with gzip.open(path) as file:
        zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
        if zeros != 0 or kind != 8:
            raise SystemExit(f"{path} is no IDX file of bytes")
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return np.frombuffer(file.read(), dtype=np.uint8).reshape(shape)


def load(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images as rows of 784 values from 0 to 1, and labels, of ``train`` or ``t10k``."""
    images = read_idx(find(folder, f"{part}-images-idx3-ubyte.gz"))
    labels = read_idx(find(folder, f"{part}-labels-idx1-ubyte.gz"))
    return images.reshape(len(images), -1).astype("float32") / 255.0, labels.astype("int64")
