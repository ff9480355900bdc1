"""A training script as people wrote them in 2019, unaware of Stellwerk."""

import argparse
import glob
import os

import matplotlib
import numpy as np

matplotlib.use("Agg")
import keras
import matplotlib.pyplot as plt
import tensorflow as tf
from keras.callbacks import Callback
from keras.layers import Dense
from keras.models import Sequential, model_from_json
from keras.optimizers import RMSprop
from utils import load_data, one_hot_encode

from azureml.core import Run

print("Keras version:", keras.__version__)
print("Tensorflow version:", tf.__version__)

parser = argparse.ArgumentParser()
parser.add_argument("--data-folder", type=str, dest="data_folder")
parser.add_argument("--batch-size", type=int, dest="batch_size", default=50)
parser.add_argument("--first-layer-neurons", type=int, dest="n_hidden_1", default=100)
parser.add_argument("--second-layer-neurons", type=int, dest="n_hidden_2", default=100)
parser.add_argument("--learning-rate", type=float, dest="learning_rate", default=0.001)
args = parser.parse_args()

data_folder = args.data_folder
print("training dataset is stored here:", data_folder)


def find(name):
    return glob.glob(os.path.join(data_folder, "**/" + name), recursive=True)[0]


X_train = load_data(find("train-images-idx3-ubyte.gz"), False) / np.float32(255.0)
X_test = load_data(find("t10k-images-idx3-ubyte.gz"), False) / np.float32(255.0)
y_train = one_hot_encode(load_data(find("train-labels-idx1-ubyte.gz"), True), 10)
y_test = one_hot_encode(load_data(find("t10k-labels-idx1-ubyte.gz"), True), 10)
print(X_train.shape, y_train.shape, X_test.shape, y_test.shape, sep="\n")

model = Sequential()
model.add(Dense(args.n_hidden_1, activation="relu", input_shape=(784,), name="hidden1"))
model.add(Dense(args.n_hidden_2, activation="relu", name="hidden2"))
model.add(Dense(10, activation="softmax", name="output"))
model.summary()
model.compile(
    loss="categorical_crossentropy",
    optimizer=RMSprop(lr=args.learning_rate),
    metrics=["accuracy"],
)

run = Run.get_context()


class LogRunMetrics(Callback):
    def on_epoch_end(self, epoch, log):
        run.log("Loss", log["val_loss"])
        run.log("Accuracy", log["val_accuracy"])


history = model.fit(
    X_train,
    y_train,
    batch_size=args.batch_size,
    epochs=2,
    verbose=2,
    validation_data=(X_test, y_test),
    callbacks=[LogRunMetrics()],
)
score = model.evaluate(X_test, y_test, verbose=0)
run.log("Final test loss", score[0])
print("Test loss:", score[0])
run.log("Final test accuracy", score[1])
print("Test accuracy:", score[1])

plt.figure(figsize=(6, 3))
plt.title("MNIST with Keras ({} epochs)".format(len(history.history["val_loss"])))
plt.plot(history.history["val_accuracy"], "b-", label="Accuracy", lw=4, alpha=0.5)
plt.plot(history.history["val_loss"], "r--", label="Loss", lw=4, alpha=0.5)
plt.legend()
plt.grid(True)
run.log_image("Loss v.s. Accuracy", plot=plt)

os.makedirs("./outputs/model", exist_ok=True)
model_json = model.to_json()
with open("./outputs/model/model.json", "w") as f:
    f.write(model_json)
model.save_weights("./outputs/model/model.h5")
print("model saved in ./outputs/model folder")

loaded = model_from_json(open("./outputs/model/model.json").read())
loaded.load_weights("./outputs/model/model.h5")
assert np.allclose(loaded.predict(X_test[:8], verbose=0), model.predict(X_test[:8], verbose=0))
