# The same configuration on this machine's own Python and in an environment that is built.
from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.conda_dependencies import CondaDependencies

ws = Workspace.from_config()
exp = Experiment(workspace=ws, name="train-on-local")
user_managed_env = Environment("user-managed-env")
user_managed_env.python.user_managed_dependencies = True
# %%
src = ScriptRunConfig(source_directory="scripts", script="train.py")
src.run_config.environment = user_managed_env
run = exp.submit(src)
run
# %%
run.wait_for_completion(show_output=True)
import sys
assert run.get_details()['runDefinition']['environment']['python']['interpreterPath'] == sys.executable
run.get_metrics()
# %%
conda_env = Environment("conda-env")
conda_env.python.conda_dependencies = CondaDependencies.create(pip_packages=["six"], python_version="3.6.2")
conda_env.environment_variables["MESSAGE"] = "from the environment"
src.run_config.environment = conda_env
run = exp.submit(config=src, tags={"kind": "conda"})
run.wait_for_completion(show_output=True)
assert run.get_tags() == {"kind": "conda", "stage": "trained"}, run.get_tags()
# %%
details = run.get_details()
assert details["runId"] == run.id and details["status"] == "Completed"
assert details["runDefinition"]["script"] == "train.py"
assert details["target"] == "local"
environment = details["runDefinition"]["environment"]
assert environment["name"] == "conda-env" and environment["version"].startswith("Autosave_"), environment
assert environment["environmentVariables"]["MESSAGE"] == "from the environment"
assert "six" in environment["python"]["condaDependencies"]["dependencies"][-1]["pip"]
run.get_details_with_logs()
# %%
metrics = run.get_metrics()
assert metrics["alpha"] == [0.5, 0.6, 0.7], metrics
assert metrics["done"] is True
best_alpha = metrics["alpha"][metrics["mse"].index(min(metrics["mse"]))]
assert best_alpha == 0.6
print("When alpha is {0:.2f}, mse is lowest".format(best_alpha))
# %%
model = run.register_model(model_name="local_best_model", model_path="./outputs/ridge_{0:.2f}.pkl".format(best_alpha), description="ridge", tags={"area": "diabetes"})
print(model.name, model.version, model.id, sep="\t")
# %%
import zipfile

local_code_snapshot = run.restore_snapshot(path="snapshots")
print(local_code_snapshot)
assert "train.py" in zipfile.ZipFile(local_code_snapshot).namelist()
# %%
env_used = run.get_environment()
assert env_used.name == "conda-env", env_used
