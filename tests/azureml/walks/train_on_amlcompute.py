# A cluster: what sizes there are, get or create, train on it, look at it, change it, delete it.
from azureml.core import Experiment, ScriptRunConfig, Workspace
from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.core.compute_target import ComputeTargetException
from azureml.core.environment import Environment
from azureml.core.conda_dependencies import CondaDependencies

ws = Workspace.from_config()
experiment = Experiment(workspace=ws, name="train-on-amlcompute")
AmlCompute.supported_vmsizes(workspace=ws)
# %%
cpu_cluster_name = "cpu-cluster"
try:
    cpu_cluster = ComputeTarget(workspace=ws, name=cpu_cluster_name)
    print("Found existing cluster, use it.")
except ComputeTargetException:
    compute_config = AmlCompute.provisioning_configuration(vm_size="STANDARD_D2_V2", max_nodes=4, idle_seconds_before_scaledown="300")
    cpu_cluster = ComputeTarget.create(ws, cpu_cluster_name, compute_config)
cpu_cluster.wait_for_completion(show_output=True)
# %%
myenv = Environment("myenv")
myenv.python.conda_dependencies = CondaDependencies.create(conda_packages=["python=3.8"], pip_packages=["azureml-defaults"])
myenv.docker.enabled = True
# %%
src = ScriptRunConfig(source_directory="scripts", script="train.py", arguments=["--reg", 0.5, "--alphas", 2], compute_target=cpu_cluster, environment=myenv)
run = experiment.submit(config=src)
run
# %%
from azureml.widgets import RunDetails
RunDetails(run).show()
# %%
run.wait_for_completion(show_output=True)
assert run.get_details()["runDefinition"]["arguments"] == ["--reg", "0.5", "--alphas", "2"]
# %%
run.get_metrics()
# %%
if cpu_cluster_name in ws.compute_targets:
    compute_target = ws.compute_targets[cpu_cluster_name]
    if compute_target and type(compute_target) is AmlCompute:
        print("found compute target: " + compute_target.name, compute_target.type, compute_target.provisioning_state)
print(cpu_cluster.get_status().serialize())
print(cpu_cluster.list_nodes())
# %%
cpu_cluster.update(min_nodes=0, max_nodes=2, idle_seconds_before_scaledown=600)
cpu_cluster.wait_for_completion(show_output=True, min_node_count=None, timeout_in_minutes=20)
# %%
cpu_cluster.delete()
assert cpu_cluster_name not in ws.compute_targets
