import sys

import joblib

from azureml.core import Dataset, Run
from azureml.core.model import Model

run = Run.get_context()
path = Model.get_model_path(sys.argv[1])
print(joblib.load(path))
run.log("model", path)
ws = run.experiment.workspace
print(ws.name, Dataset.get_by_name(ws, "mnist_opendataset").to_path())
