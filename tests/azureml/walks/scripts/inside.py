import os
import sys

from azureml.core import Dataset, Environment, Experiment, Model, Run, Workspace
from azureml.core.run import _OfflineRun
from azureml.exceptions import ModelNotFoundException, UserErrorException

run = Run.get_context()
assert type(run) != _OfflineRun and "OfflineRun" not in run.id
ws = run.experiment.workspace
print(run, ws.name, run.experiment.name, run.get_portal_url())
assert Workspace.from_config().get_details()["name"] == ws.name
# What was there before
paths = Dataset.get_by_name(ws, "walk inside data").to_path()
assert paths == ["/a.txt"], paths
assert Dataset.get_by_id(ws, run.input_datasets["by_id"].id).to_path() == ["/a.txt"] == Dataset.get_by_id(ws, sys.argv[2]).to_path()
assert Environment.get(ws, sys.argv[1]).name == run.get_environment().name
assert run.get_secret(name="walk-secret") == ws.get_default_keyvault().get_secret("walk-secret") == "s3cret"
# Tags, metrics, files
run.tag("seen", "inside")
assert run.get_tags()["seen"] == "inside" and "given" in run.tags
run.log("a", 1)
os.makedirs("outputs", exist_ok=True)
with open("outputs/x.txt", "w") as f:
    f.write("x")
run.upload_file(name="kept/x.txt", path_or_stream="outputs/x.txt")
# Models: of files here, of a file of the run
made = Model.register(workspace=ws, model_path="outputs/x.txt", model_name="inside-files")
assert Model(ws, "inside-files").id == made.id
assert open(Model.get_model_path("inside-files", _workspace=ws)).read() == "x"
registered = run.register_model(model_name="inside-run", model_path="kept/x.txt")
assert Model(ws, "inside-run").run_id == run.id, registered
try:
    Model.get_model_path("inside-missing")
    raise SystemExit("a model that is not there was found")
except ModelNotFoundException as e:
    print(e.message)
# Children
for number, child in enumerate(run.create_children(count=2)):
    child.log("number", number)
    child.complete()
with run.child_run("named") as child:
    child.log("number", 2)
assert child.parent.id == run.id
run.complete()
