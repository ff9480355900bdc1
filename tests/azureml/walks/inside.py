# What a script can do with the workspace it runs in.
import os

from azureml.core import Dataset, Environment, Experiment, ScriptRunConfig, Workspace

ws = Workspace.from_config()
ws.get_default_keyvault().set_secret(name="walk-secret", value="s3cret")
os.makedirs("data", exist_ok=True)
with open("data/a.txt", "w") as f:
    f.write("a")
datastore = ws.get_default_datastore()
datastore.upload("data", target_path="walk-inside", overwrite=True, show_progress=False)
dataset = Dataset.File.from_files((datastore, "walk-inside")).register(ws, "walk inside data", create_new_version=True)
# %%
env = Environment("inside-env")
env.python.conda_dependencies.add_pip_package("azureml-defaults")
env = env.register(ws)
src = ScriptRunConfig("scripts", "inside.py", arguments=[env.name, dataset.as_named_input("by_id")], environment=env)
run = Experiment(ws, "inside").submit(src, tags={"given": "outside"})
run.wait_for_completion(show_output=True)
# %%
assert run.get_metrics() == {"a": 1}, run.get_metrics()
assert run.get_tags() == {"given": "outside", "seen": "inside"}, run.get_tags()
assert {"kept/x.txt", "outputs/x.txt"} <= set(run.get_file_names())
children = list(run.get_children())
assert sorted(c.get_metrics()["number"] for c in children) == [0, 1, 2], children
assert {c.get_status() for c in children} == {"Completed"}
assert "s3cret" not in str(run.get_details())
