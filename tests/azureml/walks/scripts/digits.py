import argparse
import glob
import gzip
import os

import joblib
import numpy as np
from sklearn.linear_model import LogisticRegression

from azureml.core import Run

parser = argparse.ArgumentParser()
parser.add_argument("--data-folder", type=str, dest="data_folder", help="data folder mounting point")
parser.add_argument("--regularization", type=float, dest="reg", default=0.01)
args = parser.parse_args()


def load(name, header):
    path = glob.glob(os.path.join(args.data_folder, "**/" + name), recursive=True)[0]
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


X = load("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 784) / 255.0
y = load("t10k-labels-idx1-ubyte.gz", 8)
run = Run.get_context()
clf = LogisticRegression(C=1.0 / args.reg, solver="liblinear", random_state=42).fit(X[:500], y[:500])
acc = np.average(clf.predict(X[500:2500]) == y[500:2500])
run.log("regularization rate", float(args.reg))
run.log("accuracy", acc)
os.makedirs("outputs", exist_ok=True)
joblib.dump(value=clf, filename="outputs/sklearn_mnist_model.pkl")
