# Interactive runs: log from the notebook itself, keep files, register what came out.
import os

import azureml.core
from azureml.core import Experiment, Run, Workspace
from azureml.core.model import Model

print("This notebook was created for another version; you have", azureml.core.VERSION)
ws = Workspace.from_config()
print(ws.name, ws.resource_group, ws.location, ws.subscription_id, sep="\n")
# %%
experiment = Experiment(workspace=ws, name="train-within-notebook")
experiment
# %%
run = experiment.start_logging(snapshot_directory=None)
run.log("alpha", 0.03)
run.log("mse", 3424.3)
run.tag("model", "ridge")
with open("outputs/model.pkl", "wb") as file:
    file.write(b"weights")
run
# %%
run.upload_file(name="more/notes.txt", path_or_stream=__file__ if "__file__" in dir() else "outputs/model.pkl")
run.complete()
assert run.get_status() == "Completed", run.get_status()
assert run.get_metrics() == {"alpha": 0.03, "mse": 3424.3}, run.get_metrics()
print(run.get_portal_url())
# %%
for i in range(3):
    with experiment.start_logging() as each:
        each.log(name="alpha", value=i / 10)
        each.log(name="mse", value=3000 - i)
        each.upload_file("outputs/model.pkl", "outputs/model.pkl")
# %%
runs, metrics = {}, {}
for r in experiment.get_runs():
    m = r.get_metrics()
    if "mse" in m.keys():
        runs[r.id], metrics[r.id] = r, m
best_run_id = min(metrics, key=lambda k: metrics[k]["mse"])
best_run = runs[best_run_id]
assert metrics[best_run_id]["mse"] == 2998
best_run.tag("Best Run")
assert "Best Run" in best_run.get_tags()
# %%
print(best_run.get_file_names())
os.makedirs("fetched", exist_ok=True)
best_run.download_file(name="outputs/model.pkl", output_file_path="fetched/model.pkl")
assert open("fetched/model.pkl", "rb").read() == b"weights"
# %%
model = best_run.register_model(model_name="within_best_model", model_path="outputs/model.pkl")
print("Model name: {}, version: {}".format(model.name, model.version))
models = ws.models
assert models["within_best_model"].version == model.version
for m in Model.list(ws, name="within_best_model"):
    print(m.name, m.id, m.version, m.tags, m.created_time)
# %%
experiment
