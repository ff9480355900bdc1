"""Predicts the test set with the model that lies beside this script, and logs the accuracy."""

import argparse
import json
import os
from pathlib import Path

from utils import load

from stellwerk_agent import Run

MODEL_FOLDER = Path(__file__).parent / "model"


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-folder", required=True, help="where the dataset is mounted")
    args = parser.parse_args()
    images, labels = load(args.data_folder, "t10k")

    import keras

    model = keras.saving.load_model(MODEL_FOLDER / "model.keras")
    names = json.loads((MODEL_FOLDER / "labels.json").read_text())
    predicted = model.predict(images, batch_size=500, verbose=0).argmax(axis=1)
    accuracy = float((predicted == labels).mean())
    first = ", ".join(
        f"{names[got]} (is {want})" for got, want in zip(predicted[:5], labels[:5], strict=True)
    )
    print(f"{len(images)} images predicted; the first five: {first}")
    print(f"accuracy of the downloaded model: {accuracy:.4f}", flush=True)
    Run.get_context().log("test_accuracy", accuracy)


if __name__ == "__main__":
    main()
