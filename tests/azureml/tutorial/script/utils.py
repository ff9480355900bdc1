"""Reads the gzipped files of MNIST."""

import gzip
import struct

import numpy as np


def load_data(filename, label=False):
    """Images as rows of floats, or labels as one column."""
    with gzip.open(filename) as gz:
        struct.unpack(">I", gz.read(4))
        count = struct.unpack(">I", gz.read(4))[0]
        if label:
            return np.frombuffer(gz.read(count), dtype=np.uint8).reshape(count, 1)
        rows, columns = struct.unpack(">II", gz.read(8))
        read = np.frombuffer(gz.read(count * rows * columns), dtype=np.uint8)
        return read.reshape(count, rows * columns)


def one_hot_encode(array, num_of_classes):
    """A row of zeros and a one for each label."""
    return np.eye(num_of_classes)[array.reshape(-1)]
