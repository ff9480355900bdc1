"""One trial of the sweep: an epoch of a small network on MNIST, and what it saw of its start."""

import argparse
import gzip
import json
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def load(folder: str, part: str, count: int) -> "tuple[Any, Any]":
    """Images as rows of numbers up to 1, and labels."""
    import numpy as np

    def numbers(kind: str, offset: int) -> "Any":
        with gzip.open(Path(folder, f"{part}-{kind}-ubyte.gz")) as source:
            return np.frombuffer(source.read(), np.uint8, offset=offset)

    images = numbers("images-idx3", 16).reshape(-1, 784)[:count].astype("float32") / 255
    return images, numbers("labels-idx1", 8)[:count].astype("int64")


def train(data: str, images: int, batch: int, neurons: int, rate: float) -> dict[str, float]:
    """Train for an epoch; its accuracy, the time of its first step, its memory while training."""
    x, y = load(data, "train", images)
    test = load(data, "t10k", 10_000)
    import keras

    seen: dict[str, float] = {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            seen.setdefault("first_step", time.monotonic())

        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            with Path("/proc/self/smaps_rollup").open() as source:
                (line,) = [line for line in source if line.startswith("Pss:")]
            seen["pss_mib"] = int(line.split()[1]) / 1024

    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(neurons, activation="relu"),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=batch, epochs=1, verbose=0, callbacks=[Look()])
    seen["accuracy"] = float(model.evaluate(*test, batch_size=500, verbose=0)[1])
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--neurons", type=int, default=300)
    parser.add_argument("--rate", type=float, default=0.001)
    print(json.dumps(train(**vars(parser.parse_args()))), flush=True)
