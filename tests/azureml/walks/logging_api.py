# Every kind of metric, from the notebook.
import random

from azureml.core import Experiment, Workspace

ws = Workspace.from_config()
exp = Experiment(workspace=ws, name="logging-api-test")
run = exp.start_logging(snapshot_directory=None)
# %%
run.log(name="myscalar", value=1.0)
run.log("series", 1)
run.log("series", 2)
run.log_list(name="mylist", value=[0.1, 0.2, 0.3], description="a list")
run.log_row("row", x=1, y=2)
for i in range(20):
    run.log_row("rows", x=i, y=i * i)
run.log_table(name="table", value={"a": [1, 2], "b": [3, 4]})
run.log_table("a row", value={"a": [1]})
run.log("text", "one")
run.log("truth", True)
# %%
png = bytes.fromhex("89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000a49444154789c6360000000020001e221bc330000000049454e44ae426082")
open("pixel.png", "wb").write(png)
run.log_image(name="picture", path="pixel.png")
run.log_confusion_matrix(
    name="confusion",
    value={
        "schema_type": "confusion_matrix",
        "schema_version": "v1",
        "data": {"class_labels": ["0", "1"], "matrix": [[3, 1], [0, 4]]},
    },
)
# %%
run.add_properties({"author": "azureml-user"})
try:
    run.add_properties({"author": "different-user"})
    raise SystemExit("a property was changed")
except Exception as e:
    print(e)
run.tag("quality", "good run")
run.tag("Rank", 1)
run.tag("quality", "fantastic run")
# %%
run.upload_file("files/pixel.png", "pixel.png")
run.upload_files(["a.txt", "b/c.txt"], ["pixel.png", "pixel.png"])
run.upload_folder("folder", "outputs")
try:
    run.upload_file("files/pixel.png", "pixel.png")
    raise SystemExit("a file was replaced")
except Exception as e:
    print(type(e).__name__)
run.complete()
# %%
fetched = run.get_metrics()
assert fetched["myscalar"] == 1.0, fetched
assert fetched["series"] == [1, 2]
assert fetched["mylist"] == [0.1, 0.2, 0.3]
assert fetched["row"] == {"x": 1, "y": 2}
assert fetched["rows"] == {"x": list(range(20)), "y": [i * i for i in range(20)]}
assert fetched["table"] == {"a": [1, 2], "b": [3, 4]}
assert fetched["a row"] == {"a": 1}
assert fetched["text"] == "one" and fetched["truth"] is True
assert fetched["picture"].startswith("aml://artifactId/ExperimentRun/dcid." + run.id)
assert run.get_metrics(name="series") == {"series": [1, 2]}
assert run.get_metrics(name="absent") == {}
# %%
assert run.get_tags() == {"quality": "fantastic run", "Rank": "1"}, run.get_tags()
assert run.get_properties()["author"] == "azureml-user"
assert run.get_details()["status"] == "Completed"
assert {"files/pixel.png", "a.txt", "b/c.txt"} <= set(run.get_file_names()), run.get_file_names()
run.download_files(prefix="b", output_directory="got", append_prefix=True)
run.download_file("files/pixel.png")
assert open("pixel.png", "rb").read() == png == open("got/b/c.txt", "rb").read()
# %%
assert next(exp.get_runs(properties={"author": "azureml-user"}, tags={"quality": "fantastic run"})).id == run.id
assert [r.id for r in exp.get_runs(tags="worst run")] == []
