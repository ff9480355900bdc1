# Start, watch, tag, cancel and query runs; children and their parent.
import azureml.core
from azureml.core import Experiment, Run, ScriptRunConfig, Workspace
from azureml.core.experiment import Experiment as SameExperiment
from azureml.exceptions import ActivityFailedException

ws = Workspace.from_config()
exp = Experiment(workspace=ws, name="explore-runs")
assert SameExperiment is Experiment
# %%
notebook_run = exp.start_logging()
notebook_run.log(name="message", value="Hello from run!")
print(notebook_run.get_status())
assert notebook_run.get_status() == "Running"
notebook_run.complete()
assert notebook_run.get_status() == "Completed"
# %%
with exp.start_logging() as notebook_run:
    notebook_run.log(name="message", value="Hello from run!")
    print("Is it still running?", notebook_run.get_status())
print("Has it completed?", notebook_run.get_status())
# %%
run_config = ScriptRunConfig(source_directory="scripts", script="hello.py")
local_script_run = exp.submit(run_config)
print(local_script_run.get_status())
local_script_run.wait_for_completion()
print(local_script_run.get_status())
assert local_script_run.get_status() == "Completed"
local_script_run
# %%
local_script_run.add_properties({"author": "azureml-user"})
print(local_script_run.get_properties())
try:
    local_script_run.add_properties({"author": "different-user"})
    raise SystemExit("a property was changed")
except Exception as e:
    print(e)
local_script_run.tag("quality", "great run")
print(local_script_run.get_tags())
local_script_run.tag("quality", "fantastic run")
local_script_run.tag("worth another look")
assert local_script_run.get_tags() == {"quality": "fantastic run", "worth another look": None}
# %%
assert next(exp.get_runs(properties={"author": "azureml-user"}, tags={"quality": "fantastic run"})).id == local_script_run.id
assert local_script_run.id in {r.id for r in exp.get_runs(tags="worth another look")}
# %%
run_config = ScriptRunConfig(source_directory="scripts", script="hello_with_delay.py")
slow_run = exp.submit(run_config)
print("Did the run start?", slow_run.get_status())
slow_run.cancel()
slow_run.wait_for_completion()
print("Did the run cancel?", slow_run.get_status())
assert slow_run.get_status() == "Canceled"
# %%
bad_run = exp.submit(ScriptRunConfig(source_directory="scripts", script="hello_with_error.py"))
try:
    bad_run.wait_for_completion(show_output=True)
    raise SystemExit("a failed run did not raise")
except ActivityFailedException as e:
    print(e.message)
assert bad_run.get_status() == "Failed"
print(bad_run.get_details()["error"])
# %%
failing = exp.start_logging()
failing.fail()
assert failing.get_status() == "Failed"
# %%
run_config = ScriptRunConfig(source_directory="scripts", script="hello_with_children.py")
parent = exp.submit(run_config)
parent.wait_for_completion(show_output=True)
print(parent.get_status())
children = list(parent.get_children())
assert len(children) == 5, children
for child in parent.get_children():
    print(child.id, child.get_status(), child.get_metrics())
all_metrics = parent.get_metrics(recursive=True)
assert set(all_metrics) >= {c.id for c in children}
assert any("Hello from child run " in m for m in all_metrics.values()), all_metrics
# %%
with exp.start_logging() as parent_run:
    parent_run.log(name="message", value="from parent")
    with parent_run.child_run("child") as child_run:
        child_run.log(name="message", value="from child")
    assert child_run.parent.id == parent_run.id
assert [c.get_metrics() for c in parent_run.get_children()] == [{"message": "from child"}]
# %%
again = Run(exp, parent.id)
assert (again.id, again.type, again.get_status()) == (parent.id, "azureml.scriptrun", "Completed"), again
assert Run.get(ws, parent.id).experiment.name == "explore-runs"
assert ws.get_run(parent.id).id == parent.id
assert ws.experiments["explore-runs"].name == "explore-runs"
for r in exp.get_runs(include_children=True):
    print(r.id, r.status)
