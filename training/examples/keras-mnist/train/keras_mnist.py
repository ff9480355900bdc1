"""Trains a network of two hidden layers on MNIST, and keeps the model with the run."""

import argparse
import json
import os
from pathlib import Path

from utils import LABELS, load

from stellwerk_agent import Run

MODEL_FOLDER = Path("outputs/model")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-folder", required=True, help="where the dataset is mounted")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--first-layer-neurons", type=int, default=300)
    parser.add_argument("--second-layer-neurons", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def build_model(args: argparse.Namespace):
    import keras

    model = keras.Sequential(
        [
            keras.Input((784,)),
            keras.layers.Dense(args.first_layer_neurons, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(args.second_layer_neurons, activation="relu"),
            keras.layers.Dropout(0.2),
            keras.layers.Dense(len(LABELS), activation="softmax"),
        ]
    )
    model.compile(
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.Adam(args.learning_rate),
        metrics=["accuracy"],
    )
    return model


def log_to(run):
    """A callback that reports every epoch."""
    import keras

    def report(epoch, logs):
        run.log("Loss", logs["val_loss"], step=epoch)
        run.log("Accuracy", logs["val_accuracy"], step=epoch)

    return keras.callbacks.LambdaCallback(on_epoch_end=report)


def plot(run, history) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
        axes.plot(history[name], label=name)
    axes.set_xlabel("epoch")
    axes.legend()
    run.log_image("Loss and accuracy", plot=plt)
    plt.close(figure)


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    args = arguments()
    run = Run.get_context()
    train_images, train_labels = load(args.data_folder, "train")
    test_images, test_labels = load(args.data_folder, "t10k")
    print(f"{len(train_images)} images to train with, {len(test_images)} to test with", flush=True)

    import keras

    keras.utils.set_random_seed(args.seed)
    model = build_model(args)
    model.summary(line_length=70)
    done = model.fit(
        train_images,
        train_labels,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(test_images, test_labels),
        callbacks=[log_to(run)],
        verbose=2,
    )
    loss, accuracy = model.evaluate(test_images, test_labels, verbose=0)
    print(f"test loss {loss:.4f}, test accuracy {accuracy:.4f}", flush=True)
    run.log("Final test loss", loss)
    run.log("Final test accuracy", accuracy)
    plot(run, done.history)

    MODEL_FOLDER.mkdir(parents=True, exist_ok=True)
    model.save(MODEL_FOLDER / "model.keras")
    (MODEL_FOLDER / "labels.json").write_text(json.dumps(LABELS))


if __name__ == "__main__":
    main()
