# Files and tables: uploaded, registered, read here and in runs, written by runs.
import os

from azureml.core import Dataset, Datastore, Environment, Experiment, ScriptRunConfig, Workspace
from azureml.data import OutputFileDatasetConfig
from azureml.exceptions import UserErrorException

ws = Workspace.from_config()
datastore = ws.get_default_datastore()
assert Datastore.get_default(ws).name == datastore.name == "workspaceblobstore"
# %%
os.makedirs("data", exist_ok=True)
for name in ("features.csv", "labels.csv"):
    with open(os.path.join("data", name), "w") as f:
        f.write("a,b,when\n1,x,2020-01-01\n2,y,2020-01-02\n3,z,2020-01-03\n")
datastore.upload_files(files=["./data/features.csv", "./data/labels.csv"], target_path="diabetes/", overwrite=True, show_progress=True)
datastore.upload(src_dir="./data", target_path="whole", overwrite=True, show_progress=True)
# %%
dataset = Dataset.File.from_files(path=[(datastore, "diabetes/")])
dataset.to_path()
# %%
dataset = dataset.register(workspace=ws, name="diabetes dataset", description="training dataset", create_new_version=True)
assert sorted(dataset.to_path()) == ["/features.csv", "/labels.csv"], dataset.to_path()
other = Dataset.File.from_files(path=datastore.path("whole/features.csv"))
try:
    other.register(workspace=ws, name="diabetes dataset")
    raise SystemExit("a name was given twice")
except UserErrorException as e:
    print(e.message)
try:
    Dataset.get_by_name(ws, "no such dataset")
    raise SystemExit("a dataset that is not there was found")
except UserErrorException as e:
    print(e.message)
# %%
dataset = Dataset.get_by_name(workspace=ws, name="diabetes dataset")
print(dataset.name, dataset.version, dataset.id)
got = dataset.download(target_path="got", overwrite=True)
assert sorted(os.path.basename(p) for p in got) == ["features.csv", "labels.csv"]
# %%
uploaded = Dataset.File.upload_directory(src_dir="data", target=(datastore, "from-directory"), overwrite=True)
assert len(uploaded.to_path()) == 2
# %%
output = OutputFileDatasetConfig(name="prepared", destination=(datastore, "prepared/{run-id}")).register_on_complete(name="prepared")
env = Environment("user-managed-env")
env.python.user_managed_dependencies = True
src = ScriptRunConfig(
    source_directory="scripts",
    script="copy_data.py",
    arguments=["--folder", dataset.as_named_input("diabetes").as_mount(), "--file", other.as_download(), "--out", output],
    environment=env,
)
run = Experiment(ws, "datasets").submit(src)
run.wait_for_completion(show_output=True)
arguments = run.get_details()["runDefinition"]["arguments"]
assert arguments[1] == "DatasetConsumptionConfig:diabetes" and arguments[5] == "DatasetOutputConfig:prepared", arguments
prepared = Dataset.get_by_name(ws, "prepared")
assert sorted(prepared.to_path()) == ["/copy.csv"], prepared.to_path()
# %%
table = Dataset.Tabular.from_delimited_files(path=(datastore, "diabetes/features.csv"))
table = table.register(ws, "walk table", create_new_version=True)
assert Dataset.get_by_name(ws, "walk table").name == "walk table"
ws.datasets
