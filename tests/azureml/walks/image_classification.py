# Digits with scikit-learn on a cluster: open dataset, old pins, the model registered.
import os

from azureml.core import Dataset, Experiment, ScriptRunConfig, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.environment import Environment
from azureml.opendatasets import MNIST

ws = Workspace.from_config()
exp = Experiment(workspace=ws, name="sklearn-mnist")
# %%
compute_name = os.environ.get("AML_COMPUTE_CLUSTER_NAME", "digits-cluster")
compute_min_nodes = os.environ.get("AML_COMPUTE_CLUSTER_MIN_NODES", 0)
compute_max_nodes = os.environ.get("AML_COMPUTE_CLUSTER_MAX_NODES", 4)
vm_size = os.environ.get("AML_COMPUTE_CLUSTER_SKU", "STANDARD_D2_V2")
if compute_name in ws.compute_targets:
    compute_target = ws.compute_targets[compute_name]
    if compute_target and type(compute_target) is AmlCompute:
        print("found compute target: " + compute_name)
else:
    print("creating new compute target...")
    provisioning_config = AmlCompute.provisioning_configuration(vm_size=vm_size, min_nodes=compute_min_nodes, max_nodes=compute_max_nodes)
    compute_target = ComputeTarget.create(ws, compute_name, provisioning_config)
    compute_target.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
    print(compute_target.get_status().serialize())
# %%
data_folder = os.path.join(os.getcwd(), "data")
os.makedirs(data_folder, exist_ok=True)
mnist_file_dataset = MNIST.get_file_dataset()
mnist_file_dataset.download(data_folder, overwrite=True)
mnist_file_dataset = mnist_file_dataset.register(workspace=ws, name="mnist_opendataset", description="training and test dataset", create_new_version=True)
# %%
import glob
found = glob.glob(os.path.join(data_folder, "**/train-images-idx3-ubyte.gz"), recursive=True)
assert len(found) == 1, found
# %%
env = Environment("tutorial-env")
cd = CondaDependencies.create(pip_packages=["azureml-dataset-runtime[pandas,fuse]", "azureml-defaults"], conda_packages=["scikit-learn==0.22.1"])
env.python.conda_dependencies = cd
env.register(workspace=ws)
# %%
args = ["--data-folder", mnist_file_dataset.as_mount(), "--regularization", 0.5]
src = ScriptRunConfig(source_directory="scripts", script="digits.py", arguments=args, compute_target=compute_target, environment=env)
run = exp.submit(config=src)
run
# %%
from azureml.widgets import RunDetails
RunDetails(run).show()
# %%
run.wait_for_completion(show_output=True)
print(run.get_metrics())
assert run.get_metrics()["accuracy"] > 0.7
print(run.get_file_names())
# %%
model = run.register_model(model_name="sklearn_mnist", model_path="outputs/sklearn_mnist_model.pkl")
print(model.name, model.id, model.version, sep="\t")
# %%
src = ScriptRunConfig(source_directory="scripts", script="use_model.py", arguments=["sklearn_mnist"], compute_target=compute_target, environment=env)
run = exp.submit(src)
run.wait_for_completion(show_output=True)
assert run.get_metrics()["model"].endswith("sklearn_mnist_model.pkl"), run.get_metrics()
ComputeTarget(ws, compute_name).delete()
