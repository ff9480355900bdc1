# Environments: listed, made from code and from files, registered, versioned, cloned, used.
from azureml.core import Environment, Experiment, ScriptRunConfig, Workspace
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.environment import CondaDependencies as SameConda

assert SameConda is CondaDependencies
ws = Workspace.from_config()
envs = Environment.list(workspace=ws)
for env in envs:
    print("Name", env, envs[env].python.conda_dependencies.serialize_to_string()[:60])
# %%
curated = Environment.get(workspace=ws, name="AzureML-sklearn-1.5")
print(curated.name, curated.version)
clone = curated.clone("my-sklearn")
clone.python.conda_dependencies.add_pip_package("six")
# %%
myenv = Environment(name="walk-env")
conda_dep = CondaDependencies()
conda_dep.add_conda_package("python=3.8")
conda_dep.add_pip_package("six==1.16.0")
myenv.python.conda_dependencies = conda_dep
myenv.environment_variables = {"MESSAGE": "Hello from Azure Machine Learning"}
registered = myenv.register(workspace=ws)
assert registered.version == "1", registered
assert myenv.register(ws).version == "1"
# %%
conda_dep.add_pip_package("idna")
myenv.python.conda_dependencies = conda_dep
assert myenv.register(ws).version == "2"
assert Environment.get(ws, "walk-env").version == "2"
assert Environment.get(ws, name="walk-env", version="1").version == "1"
try:
    Environment.get(ws, name="not-there")
    raise SystemExit("an environment that is not there was found")
except Exception as e:
    print(e)
# %%
conda_dep.save_to_file(base_directory=".", conda_file_path="myenv.yml")
print(open("myenv.yml").read())
from_file = Environment.from_conda_specification(name="from-file", file_path="myenv.yml")
assert "idna" in from_file.python.conda_dependencies.serialize_to_string()
# %%
try:
    myenv.pyton = 1
    raise SystemExit("an attribute with a typo was accepted")
except AttributeError as e:
    print(e)
myenv.docker.enabled = True
myenv.docker.base_image = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
# %%
build = myenv.build(workspace=ws)
build.wait_for_completion(show_output=True)
# %%
src = ScriptRunConfig(source_directory="scripts", script="train.py", environment=Environment.get(ws, "walk-env", "2"))
run = Experiment(ws, "using-environments").submit(src)
run.wait_for_completion(show_output=True)
assert run.get_environment().version == "2"
used = run.get_details()["runDefinition"]["environment"]
assert (used["name"], used["version"]) == ("walk-env", "2"), used
assert "idna" in used["python"]["condaDependencies"]["dependencies"][-1]["pip"], used
