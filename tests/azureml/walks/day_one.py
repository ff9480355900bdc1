# The scripts of somebody's first day, pasted one after the other.
import os

from azureml.core import Workspace

ws = Workspace.create(name="first-day", subscription_id="11111111-2222-3333-4444-555555555555", resource_group="a-group", create_resource_group=True, location="eastus2")
ws.write_config(path=".azureml")
# %%
from azureml.core import Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException

ws = Workspace.from_config()
assert ws.name == "first-day"
cpu_cluster_name = "day-cluster"
try:
    cpu_cluster = ComputeTarget(workspace=ws, name=cpu_cluster_name)
    print("Found existing cluster, use it.")
except ComputeTargetException:
    compute_config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=4, idle_seconds_before_scaledown="2400")
    cpu_cluster = ComputeTarget.create(ws, cpu_cluster_name, compute_config)
cpu_cluster.wait_for_completion(show_output=True)
# %%
from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace

ws = Workspace.from_config()
experiment = Experiment(workspace=ws, name="day1-experiment-hello")
config = ScriptRunConfig(source_directory="./scripts", script="hello.py", compute_target="day-cluster")
run = experiment.submit(config)
aml_url = run.get_portal_url()
print(aml_url)
run.wait_for_completion()
assert run.get_metrics() == {"message": "Hello from run!"}
# %%
with open(".azureml/env.yml", "w") as f:
    f.write("name: day-env\nchannels:\n    - defaults\n    - pytorch\ndependencies:\n    - python=3.6.2\n    - six\n")
ws = Workspace.from_config()
experiment = Experiment(workspace=ws, name="day1-experiment-train")
config = ScriptRunConfig(source_directory="./scripts", script="train.py", arguments=["--reg", 0.3], compute_target="day-cluster")
env = Environment.from_conda_specification(name="day-env", file_path=".azureml/env.yml")
config.run_config.environment = env
run = experiment.submit(config)
print("Submitted to an Azure Machine Learning compute cluster. Click on the link below")
print("")
print(run.get_portal_url())
run.wait_for_completion(show_output=True)
# %%
from azureml.core import Dataset

os.makedirs("data", exist_ok=True)
open("data/a.txt", "w").write("data of the first day")
datastore = ws.get_default_datastore()
datastore.upload(src_dir="./data", target_path="datasets/day", overwrite=True)
dataset = Dataset.File.from_files(path=(datastore, "datasets/day"))
config = ScriptRunConfig(source_directory="./scripts", script="read_folder.py", compute_target="day-cluster", arguments=["--data_path", dataset.as_named_input("input").as_mount(), "--learning_rate", 0.003])
config.run_config.environment = env
run = Experiment(ws, "day1-experiment-data").submit(config)
run.wait_for_completion(show_output=True)
assert run.get_metrics()["files"] == 1
ComputeTarget(ws, "day-cluster").delete()
